"""Data sets whose folders are their splits and whose file names give identity and camera.

Market-1501 set this form; DukeMTMC-reID and CUHK03-NP follow it, and `data.name=folder` reads one's
own images in it. A `FolderNaming` says how one of them looks, `read_folders` reads any.
"""

import os
import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from absl import logging

from dgnet_jax.data.splits import DISTRACTOR, JUNK, ReidDataset, Split
from dgnet_jax.data.storage import LayoutNotFoundError, Storage, find_layout
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import user_path

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


_NOBODY = (
    "Identity 0 is a distractor and -1 is junk: nobody to train on or to look for. People are "
    "numbered from 1; rename the files if they show a person"
)


class _LeftOut(NamedTuple):
    """Files of a data set that are in no split: of other names, and of nobody."""

    others: list[str]
    nobody: list[str]


@dataclass(frozen=True)
class FolderNaming:
    """How a data set names its folders and files.

    Attributes:
        name: the value of `data.name`.
        title: its name in messages.
        folder_name: of the released folder.
        pattern: of a whole file name; group 1 is the identity, group 2 the camera.
        example: a file name.
        what_it_is: shown when it is not found: whose it is, how to get it, what is expected where.
        nobody: whether a gallery has junk (-1) and distractors (0). Where it has not, files with
            these identities are left out.
        multi_query: the folder of more images of the queries' people by the same cameras; a copy
            of the data set may lack it.
        versions: the folder that holds the three, if it is not the root: the names under which it
            is around.
    """

    name: str
    title: str
    folder_name: str
    pattern: re.Pattern[str]
    example: str
    what_it_is: str
    nobody: bool = False
    multi_query: str = ""
    versions: tuple[str, ...] = ()

    def parse(self, file_name: str) -> tuple[int, int] | None:
        """(identity, camera) of a file name, or None if it is not an image of the data set."""
        match = self.pattern.fullmatch(file_name)
        return (int(match[1]), int(match[2])) if match else None


def read_folders(naming: FolderNaming, root: str | os.PathLike[str]) -> ReidDataset:
    """Lists a data set.

    Files with other names (Thumbs.db) are left out, as are junk and distractors outside the
    gallery; a warning counts each.

    Args:
        naming: what to look for.
        root: the extracted folder, its parent, or the zip, which is read in place.

    Raises:
        InputError: nothing there, a folder is missing or holds no image, or the zip is unreadable.
    """
    prefixes = [f"{version}/" for version in naming.versions]
    # Without its name around it a version is believed only where the root is its very folder.
    if not prefixes or os.path.isdir(user_path(root) / FOLDERS["query"]):
        prefixes.append("")
    layouts = [[prefix + folder for folder in FOLDERS.values()] for prefix in prefixes]
    storage, which = find_storage(
        naming.title, root, layouts, naming.folder_name, naming.what_it_is
    )
    left_out = _LeftOut([], [])
    splits = {
        split: _read_split(naming, split, storage, prefixes[which] + folder, left_out)
        for split, folder in FOLDERS.items()
    }
    extra = prefixes[which] + naming.multi_query
    if naming.multi_query and storage.has(extra) and storage.names(extra):
        splits["multi_query"] = _read_split(naming, "multi_query", storage, extra, left_out)
    warn_of_ignored(naming.example, storage, left_out.others)
    if left_out.nobody:
        logging.warning(
            "%s: left out %d images of nobody: %s. %s",
            storage.location,
            len(left_out.nobody),
            _examples(left_out.nobody),
            _NOBODY,
        )
    return ReidDataset(naming.name, **splits)


def find_storage(
    title: str,
    root: str | os.PathLike[str],
    layouts: list[list[str]],
    folder_name: str,
    what_it_is: str,
) -> tuple[Storage, int]:
    """`find_layout` for `--config.data.root`.

    Raises:
        InputError: the root is empty or nothing is there; explains what was looked at and what the
            data set is.
    """
    if not os.fspath(root):
        raise InputError(f"--config.data.root is not set.\n\n{what_it_is}")
    try:
        return find_layout(root, layouts, folder_name)
    except LayoutNotFoundError as error:
        looked = "\n".join(f"    {line}" for line in error.looked)
        raise InputError(
            f"--config.data.root={os.fspath(root)}: no {title} there. Looked at:\n"
            f"{looked}\n\n{what_it_is}"
        ) from error


def warn_of_ignored(example: str, storage: Storage, ignored_files: list[str]) -> None:
    """One warning for all files that were left out, if there are any."""
    if ignored_files:
        logging.warning(
            "%s: ignored %d files that are not images of a person named like %s: %s",
            storage.location,
            len(ignored_files),
            example,
            _examples(ignored_files),
        )


def _examples(files: list[str]) -> str:
    return ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")


def _read_split(
    naming: FolderNaming, split: str, storage: Storage, folder: str, left_out: _LeftOut
) -> Split:
    """Lists one folder; what is left out is appended to `left_out`."""
    files, identities, cameras = [], [], []
    others: list[str] = []
    nobody: list[str] = []
    try:
        names = storage.names(folder)
    except OSError as error:
        raise InputError(f"{storage.path(folder)}: cannot be listed ({error.strerror})") from error
    for file_name in names:
        parsed = naming.parse(file_name)
        if parsed is None:
            others.append(f"{folder}/{file_name}")
            continue
        # Junk and distractors are nobody: they cannot be a class to learn or a person to look for.
        if parsed[0] in (JUNK, DISTRACTOR) and not (naming.nobody and split == "gallery"):
            nobody.append(f"{folder}/{file_name}")
            continue
        files.append(f"{folder}/{file_name}")
        identities.append(parsed[0])
        cameras.append(parsed[1])
    if not files:
        found = f"{len(others)} other files such as {others[0]}" if others else "nothing"
        if nobody:
            found = f"{len(nobody)} images of nobody: {_examples(nobody)}. {_NOBODY}"
        raise InputError(
            f"{storage.path(folder)}: no image of a person named like {naming.example} in it, but "
            f"{found}.\n\n{naming.what_it_is}"
        )
    left_out.others.extend(others)
    left_out.nobody.extend(nobody)
    return Split(
        split,
        tuple(files),
        np.array(identities, np.int32),
        np.array(cameras, np.int32),
        storage,
    )
