"""Data sets that `python -m dgnet_jax.data.prepare` has stored as TFDS records.

A folder on disk, or gs://BUCKET/... (array_record reads buckets of Google Cloud Storage itself; the
files beside the records need `pip install "etils[epath-gcs]"`).
"""

import os
from typing import Annotated, Any

import numpy as np
import pydantic
from etils import epath
from typing_extensions import TypedDict

from dgnet_jax.data.splits import DISTRACTOR, JUNK, ReidDataset, Split
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import JSON_BYTES, check_regular, check_shape

VERSION = "1.0.0"
"""Of the records' form, and the name of the folder with them."""

LISTING = "splits"
"""Key of metadata.json: files, identities and cameras of each split, in the records' order."""

_METADATA, _RECORDS = "metadata.json", ".array_record"
_NEEDED = ("train", "query", "gallery")
_KNOWN = (*_NEEDED, "multi_query")
# Far above any data set; what counts is that the records are files.
_RECORD_BYTES = 2**50

_Label = Annotated[int, pydantic.Field(strict=True, ge=JUNK, le=2**31 - 1)]


class _Lists(TypedDict):
    """Of one split in metadata.json."""

    files: list[str]
    identities: list[_Label]
    cameras: list[_Label]


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
    path = epath.Path(root if remote else user_path(root))
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
        InputError: it is another data set, incomplete, or its lists contradict each other.
    """
    # It takes a second, which those who read folders need not spend.
    import tensorflow_datasets as tfds

    try:
        _check_files(folder)
        builder = tfds.builder_from_directory(folder)
        listing = check_shape(builder.info.metadata[LISTING], dict[str, _Lists])
        found = builder.info.name
    except Exception as error:  # TFDS, protobuf, json and the file system each have their own kind
        raise InputError(
            f"{folder}: not a data set prepared by dgnet_jax.data.prepare, or not all of it "
            f"({_reason(error)}); prepare it again"
        ) from error
    if found != name:
        raise InputError(
            f"{folder}: holds the prepared data set {found!r}, not {name!r}; "
            f"--config.data.name={found} reads it"
        )
    missing = [split for split in _NEEDED if split not in listing]
    unknown = [split for split in listing if split not in _KNOWN]
    if missing or unknown:
        raise InputError(
            f"{folder / _METADATA}: lists the splits {', '.join(listing) or 'of nothing'}, not "
            f"{', '.join(_NEEDED)}; prepare it again"
        )
    splits = {}
    for split, lists in listing.items():
        _check_lists(folder, split, lists)
        try:
            source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
            records = len(source)
        except Exception as error:  # see above
            raise InputError(
                f"{folder}: split {split} cannot be opened ({_reason(error)}); prepare it again"
            ) from error
        if records != len(lists["files"]):
            raise InputError(
                f"{folder}: {records} records of split {split}, but metadata.json lists "
                f"{len(lists['files'])}; prepare it again"
            )
        splits[split] = Split(
            split,
            tuple(lists["files"]),
            np.array(lists["identities"], np.int32),
            np.array(lists["cameras"], np.int32),
            RecordFiles(f"{folder}:{split}", source, lists),
        )
    return ReidDataset(name, **splits)


def _check_files(folder: epath.Path) -> None:
    """Raises OSError if one of a local folder's files is none, which would be waited for."""
    if "://" in os.fspath(folder):
        return
    for entry in os.scandir(folder):
        if entry.name.endswith(".json"):
            check_regular(entry.path, JSON_BYTES)
        elif _RECORDS in entry.name:
            check_regular(entry.path, _RECORD_BYTES)


def _check_lists(folder: epath.Path, split: str, lists: _Lists) -> None:
    """Raises InputError if the lists of a split do not fit each other, or its people are none."""
    where = f"{folder / _METADATA}: split {split}"
    counts = len(lists["files"]), len(lists["identities"]), len(lists["cameras"])
    if len(set(counts)) > 1 or not counts[0]:
        raise InputError(
            "{} has {} files, {} identities and {} cameras, of which it needs equally many; "
            "prepare it again".format(where, *counts)
        )
    nobody = [identity for identity in lists["identities"] if identity in (JUNK, DISTRACTOR)]
    if nobody and split != "gallery":
        raise InputError(
            f"{where} has {len(nobody)} images of identity {nobody[0]}, which only a gallery can "
            "have; prepare it again"
        )


def _reason(error: Exception) -> str:
    text = str(error) if not isinstance(error, KeyError) else f"no {error}"
    return " ".join(text.split())[:300] or type(error).__name__


class RecordFiles:
    """The files of a split inside its records."""

    def __init__(self, location: str, source: Any, lists: _Lists) -> None:
        """`source`: a sequence of records; `lists`: what is in them, in their order."""
        self._location = location
        self._source = source
        labels = zip(lists["identities"], lists["cameras"], strict=True)
        self._records = {
            file: (i, *pair)
            for i, (file, pair) in enumerate(zip(lists["files"], labels, strict=True))
        }

    def path(self, file: str) -> str:
        return f"{self._location}/{file}"

    def read_bytes(self, file: str) -> bytes:
        index, *labels = self._records[file]
        try:
            record = self._source[index]
            found = record["file"].decode(), int(record["identity"]), int(record["camera"])
            image = record["image"]
        except Exception as error:  # array_record and TFDS have many kinds for a damaged record
            raise OSError(f"the record cannot be read: {_reason(error)}") from error
        if found[0] != file:
            raise OSError(f"the record is another file's, {found[0]}")
        if list(found[1:]) != labels:
            raise OSError(
                f"the record is of identity {found[1]} and camera {found[2]}, but metadata.json "
                f"says {labels[0]} and {labels[1]}"
            )
        if not isinstance(image, bytes):
            raise OSError(f"the record holds no encoded image, but {type(image).__name__}")
        return image
