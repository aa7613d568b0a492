"""Reading a generated data set, and training on it, alone or beside the real one.

`generate.dataset` writes it.
"""

import csv
import json
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from dgnet_jax.data.cache import ImageCache, decode
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.errors import InputError

# The files of a generated set: a row for each image; its settings; soft labels.
MANIFEST_FILE, SETTINGS_FILE = "manifest.csv", "dataset.json"
LABELS_FILE = "soft_labels.npy"

# How a generated image is labelled: the teacher's softmax; uniformly over all identities (LSRO,
# Zheng et al., ICCV 2017); as the person who gave the appearance.
LABELS = ("soft", "lsro", "identity")


class GeneratedSet(NamedTuple):
    """What a generated set's manifest says of its training images.

    split: the images. labels: (n,) int32 of the appearances. identities: the person of each label.
    """

    split: Split
    labels: np.ndarray
    identities: tuple[int, ...]


def read_generated(folder: str | Path) -> GeneratedSet:
    """Lists the training images of a generated set, which may be unfinished.

    Raises:
        InputError: it is none, or its manifest lists no training image.
    """
    folder = Path(folder).expanduser()
    flag = f"--config.data.generated={folder}"
    try:
        identities = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))["identities"]
        with (folder / MANIFEST_FILE).open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["label"]]
        numbers = {
            name: np.array([int(row[name]) for row in rows], np.int32)
            for name in ("label", "identity", "camera")
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{flag}: no generated data set there ({type(error).__name__}: {error}); "
            "--mode=generate --task=dataset makes one"
        ) from error
    if not rows:
        raise InputError(f"{flag}: its manifest lists no training image yet")
    split = Split(
        "train",
        tuple(row["file"] for row in rows),
        numbers["identity"],
        numbers["camera"],
        FolderStorage(folder),
    )
    return GeneratedSet(split, numbers["label"], tuple(identities))


class _Decoded(NamedTuple):
    """One array, since to put two together would need the memory twice, and its caches in order."""

    images: np.ndarray
    caches: tuple[ImageCache, ...]


class MixedData(ReidData):
    """Generated training images, after the real ones or without them; real test images."""

    def __init__(
        self,
        dataset: ReidDataset,
        height: int,
        width: int,
        folder: str | Path,
        labels: str = "soft",
        real: bool = True,
        cameras: bool = True,
    ) -> None:
        """`labels`: one of `LABELS`; `real`: whether the real images are trained on, too.

        `dataset`, `height`, `width` and `cameras` are `ReidData`'s.

        Raises:
            InputError: no such set or labels, or it shows other people than the real data.
        """
        super().__init__(dataset, height, width, cameras)
        if labels not in LABELS:
            raise InputError(
                f"--config.data.generated_labels: {labels!r} is none of {', '.join(LABELS)}"
            )
        self._generated = read_generated(folder)
        people = dataset.train_identities.tolist()
        if real and people != list(self._generated.identities):
            raise InputError(
                f"--config.data.generated={folder}: made from {len(self._generated.identities)} "
                f"people that are not the {len(people)} of the training data; "
                "--config.data.real=False trains on it alone"
            )
        self._labels, self._real = labels, real
        if labels == "soft":
            split = self._generated.split
            self._soft = read_soft_labels(folder, len(split), self.num_identities)

    @property
    def num_identities(self) -> int:
        return len(self._generated.identities)

    @cached_property
    def _decoded(self) -> _Decoded:
        splits = [*([self.dataset.train] if self._real else []), self._generated.split]
        memory = np.empty((sum(len(split) for split in splits), *self._size, 3), np.uint8)
        caches, end = [], 0
        for split in splits:
            caches.append(decode(split, *self._size, out=memory[end : end + len(split)]))
            end += len(caches[-1])  # broken images leave no gap
        return _Decoded(memory[:end], tuple(caches))

    @cached_property
    def _train_cache(self) -> ImageCache:
        return self._decoded.caches[0] if self._real else super()._train_cache

    @property
    def _kept(self) -> np.ndarray:
        """Each generated image's index in its split."""
        return self._decoded.caches[-1].kept

    @property
    def num_real(self) -> int:
        """Real training images, which come first."""
        return len(self._train_cache) if self._real else 0

    @property
    def train_images(self) -> np.ndarray:
        return self._decoded.images

    @cached_property
    def train_labels(self) -> np.ndarray:
        labels = self._generated.labels[self._kept]
        return np.concatenate([super().train_labels, labels]) if self._real else labels

    def train_targets(self, rows: np.ndarray) -> np.ndarray:
        """The distributions to learn for training images: (rows, identities) float32."""
        targets = np.zeros((len(rows), self.num_identities), np.float32)
        targets[np.arange(len(rows)), self.train_labels[rows]] = 1
        generated = rows >= self.num_real
        if self._labels == "lsro":
            targets[generated] = 1 / self.num_identities
        elif self._labels == "soft":
            targets[generated] = self._soft[self._kept[rows[generated] - self.num_real]]
        return targets


def open_mixed_data(config: ml_collections.ConfigDict, data: ReidData) -> MixedData:
    """The data of `config.data` with the set of `config.data.generated`."""
    settings = config.data
    return MixedData(
        data.dataset,
        settings.cache_height,
        settings.cache_width,
        settings.generated,
        settings.generated_labels,
        settings.real,
        settings.cameras,
    )


def read_soft_labels(folder: str | Path, rows: int, identities: int) -> np.ndarray:
    """The first `rows` soft labels of a generated set: (rows, identities) float32, on the disk.

    Raises:
        InputError: there are none, or fewer, or of another number of identities.
    """
    path = Path(folder) / LABELS_FILE
    try:
        labels = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no soft labels ({error}). Make the set with a teacher, or train on it with "
            "other labels"
        ) from error
    if labels.ndim != 2 or len(labels) < rows or labels.shape[1] != identities:
        raise InputError(
            f"{path}: soft labels of shape {labels.shape} for {rows} images of {identities} "
            "identities. Make the set again, or train on it with other labels"
        )
    return labels[:rows]
