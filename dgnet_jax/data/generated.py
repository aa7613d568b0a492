"""Reading a generated data set, and training on it, alone or beside the real one.

`generate.dataset` writes it.
"""

import csv
import io
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import ml_collections
import numpy as np
import pydantic
from typing_extensions import TypedDict

from dgnet_jax.data.cache import ImageCache, decode
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import (
    TABLE_BYTES,
    WEIGHTS_BYTES,
    Count,
    check_regular,
    read_bytes,
    read_json,
)

# The files of a generated set: a row for each image; its settings; soft labels.
MANIFEST_FILE, SETTINGS_FILE = "manifest.csv", "dataset.json"
LABELS_FILE = "soft_labels.npy"
# Sets of tens of millions of images.
MANIFEST_BYTES, LABELS_BYTES = 16 * TABLE_BYTES, 64 * WEIGHTS_BYTES
_NUMBERS = ("label", "identity", "camera")
_REMEDY = "Restore the file, or make the set again: --mode=generate --task=dataset"
# Far above the rounding of a float32 softmax.
_SUM_TOLERANCE = 1e-3

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


class _Settings(TypedDict):
    """What of dataset.json is read back: the person of each label."""

    identities: Annotated[list[Count], pydantic.Field(min_length=1)]


class _Row(NamedTuple):
    """A training image of the manifest, and its line."""

    line: int
    file: str
    label: int
    identity: int
    camera: int


def read_generated(folder: str | Path) -> GeneratedSet:
    """Lists the training images of a generated set, which may be unfinished.

    Raises:
        InputError: it is none, its manifest lists no training image, or a file of it is damaged;
            names the file and line.
    """
    folder = user_path(folder)
    flag = f"--config.data.generated={folder}"
    try:
        text = read_bytes(folder / MANIFEST_FILE, MANIFEST_BYTES).decode("utf-8")
        identities = read_json(folder / SETTINGS_FILE, _Settings, _REMEDY)["identities"]
    except UnicodeDecodeError as error:
        raise InputError(f"{folder / MANIFEST_FILE}: not UTF-8 ({error}). {_REMEDY}") from error
    except OSError as error:
        raise InputError(
            f"{flag}: no generated data set there ({type(error).__name__}: {error}); "
            "--mode=generate --task=dataset makes one"
        ) from error
    if sorted(set(identities)) != identities:
        raise InputError(
            f"{folder / SETTINGS_FILE}: identities: not each once and rising. {_REMEDY}"
        )
    rows = list(_rows(folder / MANIFEST_FILE, text, identities))
    if not rows:
        raise InputError(f"{flag}: its manifest lists no training image yet")
    split = Split(
        "train",
        tuple(row.file for row in rows),
        np.array([row.identity for row in rows], np.int32),
        np.array([row.camera for row in rows], np.int32),
        FolderStorage(folder),
    )
    labels = np.array([row.label for row in rows], np.int32)
    return GeneratedSet(split, labels, tuple(identities))


def _rows(path: Path, text: str, identities: list[int]) -> Iterator[_Row]:
    """The training images of a manifest; raises InputError for a row that is damaged."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if not {"file", *_NUMBERS} <= set(header):
            raise InputError(
                f"{path}:1: no column for each of file, {', '.join(_NUMBERS)} in the header "
                f"({', '.join(header)[:200] or 'empty'}). {_REMEDY}"
            )
        for fields in reader:
            where = f"{path}:{reader.line_num}"
            if len(fields) != len(header):
                raise InputError(
                    f"{where}: {len(fields)} fields, but the header has {len(header)}. {_REMEDY}"
                )
            values = dict(zip(header, fields, strict=True))
            if not values["label"]:  # of test people
                continue
            try:
                label, identity, camera = (_whole(values[name]) for name in _NUMBERS)
            except ValueError as error:
                raise InputError(f"{where}: {error}. {_REMEDY}") from error
            if label >= len(identities) or identities[label] != identity:
                raise InputError(
                    f"{where}: label {label} and identity {identity} do not belong together in "
                    f"{SETTINGS_FILE}. {_REMEDY}"
                )
            yield _Row(reader.line_num, values["file"], label, identity, camera)
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num}: not a row of a table ({error}). {_REMEDY}"
        ) from error


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) >= 2**31:
        raise ValueError(f"found {text[:60]!r} for a whole number from 0 to {2**31 - 1:,}")
    return int(text)


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
        InputError: there are none, or fewer, of another number of identities, or no distributions.
    """
    path = user_path(folder) / LABELS_FILE
    remedy = "Make the set again, or train on it with other labels"
    try:
        check_regular(path, LABELS_BYTES)
        labels = np.load(path, mmap_mode="r")
    except Exception as error:  # NumPy has many kinds for a damaged header
        raise InputError(
            f"{path}: no soft labels ({error}). Make the set with a teacher, or train on it with "
            "other labels"
        ) from error
    if not isinstance(labels, np.ndarray) or labels.dtype not in (np.float32, np.float64):
        found = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
        raise InputError(f"{path}: no soft labels, but {found}. {remedy}")
    if labels.ndim != 2 or len(labels) < rows or labels.shape[1] != identities:
        raise InputError(
            f"{path}: soft labels of shape {labels.shape} for {rows} images of {identities} "
            f"identities. {remedy}"
        )
    labels = labels[:rows]
    # Comparisons with NaN are false. Rows that were never written are zeros.
    wrong = ~((labels.min(1) >= 0) & (np.abs(labels.sum(1) - 1) < _SUM_TOLERANCE))
    if wrong.any():
        raise InputError(
            f"{path}: {int(wrong.sum())} of {rows} rows are no distributions (0 and above, sum 1), "
            f"the first is row {int(wrong.argmax())}. {remedy}"
        )
    return labels
