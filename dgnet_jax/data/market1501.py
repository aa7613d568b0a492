"""Market-1501 (Zheng et al., ICCV 2015): 1,501 people, 6 cameras, 128 x 64 JPEGs."""

import os
import re

import numpy as np
from absl import logging

from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.data.storage import LayoutNotFoundError, Storage, find_layout
from dgnet_jax.errors import InputError

FOLDER_NAME = "Market-1501-v15.09.15"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
JUNK, DISTRACTOR = -1, 0
EXAMPLE_NAME = "0002_c1s1_000451_03.jpg"

# Identity, camera, sequence, frame, box. 28 files of the original release end in .jpg.jpg.
_NAME = re.compile(r"(-1|\d{4})_c([1-6])s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?", re.ASCII)

_WHAT_IT_IS = f"""\
Market-1501 is a person re-identification data set of 1,501 people seen by 6 cameras (Zheng et al.,
Scalable Person Re-identification: A Benchmark, ICCV 2015). It is for research only and comes from
its authors. --config.data.root names its folder, that folder's parent, or the .zip as downloaded.
Expected:

    {FOLDER_NAME}/
      bounding_box_train/  12,936 images such as {EXAMPLE_NAME}
      query/                3,368 images
      bounding_box_test/   19,732 images

Without it, configs/quickstart.py draws its own pedestrians and needs no data."""


def parse_name(name: str) -> tuple[int, int] | None:
    """(identity, camera from 1) of a file name, or None if it is not an image of Market-1501."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def read_market1501(root: str | os.PathLike[str]) -> ReidDataset:
    """Lists Market-1501, or any data set in its layout and naming.

    Files with other names (Thumbs.db) are left out, as are junk and distractors outside the
    gallery; one warning counts them.

    Args:
        root: the extracted folder, its parent, or the zip, which is read in place.

    Raises:
        InputError: nothing there, a folder is missing or holds no image, or the zip is unreadable.
    """
    if not os.fspath(root):
        raise InputError(f"--config.data.root is not set.\n\n{_WHAT_IT_IS}")
    try:
        storage = find_layout(root, tuple(FOLDERS.values()), FOLDER_NAME)
    except LayoutNotFoundError as error:
        looked = "\n".join(f"    {line}" for line in error.looked)
        raise InputError(
            f"--config.data.root={os.fspath(root)}: no Market-1501 there. Looked at:\n"
            f"{looked}\n\n{_WHAT_IT_IS}"
        ) from error

    strangers: list[str] = []
    splits = {name: _read_split(name, storage, strangers) for name in FOLDERS}
    if strangers:
        examples = ", ".join(strangers[:3]) + (", ..." if len(strangers) > 3 else "")
        logging.warning(
            "%s: ignored %d files that are not images of a person in Market-1501's naming (%s): %s",
            storage.location,
            len(strangers),
            EXAMPLE_NAME,
            examples,
        )
    return ReidDataset("market1501", **splits)


def _read_split(name: str, storage: Storage, strangers: list[str]) -> Split:
    """Lists one folder; what is left out is appended to `strangers`."""
    folder = FOLDERS[name]
    files, identities, cameras = [], [], []
    ignored = []
    try:
        names = storage.names(folder)
    except OSError as error:
        raise InputError(f"{storage.path(folder)}: cannot be listed ({error.strerror})") from error
    for file_name in names:
        parsed = parse_name(file_name)
        # Junk and distractors are nobody: they cannot be a class to learn or a person to look for.
        if parsed is None or (name != "gallery" and parsed[0] in (JUNK, DISTRACTOR)):
            ignored.append(f"{folder}/{file_name}")
            continue
        files.append(f"{folder}/{file_name}")
        identities.append(parsed[0])
        cameras.append(parsed[1])
    if not files:
        found = f"{len(ignored)} other files such as {ignored[0]}" if ignored else "nothing"
        raise InputError(
            f"{storage.path(folder)}: no image of a person named like {EXAMPLE_NAME} in it, but "
            f"{found}.\n\n{_WHAT_IT_IS}"
        )
    strangers += ignored
    return Split(
        name,
        tuple(files),
        np.array(identities, np.int32),
        np.array(cameras, np.int32),
        storage,
    )
