"""A re-ID data set: three lists of files with an identity and a camera each."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dgnet_jax.data.storage import Files

# Identities of no person: images that do not count, and negatives of a gallery.
JUNK, DISTRACTOR = -1, 0


@dataclass(frozen=True, eq=False)
class Split:
    """One list of images.

    Attributes:
        name: train, query, gallery or multi_query.
        files: names inside the storage.
        identities: (n,) int32, as the data set numbers people; -1 is junk and, in a gallery, 0 a
            distractor.
        cameras: (n,) int32, as the data set numbers them.
        storage: the folder, zip or prepared records behind the files.
    """

    name: str
    files: tuple[str, ...]
    identities: np.ndarray
    cameras: np.ndarray
    storage: Files

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The files' full paths, for messages and figures."""
        return tuple(self.storage.path(file) for file in self.files)

    def read_bytes(self, index: int) -> bytes:
        """The encoded image; safe to call from several threads.

        Raises:
            OSError: the file cannot be read.
        """
        return self.storage.read_bytes(self.files[index])

    def subset(self, indices: np.ndarray) -> "Split":
        """The images at `indices`, in that order."""
        files = tuple(self.files[int(i)] for i in indices)
        return Split(
            self.name, files, self.identities[indices], self.cameras[indices], self.storage
        )


@dataclass(frozen=True, eq=False)
class ReidDataset:
    """Training images, and the queries and gallery of other people that measure the result.

    `multi_query`, where a data set has it: more images of the queries' people by the same cameras.
    """

    name: str
    train: Split
    query: Split
    gallery: Split
    multi_query: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name; those that the data set has not are left out."""
        every = (self.train, self.query, self.gallery, self.multi_query)
        return {split.name: split for split in every if split is not None}

    @cached_property
    def train_identities(self) -> np.ndarray:
        """(K,) int32: the identity that each label stands for."""
        return np.unique(self.train.identities)

    @cached_property
    def train_labels(self) -> np.ndarray:
        """(n,) int32 in 0..K-1, contiguous, in the order of the identities."""
        return np.searchsorted(self.train_identities, self.train.identities).astype(np.int32)

    @property
    def num_train_identities(self) -> int:
        return len(self.train_identities)
