"""The generated set of DG-Net's FID (docs/method.md, section 7.6)."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from dgnet_jax.inference import DGNet

HEIGHT, WIDTH = 256, 128
# Batches a call: within one the device does not wait for the host.
_BATCHES = 8
# Second word of the seed sequence, so that the permutation is independent of other draws.
_PERMUTATION = 501


def structure_permutation(
    count: int, seed: int, repetition: int = 0
) -> Int[np.ndarray, " {count}"]:
    """Whose structure image i gets. Each repetition of the set has its own."""
    return np.random.default_rng([seed, _PERMUTATION, repetition]).permutation(count)


def swapped_training_images(
    model: DGNet, images: UInt8[np.ndarray, "n rows columns 3"], seed: int
) -> Iterator[tuple[Int[np.ndarray, " b"], UInt8[np.ndarray, "b 256 128 3"]]]:
    """Yields one generated image for every training image, in their order.

    Image i has the appearance of training image i and the structure of the one at a seeded
    permutation. A network of another size than 256 x 128 paints at its own, and the result is
    resized with Pillow's bicubic filter, as the protocol resizes real images.

    Args:
        images: all training images.
        seed: of the permutation.

    Yields:
        Indices of b training images, and their pictures.
    """
    order = structure_permutation(len(images), seed)
    count = _BATCHES * model.batch_size
    for start in range(0, len(images), count):
        rows = np.arange(start, min(start + count, len(images)))
        yield rows, resize_bicubic(model.swap(images[rows], images[order[rows]]))


def resize_bicubic(
    images: UInt8[np.ndarray, "n rows columns 3"], height: int = HEIGHT, width: int = WIDTH
) -> UInt8[np.ndarray, "n {height} {width} 3"]:
    """Resizes with Pillow's bicubic filter."""
    if images.shape[1:3] == (height, width):
        return images
    size = (width, height)
    return np.stack(
        [
            np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            for image in images
        ]
    )
