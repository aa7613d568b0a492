"""The files of a synthetic data set: complete at every moment, whatever ends the process."""

import csv
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from dgnet_jax.data.generated import LABELS_FILE, MANIFEST_BYTES, MANIFEST_FILE, SETTINGS_FILE
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.atomic import replacing, write_image, write_json
from dgnet_jax.runtime.paths import printable
from dgnet_jax.runtime.reading import read_bytes, read_json

COLUMNS = ("file", "identity", "camera", "label", "appearance_source", "structure_source", "seed")
_THREADS = 8


def csv_line(*values: Any) -> str:
    """A row of the manifest with its line end, as UTF-8 can hold it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return printable(text.getvalue())


class SetFolder:
    """Writes blocks of a set's images, labels and manifest rows.

    The manifest is replaced after a block's images and labels are on the disk. If a block cannot be
    written its images are removed, and the manifest stays as it was.
    """

    def __init__(
        self,
        folder: Path,
        lines: Sequence[str],
        description: dict[str, Any],
        labels: tuple[int, int] | None,
        quality: int,
    ) -> None:
        """Nothing is written yet.

        Args:
            folder: of the set.
            lines: the rows of the whole manifest, as `csv_line` makes them.
            description: goes into `dataset.json`; another start has to have the same.
            labels: rows and columns of the soft labels, or None.
            quality: of the JPEGs.
        """
        self.folder = folder
        self._lines = lines
        self._description = description
        self._labels = LabelFile(folder / LABELS_FILE, *labels) if labels else None
        self._quality = quality

    def prepare(self, block_starts: Sequence[int]) -> int:
        """Makes the folder, or finds how many images an earlier start has finished.

        Args:
            block_starts: the row that each block begins with.

        Returns:
            The row to go on with: one of `block_starts`, or the number of all.

        Raises:
            InputError: the folder holds something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / SETTINGS_FILE
        if settings.exists():
            self._refuse_other(settings)
        elif any(not entry.name.endswith(".tmp") for entry in self.folder.iterdir()):
            raise InputError(
                f"--output={self.folder}: not empty, and no {SETTINGS_FILE} in it: it is not a "
                "generated data set. Choose another folder"
            )
        write_json(settings, self._description, indent=1)
        for name in {"", *(_file(line).partition("/")[0] for line in self._lines)}:
            (self.folder / name).mkdir(exist_ok=True)
            for stray in (self.folder / name).glob(".*.tmp"):  # of a killed process
                stray.unlink()
        done = self._finished()
        if done < len(self._lines):
            done = max((start for start in block_starts if start <= done), default=0)
        if self._labels and not self._labels.create(keep=done > 0):
            done = 0
        self._write_manifest(done)
        if done:
            logging.info(
                "%s: continuing behind image %d of %d", self.folder, done, len(self._lines)
            )
        return done

    def write_block(self, start: int, pictures: np.ndarray, labels: np.ndarray | None) -> None:
        """Writes the images of rows `start`, ... and lists them.

        Args:
            pictures: (rows, height, width, 3) uint8.
            labels: (rows, identities) float32 of the same rows, or None.

        Raises:
            OSError: the disk is full or broken; nothing of the block is left.
        """
        block = self._lines[start : start + len(pictures)]
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                for _ in pool.map(self._save, block, pictures):
                    pass
            if self._labels and labels is not None:
                self._labels.write(start, labels)
            self._write_manifest(start + len(block))
        except BaseException:
            for line in block:
                (self.folder / _file(line)).unlink(missing_ok=True)
            raise

    def count_listed(self) -> int:
        """Images that the manifest on the disk lists."""
        return len(self._listed())

    def _save(self, line: str, picture: np.ndarray) -> None:
        row = dict(zip(COLUMNS, next(csv.reader([line])), strict=True))
        comment = {"generator": self._description["model"]} | {
            name: row[name] for name in ("appearance_source", "structure_source", "seed")
        }
        with replacing(self.folder / row["file"]) as temporary:
            write_image(
                Image.fromarray(picture),
                temporary,
                format="JPEG",
                quality=self._quality,
                comment=json.dumps(comment),
            )

    def _write_manifest(self, rows: int) -> None:
        with replacing(self.folder / MANIFEST_FILE) as temporary:
            temporary.write_text(csv_line(*COLUMNS) + "".join(self._lines[:rows]), encoding="utf-8")

    def _listed(self) -> list[str]:
        try:
            content = read_bytes(self.folder / MANIFEST_FILE, MANIFEST_BYTES)
        except OSError:
            return []
        # Damaged text is unlike the line that it should be.
        return [line.decode("utf-8", errors="replace") for line in io.BytesIO(content)][1:]

    def _finished(self) -> int:
        """How many of the first images are listed and there."""
        listed = self._listed()
        for index, (found, wanted) in enumerate(zip(listed, self._lines, strict=False)):
            file = self.folder / _file(wanted)
            if found != wanted or not file.exists() or not file.stat().st_size:
                return index
        return min(len(listed), len(self._lines))

    def _refuse_other(self, path: Path) -> None:
        present = read_json(path, dict[str, Any], "Choose another --output")
        wanted = json.loads(json.dumps(self._description))
        differences = [
            f"  {name}: {_short(present.get(name))} there, {_short(wanted.get(name))} now"
            for name in {**present, **wanted}
            if present.get(name) != wanted.get(name)
        ]
        if differences:
            raise InputError(
                f"{path.parent} holds a data set of other settings:\n"
                + "\n".join(differences)
                + "\nUse these again to continue it (--step chooses the checkpoint), or choose "
                "another --output."
            )


def _file(line: str) -> str:
    """The image of a manifest row."""
    return line.partition(",")[0]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 100 else f"{text[:100]}..."


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
