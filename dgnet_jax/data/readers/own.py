"""One's own data: a folder in Market-1501's form, or a table.

Both need an identity and a camera for every image: ranking removes the gallery images of the
query's person that its own camera took, since finding those is too easy. With `config.data.cameras`
off they may all have the same one: each image then counts as one by a camera of its own.
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from dgnet_jax.data.readers.folders import FolderNaming
from dgnet_jax.data.readers.spelling import lookalike, spelled
from dgnet_jax.data.splits import DISTRACTOR, JUNK, ReidDataset, Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import TABLE_BYTES, read_bytes

COLUMNS = ("path", "identity", "camera", "split")
SPLITS = ("train", "query", "gallery")
# Programs whose numbers have a decimal comma separate fields by semicolons.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

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

Paths are relative to the table's folder. Identities and cameras are whole numbers or any words. The
split is train, query or gallery. In the gallery the identity -1 is junk, which counts as neither
right nor wrong, and 0 a distractor, nobody that is looked for. Semicolons or tabs may stand in the
place of the commas."""

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
    """A row. Identity and camera are in their one spelling; image: the file, for comparison."""

    line: int
    path: str
    identity: str
    camera: str
    split: str
    image: str


def read_csv(root: str | os.PathLike[str]) -> ReidDataset:
    """Lists the images of a table: UTF-8, with a header; further columns are free.

    Fields are separated by commas, semicolons or tabs. Labels are compared as `spelling.spelled`
    writes them. Identities that are all whole numbers from 1 stay what they are; otherwise people
    are numbered from 1 in the order of their sorted names. Cameras likewise. In the gallery -1 is
    junk; 0 is a distractor, unless training images or queries have it too: then it is a person.

    Args:
        root: the table.

    Raises:
        InputError: no such file, a column is missing, or a row is wrong or contradicts another;
            names the line.
    """
    if not os.fspath(root):
        raise InputError(f"--config.data.root is not set.\n\n{_CSV}")
    path = user_path(root)
    rows = _read_rows(path)
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise InputError(f"{path}: no row has the split {split}; all of {SPLITS} are needed.")
    # Nobody is compared too: what only looks like -1 or 0 would be a person.
    _check_spellings(path, "identity", [(row.identity, row.line) for row in rows], ("-1", "0"))
    _check_spellings(path, "camera", [(row.camera, row.line) for row in rows])
    _check_images(path, rows)
    _warn_of_trained_queries(path, rows)
    people_of_zero = any(row.identity == "0" for row in rows if row.split != "gallery")
    nobody = {"-1": JUNK} if people_of_zero else {"-1": JUNK, "0": DISTRACTOR}
    people = _numbers([row.identity for row in rows if row.identity not in nobody]) | nobody
    cameras = _numbers([row.camera for row in rows])
    storage = FolderStorage(path.parent)
    splits = {}
    for split in SPLITS:
        chosen = [row for row in rows if row.split == split]
        splits[split] = Split(
            split,
            tuple(row.path for row in chosen),
            np.array([people[row.identity] for row in chosen], np.int32),
            np.array([cameras[row.camera] for row in chosen], np.int32),
            storage,
        )
    return ReidDataset("csv", **splits)


def _check_spellings(
    path: Path, column: str, labels: Sequence[tuple[str, int]], known: tuple[str, ...] = ()
) -> None:
    """Raises InputError for two labels that may be meant as one; `labels`: with their lines."""
    lines: dict[str, int] = {}
    for label, line in labels:
        lines.setdefault(label, line)
    alike = lookalike([*known, *lines])
    if alike:
        here, there = (
            f"{label!r}" + (f" (line {lines[label]})" if label in lines else "") for label in alike
        )
        raise InputError(
            f"{path}:{lines[alike[1]]}: the {column} is {there}, which looks like {here}. Write "
            "both in one way if they are one, or in ways that differ in more than that"
        )


def _check_images(path: Path, rows: Sequence[_Row]) -> None:
    """One warning for images of several splits.

    Raises:
        InputError: their labels contradict each other.
    """
    first: dict[str, _Row] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        other = first.setdefault(row.image, row)
        if other is row:
            continue
        where = f"lines {other.line} and {row.line}, {row.path}"
        people = {row.identity, other.identity} - {"-1"}
        for column, found in ("identity", people), ("camera", {row.camera, other.camera}):
            if len(found) > 1:
                raise InputError(
                    f"{path}:{row.line}: {row.path} is the image of line {other.line}, of another "
                    f"{column}: {' and '.join(sorted(found))}. Correct one of the two lines"
                )
        shared.setdefault((other.split, row.split), []).append(where)
    for splits, places in shared.items():
        trained = "train" in splits
        logging.warning(
            "%s: %d images are in two splits, %s and %s (%s): %s",
            path,
            len(places),
            *splits,
            places[0] + ("; ..." if len(places) > 1 else ""),
            "results will look better than they are for images never seen"
            if trained
            else "ranking leaves a query's own image out",
        )


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
        text = read_bytes(path, TABLE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"--config.data.root={path}: cannot be read ({error.strerror or error}).\n\n{_CSV}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8; save the table as UTF-8 text") from error
    separator = max(_SEPARATORS, key=lambda separator: len(_columns(text, separator)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows: list[_Row] = []
    seen: dict[tuple[str, str], _Row] = {}
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(path, header, separator)
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            row = _parse(path, reader.line_num, header, fields, separator)
            first = seen.setdefault((row.split, row.image), row)
            if first is not row:
                spelling = "" if first.path == row.path else f" as {first.path}"
                raise InputError(
                    f"{path}:{row.line}: {row.path} is in the split {row.split} already, in line "
                    f"{first.line}{spelling}; remove one of the two"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a row of a table ({error})") from error
    return rows


def _columns(text: str, separator: str) -> set[str]:
    """The needed columns that a header of these separators has."""
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return set()
    return {name.strip().lower() for name in header} & set(COLUMNS)


def _check_header(path: Path, header: Sequence[str], separator: str) -> None:
    found = f"({', '.join(header) or 'empty'}), read as separated by {_SEPARATORS[separator]}"
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path}:1: no column {', '.join(missing)} in the header {found}.\n\n{_CSV}"
        )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise InputError(
            f"{path}:1: the column {', '.join(twice)} comes twice in the header {found}; rename "
            "or remove one"
        )


def _parse(
    path: Path, line: int, header: Sequence[str], fields: Sequence[str], separator: str
) -> _Row:
    where = f"{path}:{line}"
    if len(fields) != len(header):
        raise InputError(
            f"{where}: {len(fields)} fields, but the header has {len(header)}, separated by "
            f"{_SEPARATORS[separator]}"
        )
    values = dict(zip(header, (field.strip() for field in fields), strict=True))
    for name in COLUMNS:
        if not values[name]:
            raise InputError(f"{where}: the {name} is empty; every image needs one")
    split = values["split"].lower()
    if split not in SPLITS:
        raise InputError(f"{where}: the split is {split!r}; it must be one of {SPLITS}")
    for name in ("identity", "camera"):
        try:
            values[name] = spelled(values[name])
        except ValueError as error:
            raise InputError(f"{where}: the {name} {error}; every image needs one") from error
    identity = values["identity"]
    if identity == "-1" and split != "gallery":
        raise InputError(f"{where}: identity -1 is junk, which only a gallery can have")
    if re.fullmatch(r"-\d+", identity, re.ASCII) and identity != "-1":
        raise InputError(
            f"{where}: the identity is {identity}; people have numbers from 0 or names, and of the "
            "numbers below only -1 has a meaning, junk"
        )
    file = _find(path.parent, values["path"])
    if file is None:
        raise InputError(f"{where}: no file {path.parent / values['path']}")
    image = os.path.realpath(path.parent / file)
    return _Row(line, file, identity, values["camera"], split, image)


def _find(folder: Path, listed: str) -> str | None:
    """The path as it is on the disk; programs write / as a backslash, and accents in two ways."""

    def spellings() -> Iterable[str]:
        for name in dict.fromkeys((listed, listed.replace("\\", "/"))):
            yield name
            yield unicodedata.normalize("NFC", name)
            yield unicodedata.normalize("NFD", name)

    return next((name for name in spellings() if os.path.isfile(folder / name)), None)


def _numbers(names: Sequence[str]) -> dict[str, int]:
    """A number from 1 for each name: its own, if all are numbers from 1 of at most 9 digits."""
    different = sorted(set(names))
    if all(re.fullmatch(r"[1-9]\d{0,8}", name, re.ASCII) for name in different):
        return {name: int(name) for name in different}
    return {name: number for number, name in enumerate(different, 1)}
