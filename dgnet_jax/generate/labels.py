"""The soft labels of a synthetic data set: one .npy, written a block of rows at a time."""

import io
import os
from pathlib import Path

import numpy as np

from dgnet_jax.errors import InputError

LABELS_FILE = "soft_labels.npy"


class LabelFile:
    """A (rows, identities) float32 .npy whose rows come in parts; rows to come are zeros.

    Written with ordinary writes: on a full disk they fail with an error, where those to a memory
    map would end the process.
    """

    def __init__(self, path: Path, rows: int, identities: int) -> None:
        self._path = path
        self._identities = identities
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": (rows, identities)}
        np.lib.format.write_array_header_1_0(header, description)
        self._header = header.getvalue()
        self._size = len(self._header) + 4 * rows * identities

    def create(self, keep: bool) -> bool:
        """Makes the file, unless it is there and to be kept. Returns whether it was."""
        if keep and self._path.exists() and self._path.stat().st_size == self._size:
            return True
        with self._path.open("wb") as file:
            file.write(self._header)
            file.truncate(self._size)
        return False

    def write(self, start: int, labels: np.ndarray) -> None:
        """Puts rows at `start`, on the disk when this returns."""
        data = np.ascontiguousarray(labels, "<f4").tobytes()
        with self._path.open("r+b") as file:
            file.seek(len(self._header) + 4 * start * self._identities)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


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
