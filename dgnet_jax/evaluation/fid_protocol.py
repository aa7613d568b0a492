"""DG-Net's protocol of FID: its generated set, and the JPEG files that it measures.

docs/method.md, section 7.6. Images as painted, rounded to 8 bits, are this project's addition.
"""

import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from dgnet_jax.inference import DGNet

HEIGHT, WIDTH = 256, 128
JPEG_IMAGES = 12_936
"""The most generated images that the protocol measures: as many as Market-1501 trains on."""

# Batches a call: within one the device does not wait for the host.
_BATCHES = 8
# Second word of the seed sequence, so that the permutation is independent of other draws.
_PERMUTATION, _JPEGS = 501, 503


class Pictures(NamedTuple):
    """Some generated images.

    Attributes:
        indices: of the training images whose appearance they have.
        rounded: their levels rounded, the PNG images.
        truncated: their levels truncated, of which the protocol makes JPEG files.
    """

    indices: Int[np.ndarray, " b"]
    rounded: UInt8[np.ndarray, "b height width 3"]
    truncated: UInt8[np.ndarray, "b height width 3"]


def structure_permutation(
    count: int, seed: int, repetition: int = 0
) -> Int[np.ndarray, " {count}"]:
    """Whose structure image i gets. Each repetition of the set has its own."""
    return np.random.default_rng([seed, _PERMUTATION, repetition]).permutation(count)


def swapped_training_images(
    model: DGNet, images: UInt8[np.ndarray, "n rows columns 3"], seed: int
) -> Iterator[Pictures]:
    """Yields one generated image for every training image, in their order.

    Image i has the appearance of training image i and the structure of the one at a seeded
    permutation. A network of another size than 256 x 128 paints at its own, and the result is
    resized with Pillow's bicubic filter, as the protocol resizes real images.

    Args:
        images: all training images.
        seed: of the permutation.
    """
    order = structure_permutation(len(images), seed)
    count = _BATCHES * model.batch_size
    for start in range(0, len(images), count):
        rows = np.arange(start, min(start + count, len(images)))
        both = model.swap_in_both_ways(images[rows], images[order[rows]])
        yield Pictures(rows, *(resize_bicubic(pictures) for pictures in both))


def jpeg_indices(count: int, seed: int) -> Int[np.ndarray, " chosen"]:
    """Which of `count` generated images the protocol measures: all, or a seeded 12,936 of them."""
    if count <= JPEG_IMAGES:
        return np.arange(count)
    rng = np.random.default_rng([seed, _JPEGS])
    return np.sort(rng.choice(count, JPEG_IMAGES, replace=False))


def encode_jpeg(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A JPEG file of Pillow's default quality."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG")
    return stream.getvalue()


def decode_jpeg(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """The RGB image of a JPEG file."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def resize_bicubic(
    images: UInt8[np.ndarray, "n rows columns 3"], height: int = HEIGHT, width: int = WIDTH
) -> UInt8[np.ndarray, "n {height} {width} 3"]:
    """Resizes with Pillow's bicubic filter."""
    if images.shape[1:3] == (height, width):
        return images
    size = (width, height)
    resized = np.empty((len(images), height, width, 3), np.uint8)
    for place, image in zip(resized, images, strict=True):
        place[:] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return resized
