"""Which images a step sees: a pure function of (seed, step), the same on any number of hosts.

The data state of a checkpoint is the step alone. Position p = step * batch_size + i of the
endless stream of a direction is item p mod n of the permutation of epoch p div n, so that batches
run across the ends of epochs and every image comes once per epoch and direction.
`choose_images` says which images figures show.
"""

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Self

import numpy as np

# First words of the spawn keys, so that no two uses share random numbers.
_ORDER, _POSITIVE = 0, 1
# Second word of the seed sequence of `choose_images`, independent of other draws.
_CHOICE = 1501
_DIRECTION_A, _DIRECTION_B, _CLASSIFICATION = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Indices:
    """Index arrays of equal length, one row per item of the batch."""

    def __getitem__(self, rows: slice) -> Self:
        """Some rows of the batch, such as a device's."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class PairIndices(Indices):
    """The two independent batches, a and b, of a DG-Net step.

    Each array is (batch,); indices are int64, labels int32. A positive is another image of the same
    identity.
    """

    image_a: np.ndarray
    positive_a: np.ndarray
    label_a: np.ndarray
    image_b: np.ndarray
    positive_b: np.ndarray
    label_b: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassificationIndices(Indices):
    """A batch for the teacher; each array is (batch,), indices int64, labels int32."""

    image: np.ndarray
    label: np.ndarray


class PairSampler:
    """Batches of image pairs.

    Args:
        labels: (n,) integer identity labels; they need not be contiguous.
        batch_size: items per direction in the global batch.
        seed: not negative.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int) -> None:
        _check(labels, batch_size)
        self._labels = np.asarray(labels, np.int32)
        self._batch_size = batch_size
        self._seed = seed
        # by_label lists the images of the first label, then of the second, ...: start and count
        # find an image's own label in it, and start + rank the image itself.
        self._by_label = np.argsort(self._labels, kind="stable")
        _, label_index, counts = np.unique(self._labels, return_inverse=True, return_counts=True)
        self._count = counts[label_index]
        self._start = (np.cumsum(counts) - counts)[label_index]
        self._rank = np.empty_like(self._by_label)
        self._rank[self._by_label] = np.arange(len(self._labels))
        self._rank -= self._start

    def batch(self, step: int) -> PairIndices:
        """The global batch of a 0-based step."""
        return PairIndices(
            *self._direction(_DIRECTION_A, step), *self._direction(_DIRECTION_B, step)
        )

    def _direction(self, direction: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = _images(len(self._labels), self._batch_size, self._seed, direction, step)
        others = self._count[image] - 1
        pick = _rng(self._seed, _POSITIVE, direction, step).integers(np.maximum(others, 1))
        # Skip the image itself; alone with its identity, it is its own positive.
        pick += (pick >= self._rank[image]) & (others > 0)
        positive = self._by_label[self._start[image] + pick]
        return image, positive, self._labels[image]


class ClassificationSampler:
    """Batches of labelled images; the arguments are `PairSampler`'s."""

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int) -> None:
        _check(labels, batch_size)
        self._labels = np.asarray(labels, np.int32)
        self._batch_size = batch_size
        self._seed = seed

    def batch(self, step: int) -> ClassificationIndices:
        """The global batch of a 0-based step."""
        image = _images(len(self._labels), self._batch_size, self._seed, _CLASSIFICATION, step)
        return ClassificationIndices(image, self._labels[image])


def _check(labels: np.ndarray, batch_size: int) -> None:
    if len(labels) == 0 or batch_size < 1:
        raise ValueError(f"cannot draw batches of {batch_size} from {len(labels)} images")


def _rng(seed: int, use: int, direction: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(use, direction, index)))


def _images(count: int, batch_size: int, seed: int, direction: int, step: int) -> np.ndarray:
    """(batch_size,) int64: the stream of a direction at a step."""
    epochs, items = np.divmod(step * batch_size + np.arange(batch_size), count)
    image = np.empty(batch_size, np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        image[here] = _permutation(count, seed, direction, epoch)[items[here]]
    return image


@lru_cache(maxsize=8)
def _permutation(count: int, seed: int, direction: int, epoch: int) -> np.ndarray:
    order = _rng(seed, _ORDER, direction, epoch).permutation(count)
    order.flags.writeable = False
    return order


def choose_images(count: int, rows: int, seed: int) -> np.ndarray:
    """Indices of `rows` of `count` training images, the same for every run with this seed."""
    rng = np.random.default_rng([seed, _CHOICE])
    return rng.choice(count, size=min(rows, count), replace=False)
