"""One's own data: a folder in Market-1501's form, or a table.

Both need an identity and a camera for every image. Cameras cannot be left out: ranking removes the
gallery images of the query's person that its own camera took, since finding those is too easy.
Whoever has images of unknown cameras may give every image a camera of its own, so that nothing is
removed, and should say so beside the result.
"""

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from dgnet_jax.data.readers.folders import FolderNaming
from dgnet_jax.data.splits import DISTRACTOR, JUNK, ReidDataset, Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.errors import InputError

COLUMNS = ("path", "identity", "camera", "split")
SPLITS = ("train", "query", "gallery")

_FOLDER = """\
data.name=folder reads your own images. --config.data.root names the folder that holds the three
below, its parent, or a .zip of it. File names start with the identity and the camera, numbers of
any length: 17_c12.png, 0017_c012_some-more.jpg. In the gallery -1 is junk, which counts as neither
right nor wrong, and 0 is a distractor, nobody that is looked for; number people from 1.

    FOLDER/
      bounding_box_train/  images to train on
      query/               images of other people, to look for in
      bounding_box_test/   the gallery"""

_CSV = """\
data.name=csv reads your own images as a table lists them. --config.data.root names the .csv:

    path,identity,camera,split
    images/a.jpg,anna,hall,train
    images/b.jpg,ben,door 2,query
    images/c.jpg,ben,hall,gallery

Paths are relative to the table's folder. Identities and cameras are any words. The split is train,
query or gallery. In the gallery the identity -1 is junk, which counts as neither right nor wrong,
and 0 a distractor, nobody that is looked for."""

FOLDER = FolderNaming(
    name="folder",
    title="data set in Market-1501's form",
    folder_name="",
    pattern=re.compile(
        r"(-1|\d{1,9})_c(\d{1,9})(?!\d).*\.(?:jpe?g|png|bmp|webp|tiff?)", re.ASCII | re.IGNORECASE
    ),
    example="0017_c12_001.jpg",
    what_it_is=_FOLDER,
    nobody=True,
)


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    identity: str
    camera: str
    split: str


def read_csv(root: str | os.PathLike[str]) -> ReidDataset:
    """Lists the images of a table: comma-separated, UTF-8, with a header; further columns are free.

    Identities that are all whole numbers from 1 stay what they are; otherwise people are numbered
    from 1 in the order of their sorted names. Cameras likewise. In the gallery -1 is junk; 0 (or
    0000) is a distractor, unless training images or queries have it too: then it is a person.

    Args:
        root: the table.

    Raises:
        InputError: no such file, a column is missing, or a row is wrong; names the line.
    """
    if not os.fspath(root):
        raise InputError(f"--config.data.root is not set.\n\n{_CSV}")
    path = Path(root).expanduser()
    rows = _read_rows(path)
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise InputError(f"{path}: no row has the split {split}; all of {SPLITS} are needed.")
    people_of_zero = {row.identity for row in rows if row.split != "gallery"}

    def is_nobody(row: _Row) -> bool:
        zero = set(row.identity) == {"0"} and row.identity not in people_of_zero
        return row.identity == str(JUNK) or zero

    _warn_of_trained_queries(path, rows)
    people = _numbers([row.identity for row in rows if not is_nobody(row)])
    cameras = _numbers([row.camera for row in rows])
    storage = FolderStorage(path.parent)
    splits = {}
    for split in SPLITS:
        chosen = [row for row in rows if row.split == split]
        identities = [
            people[row.identity]
            if not is_nobody(row)
            else (JUNK if row.identity == str(JUNK) else DISTRACTOR)
            for row in chosen
        ]
        splits[split] = Split(
            split,
            tuple(row.path for row in chosen),
            np.array(identities, np.int32),
            np.array([cameras[row.camera] for row in chosen], np.int32),
            storage,
        )
    return ReidDataset("csv", **splits)


def _warn_of_trained_queries(path: Path, rows: Sequence[_Row]) -> None:
    queries = {row.identity for row in rows if row.split == "query"}
    both = sorted(queries & {row.identity for row in rows if row.split == "train"})
    if both:
        logging.warning(
            "%s: %d of the %d people of the queries are trained on too (%s): results will look "
            "better than they are for people never seen",
            path,
            len(both),
            len(queries),
            ", ".join(both[:3]) + (", ..." if len(both) > 3 else ""),
        )


def _read_rows(path: Path) -> list[_Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"--config.data.root={path}: cannot be read ({error.strerror}).\n\n{_CSV}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8; save the table as UTF-8 text") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[_Row] = []
    seen: dict[tuple[str, str], int] = {}
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise InputError(
                f"{path}:1: no column {', '.join(missing)} in the header "
                f"({', '.join(header) or 'empty'}).\n\n{_CSV}"
            )
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            row = _parse(path, reader.line_num, header, fields)
            first = seen.setdefault((row.split, row.path), row.line)
            if first != row.line:
                raise InputError(
                    f"{path}:{row.line}: {row.path} is in the split {row.split} already, in line "
                    f"{first}; remove one of the two"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a row of a table ({error})") from error
    return rows


def _parse(path: Path, line: int, header: Sequence[str], fields: Sequence[str]) -> _Row:
    where = f"{path}:{line}"
    if len(fields) != len(header):
        raise InputError(f"{where}: {len(fields)} fields, but the header has {len(header)}")
    values = dict(zip(header, (field.strip() for field in fields), strict=True))
    for name in COLUMNS:
        if not values[name]:
            raise InputError(f"{where}: the {name} is empty; every image needs one")
    row = _Row(line, values["path"], values["identity"], values["camera"], values["split"].lower())
    if row.split not in SPLITS:
        raise InputError(f"{where}: the split is {row.split!r}; it must be one of {SPLITS}")
    if row.identity == str(JUNK) and row.split != "gallery":
        raise InputError(f"{where}: identity -1 is junk, which only a gallery can have")
    if not os.path.isfile(path.parent / row.path):
        raise InputError(f"{where}: no file {path.parent / row.path}")
    return row


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """A number from 1 for each name: its own, if all are such and no two would become one."""
    different = sorted(set(names))
    if all(re.fullmatch(r"0*[1-9]\d{0,8}", name, re.ASCII) for name in different):
        own = {name: int(name) for name in different}
        if len(set(own.values())) == len(own):
            return own
    return {name: number for number, name in enumerate(different, 1)}
