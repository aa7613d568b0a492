"""Pictures of a training run: reconstructions and swaps of a fixed, seeded choice of images."""

from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from PIL import Image

from dgnet_jax.data.sampling import choose_images
from dgnet_jax.figures import image_grid, swap_matrix
from dgnet_jax.models import Networks
from dgnet_jax.models.forward import Forward
from dgnet_jax.runtime.devices import to_host
from dgnet_jax.training.state import TrainState


class Swaps(NamedTuple):
    """originals: (n, h, w, 3); swapped: (n, n, h, w, 3), [i, j] = appearance i, structure j."""

    originals: np.ndarray
    swapped: np.ndarray


class Painter:
    """Draws the same images at every step; compiled once."""

    def __init__(
        self, config: ml_collections.ConfigDict, networks: Networks, train_images: np.ndarray
    ) -> None:
        self._config = config
        chosen = choose_images(len(train_images), config.log.image_rows, config.seed)
        self._images = train_images[chosen]
        forward = Forward(networks, config.data.height, config.data.width)

        @jax.jit
        def paint(state: TrainState, images: jax.Array) -> jax.Array:
            """All n x n swaps in uint8: (n, n, height, width, 3)."""
            return forward.swap_all(state.generator, state.appearance_variables, images)

        self._paint = paint

    def swaps(self, state: TrainState) -> Swaps:
        """Originals and all their swaps, with running statistics."""
        return Swaps(self._images, to_host(self._paint(state, self._images)))

    def pictures(self, state: TrainState, step: int) -> dict[str, Image.Image]:
        """The grid of (input, reconstruction, swapped) and the matrix of swaps, with captions."""
        swaps = self.swaps(state)
        swapped = swaps.swapped
        scale = max(1, 128 // swapped.shape[-3])
        originals = [_fit(image, swapped.shape[-3:-1]) for image in swaps.originals]
        count = len(originals)
        rows = []
        for index in range(count):
            other = (index + 1) % count
            rows.append(
                [
                    originals[index],
                    swapped[index, index],
                    originals[other],
                    swapped[index, other],
                    swapped[other, index],
                ]
            )
        loss = self._config.reconstruction_loss
        grid = image_grid(
            rows,
            column_titles=("a", "a rebuilt", "b", "a's clothes, b's pose", "b's clothes, a's pose"),
            caption=f"Reconstruction loss {loss}, step {step}: images a and b, a rebuilt from its "
            "own codes, and the two swaps",
            scale=scale,
        )
        matrix = swap_matrix(
            originals,
            originals,
            swapped,
            caption=f"Reconstruction loss {loss}, step {step}: appearance of the row's image on "
            "the structure of the column's",
            scale=scale,
        )
        return {"reconstruction": grid, "swaps": matrix}


def _fit(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
