"""A data set in memory, and the batches of each step prepared one ahead."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, Self

import numpy as np

from dgnet_jax.data.cache import ImageCache, decode
from dgnet_jax.data.sampling import ClassificationIndices, PairIndices
from dgnet_jax.data.splits import ReidDataset, Split


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """Decoded images of a split and what is known of each.

    Attributes:
        images: (n, cache height, cache width, 3) uint8.
        identities: (n,) int32, as in the file names.
        cameras: (n,) int32.
        paths: of the n files.
        files: their names inside the data set.
        cameras_known: False where each image counts as one of a camera of its own.
    """

    images: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    paths: tuple[str, ...]
    files: tuple[str, ...] = ()
    cameras_known: bool = True


class ReidData:
    """The splits of a data set, each decoded when first asked for."""

    def __init__(self, dataset: ReidDataset, height: int, width: int, cameras: bool = True) -> None:
        """Nothing is read yet.

        Args:
            dataset: the files.
            height, width: pixels of the images in memory.
            cameras: False gives each image a camera of its own, whatever its file's is, and equal
                images the same one, so that of a query's matches ranking removes its own image
                alone. There are no multi-query images then, which are those of a query's camera.
        """
        self.dataset = dataset if cameras else replace(dataset, multi_query=None)
        self._size = height, width
        self._numbers: dict[bytes, int] | None = None if cameras else {}

    @property
    def num_identities(self) -> int:
        """Training identities, before any broken image is left out."""
        return self.dataset.num_train_identities

    @cached_property
    def _train_cache(self) -> ImageCache:
        return decode(self.dataset.train, *self._size)

    @property
    def train_images(self) -> np.ndarray:
        """(n, height, width, 3) uint8."""
        return self._train_cache.images

    @cached_property
    def train(self) -> CachedSplit:
        """The training images with the identities of their file names."""
        return self._described(self.dataset.train, self._train_cache)

    @property
    def train_labels(self) -> np.ndarray:
        """(n,) int32 labels 0..K-1 of `train_images`."""
        return self.dataset.train_labels[self._train_cache.kept]

    @cached_property
    def query(self) -> CachedSplit:
        """The query images."""
        return self._cached(self.dataset.query)

    @cached_property
    def gallery(self) -> CachedSplit:
        """The gallery images, junk and distractors among them."""
        return self._cached(self.dataset.gallery)

    @cached_property
    def multi_query(self) -> CachedSplit | None:
        """More images of the queries' people by the same cameras, if the data set has them."""
        split = self.dataset.multi_query
        return None if split is None else self._cached(split)

    def _cached(self, split: Split) -> CachedSplit:
        return self._described(split, decode(split, *self._size))

    def _described(self, split: Split, cache: ImageCache) -> CachedSplit:
        kept = split.subset(cache.kept)
        cameras = kept.cameras if self._numbers is None else self._numbered(cache.images)
        known = self._numbers is None
        return CachedSplit(
            cache.images, kept.identities, cameras, kept.paths, kept.files, cameras_known=known
        )

    def _numbered(self, images: np.ndarray) -> np.ndarray:
        """(n,) int32: a number for each image, from 1, the same for equal ones of all splits."""
        assert self._numbers is not None
        digests = [blake2b(image, digest_size=16).digest() for image in images]
        numbers = [self._numbers.setdefault(key, len(self._numbers) + 1) for key in digests]
        return np.array(numbers, np.int32)


def gather_pairs(images: np.ndarray, indices: PairIndices) -> dict[str, np.ndarray]:
    """Host arrays of a DG-Net step: images (batch, 4, h, w, 3) uint8, labels (batch, 2)."""
    chosen = np.stack(
        [indices.image_a, indices.image_b, indices.positive_a, indices.positive_b], axis=1
    )
    return {
        "images": images[chosen],
        "labels": np.stack([indices.label_a, indices.label_b], axis=1),
    }


def gather_labelled(images: np.ndarray, indices: ClassificationIndices) -> dict[str, np.ndarray]:
    """Host arrays of a teacher step: images (batch, h, w, 3) uint8, labels (batch,)."""
    return {"images": images[indices.image], "labels": indices.label}


class Prefetch:
    """Prepares batches on a thread, one step ahead; a context manager."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        """`make(step)` returns the batch of a 0-based step, on the device."""
        self._make = make
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Any]] | None = None

    def batch(self, step: int) -> Any:
        """The batch of `step`; starts on the next one."""
        if self._next is not None and self._next[0] == step:
            future = self._next[1]
        else:
            future = self._pool.submit(self._make, step)
        result = future.result()
        self._next = step + 1, self._pool.submit(self._make, step + 1)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
