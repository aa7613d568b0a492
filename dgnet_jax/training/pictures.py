"""Pictures of a training run: reconstructions and swaps of a fixed, seeded choice of images.

Of a drawn data set also swaps of test people beside their truth, and how the two compare.
"""

from functools import cached_property
from typing import NamedTuple

import ml_collections
import numpy as np
from absl import logging
from PIL import Image

from dgnet_jax.config_fields import reconstruction_text
from dgnet_jax.data.sampling import choose_images
from dgnet_jax.data.synthetic import Settings, TrueSwaps
from dgnet_jax.evaluation.truth import chosen_swaps, measure_in_short, unmeasurable
from dgnet_jax.evaluation.variants import Metrics
from dgnet_jax.figures import image_grid, swap_matrix, truth_matrix
from dgnet_jax.models import Networks
from dgnet_jax.models.forward import Forward, compiled
from dgnet_jax.runtime.devices import to_host
from dgnet_jax.training.state import TrainState

# Test people of a drawn data set on either side of its true swaps; how many a picture shows.
_TRUE_PEOPLE = 10
_SHOWN_APPEARANCES, _SHOWN_STRUCTURES = 6, 8


class Swaps(NamedTuple):
    """originals: (n, h, w, 3); swapped: (n, n, h, w, 3), [i, j] = appearance i, structure j."""

    originals: np.ndarray
    swapped: np.ndarray


class Painter:
    """Draws the same images at every step; compiled once."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        networks: Networks,
        train_images: np.ndarray,
        drawn: Settings | None = None,
    ) -> None:
        """Takes the images; `drawn` is what a drawn data set depends on, None of any other."""
        self._config, self._drawn = config, drawn
        chosen = choose_images(len(train_images), config.log.image_rows, config.seed)
        self._images = train_images[chosen]
        forward = Forward(networks, config.data.height, config.data.width)
        self._swap_all = compiled(forward, "swap_all")

    def swaps(self, state: TrainState) -> Swaps:
        """Originals and all their swaps, with running statistics."""
        return Swaps(self._images, self._swap(state, self._images, self._images))

    def measure(self, state: TrainState) -> Metrics:
        """`truth.measure_in_short` for test people of a drawn data set; nothing of any other."""
        truth = self._truth
        if truth is None:
            return {}
        swapped = self._swap(state, truth.appearances, truth.structures)
        return measure_in_short(swapped, truth)

    def pictures(self, state: TrainState, step: int) -> dict[str, Image.Image]:
        """The grid of (input, reconstruction, swapped) and the matrix of swaps, with captions.

        Of a drawn data set also "truth", swaps of test people and their truth.
        """
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
        loss = reconstruction_text(self._config)
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
        found = {"reconstruction": grid, "swaps": matrix}
        if self._truth is not None:
            found["truth"] = self._beside_truth(state, step, self._truth)
        return found

    def _beside_truth(self, state: TrainState, step: int, truth: TrueSwaps) -> Image.Image:
        appearances = truth.appearances[:_SHOWN_APPEARANCES]
        structures = truth.structures[:_SHOWN_STRUCTURES]
        return truth_matrix(
            list(appearances),
            list(structures),
            self._swap(state, appearances, structures),
            truth.truth[: len(appearances), : len(structures)],
            caption=f"Reconstruction loss {reconstruction_text(self._config)}, step {step}: "
            "appearance of the row's image on the structure of the column's, as painted and, "
            "below it, as drawn: the truth",
            scale=max(1, 128 // truth.truth.shape[2]),
        )

    @cached_property
    def _truth(self) -> TrueSwaps | None:
        """What swaps of a drawn data set ought to be; None where there is nothing to measure."""
        if self._drawn is None:
            return None
        size = self._config.data.height, self._config.data.width
        truth = chosen_swaps(self._drawn, _TRUE_PEOPLE, self._config.seed, *size)
        reason = unmeasurable(truth)
        if reason:
            logging.warning("swaps are not compared with their truth: %s", reason)
        return None if reason else truth

    def _swap(
        self, state: TrainState, appearances: np.ndarray, structures: np.ndarray
    ) -> np.ndarray:
        """All swaps (n, m, height, width, 3), in squares of the one size that is compiled."""
        size, n, m = len(self._images), len(appearances), len(structures)

        def square(i: int, j: int) -> np.ndarray:
            images = _rows(appearances, i, size), _rows(structures, j, size)
            variables = state.generator, state.appearance_variables
            return to_host(self._swap_all(*variables, *images))

        rows = [
            np.concatenate([square(i, j) for j in range(0, m, size)], axis=1)
            for i in range(0, n, size)
        ]
        return np.concatenate(rows)[:n, :m]


def _rows(images: np.ndarray, start: int, count: int) -> np.ndarray:
    """`count` images from `start` on; beyond the end the last one again."""
    return images[np.minimum(np.arange(start, start + count), len(images) - 1)]


def _fit(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
