"""Data sets that `python -m dgnet_jax.data.prepare` has stored as TFDS records.

A folder on disk, or gs://BUCKET/... (array_record reads buckets of Google Cloud Storage itself; the
files beside the records need `pip install "etils[epath-gcs]"`).
"""

import os
from typing import Any

import numpy as np
from etils import epath

from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.errors import InputError

VERSION = "1.0.0"
"""Of the records' form, and the name of the folder with them."""

LISTING = "splits"
"""Key of metadata.json: files, identities and cameras of each split, in the records' order."""

_READ_ERRORS = (RuntimeError, ValueError, IndexError, KeyError)
"""What array_record and TFDS raise at a record that is damaged or missing."""


def find_prepared(name: str, root: str | os.PathLike[str]) -> epath.Path | None:
    """The folder with the records of data set `name` at or below `root`, or None.

    Args:
        name: the data set's.
        root: that folder, the data set's folder around it, or the TFDS data_dir.

    Raises:
        InputError: `root` is in a bucket and nothing prepared is there, or it cannot be read.
    """
    scheme, remote, _ = os.fspath(root).partition("://")
    if remote and scheme != "gs":
        raise InputError(
            f"--config.data.root={os.fspath(root)}: of buckets only those of gs:// can be read; "
            "copy or mount this one"
        )
    path = epath.Path(root).expanduser()
    try:
        for place in (path, path / VERSION, path / name / VERSION):
            if (place / "dataset_info.json").exists():
                return place
    except ImportError as error:
        raise InputError(
            f"--config.data.root={os.fspath(root)}: reading a bucket needs another package: "
            f'pip install "etils[epath-gcs]" ({error})'
        ) from error
    except Exception as error:  # gcsfs, its HTTP client and Google's login each have their own kind
        if not remote:
            raise
        raise InputError(
            f"--config.data.root={os.fspath(root)}: the bucket cannot be read ({error}). Check its "
            "name, and sign in: gcloud auth application-default login"
        ) from error
    if remote:
        raise InputError(
            f"--config.data.root={os.fspath(root)}: no prepared data set {name!r} there. A bucket "
            f"holds data sets prepared by `python -m dgnet_jax.data.prepare {name} ROOT DATA_DIR` "
            f"and copied: no dataset_info.json in it, in {VERSION}/ or in {name}/{VERSION}/"
        )
    return None


def read_prepared(name: str, folder: epath.Path) -> ReidDataset:
    """Opens a prepared data set; images are read when they are asked for.

    Args:
        name: the data set's.
        folder: from `find_prepared`.

    Raises:
        InputError: it is another data set or incomplete.
    """
    # It takes a second, which those who read folders need not spend.
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        listing = builder.info.metadata[LISTING]
        found = builder.info.name
    except (*_READ_ERRORS, OSError, TypeError) as error:
        raise InputError(
            f"{folder}: not a data set prepared by dgnet_jax.data.prepare, or not all of it "
            f"({error}); prepare it again"
        ) from error
    if found != name:
        raise InputError(
            f"{folder}: holds the prepared data set {found!r}, not {name!r}; "
            f"--config.data.name={found} reads it"
        )
    splits = {}
    for split, lists in listing.items():
        try:
            source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        except (*_READ_ERRORS, OSError) as error:
            raise InputError(f"{folder}: split {split} cannot be opened ({error})") from error
        if len(source) != len(lists["files"]):
            raise InputError(
                f"{folder}: {len(source)} records of split {split}, but metadata.json lists "
                f"{len(lists['files'])}; prepare it again"
            )
        files = tuple(lists["files"])
        splits[split] = Split(
            split,
            files,
            np.array(lists["identities"], np.int32),
            np.array(lists["cameras"], np.int32),
            RecordFiles(f"{folder}:{split}", source, files),
        )
    return ReidDataset(name, **splits)


class RecordFiles:
    """The files of a split inside its records."""

    def __init__(self, location: str, source: Any, files: tuple[str, ...]) -> None:
        self._location = location
        self._source = source
        self._index = {file: i for i, file in enumerate(files)}

    def path(self, file: str) -> str:
        return f"{self._location}/{file}"

    def read_bytes(self, file: str) -> bytes:
        try:
            record = self._source[self._index[file]]
        except _READ_ERRORS as error:
            raise OSError(f"the record cannot be read: {error}") from error
        if record["file"].decode() != file:
            raise OSError(f"the record is another file's, {record['file'].decode()}")
        return record["image"]
