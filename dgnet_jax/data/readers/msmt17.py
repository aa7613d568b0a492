"""MSMT17 (Wei et al., CVPR 2018): 4,101 people, 15 cameras, JPEGs of varying size, text lists."""

import os
import re

import numpy as np

from dgnet_jax.data.readers.counts import Counts
from dgnet_jax.data.readers.folders import find_storage, warn_of_ignored
from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.data.storage import Storage
from dgnet_jax.errors import InputError

EXAMPLE_NAME = "0000/0000_000_01_0303morning_0008_0.jpg"
PUBLISHED = Counts(train=32_621, query=11_659, gallery=82_161, train_identities=1_041, cameras=15)

# The training images of the usual protocol are those of both lists, 30,248 + 2,373.
LISTS = {
    "train": ("list_train.txt", "list_val.txt"),
    "query": ("list_query.txt",),
    "gallery": ("list_gallery.txt",),
}
# Of training and test images: the first release, and the second with its faces masked.
IMAGE_FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))

# Folder, file, identity. The name's fields: person, image, camera, time of day, frame, box.
_LINE = re.compile(
    r"(\S+/\d+_\d+_(\d{2})_[^/\s]+\.(?:jpe?g|png))\s+(\d{1,9})", re.ASCII | re.IGNORECASE
)
# Copies of the data set store the images in another format than their lists say.
_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG")

_WHAT_IT_IS = f"""\
MSMT17 is a person re-identification data set of 4,101 people seen by 15 cameras (Wei et al., Person
Transfer GAN to Bridge Domain Gap for Person Re-Identification, CVPR 2018). It is for research only
and comes from its authors. --config.data.root names its folder, that folder's parent, or the .zip.
Expected:

    MSMT17_V1/
      train/              or mask_train_v2/: images such as {EXAMPLE_NAME}
      test/               or mask_test_v2/
      list_train.txt      30,248 lines such as "{EXAMPLE_NAME} 0"
      list_val.txt         2,373 lines
      list_query.txt      11,659 lines
      list_gallery.txt    82,161 lines"""


def read_msmt17(root: str | os.PathLike[str]) -> ReidDataset:
    """Lists MSMT17 as its text files do; training images are those of list_train and list_val.

    The lists count people from 0, in training and test images apart. Identities here are these
    numbers plus 1, since 0 stands for a distractor, which MSMT17 does not have.

    A line may name the image from the folder of the lists on (train/0000/...), and the file may
    have another suffix of an image than the line says.

    Args:
        root: the extracted folder, its parent, or the zip, which is read in place.

    Raises:
        InputError: nothing there, a list or folder is missing, or a list has no line of an image.
    """
    lists = [name for names in LISTS.values() for name in names]
    layouts = [[*folders, *lists] for folders in IMAGE_FOLDERS]
    storage, which = find_storage("MSMT17", root, layouts, "MSMT17", _WHAT_IT_IS)
    train_folder, test_folder = IMAGE_FOLDERS[which]
    ignored_files: list[str] = []
    splits = {
        split: _read_lists(
            split, names, train_folder if split == "train" else test_folder, storage, ignored_files
        )
        for split, names in LISTS.items()
    }
    warn_of_ignored(f"{EXAMPLE_NAME} 0", storage, ignored_files)
    return ReidDataset("msmt17", **splits)


def _read_lists(
    split: str, names: tuple[str, ...], folder: str, storage: Storage, ignored_files: list[str]
) -> Split:
    """The images of some lists; lines that are none are appended to `ignored_files`."""
    files, identities, cameras = [], [], []
    images = _Images(storage, folder)
    for name in names:
        try:
            text = storage.read_bytes(name).decode("utf-8-sig", errors="replace")
        except OSError as error:
            raise InputError(f"{storage.path(name)}: cannot be read ({error})") from error
        for number, line in enumerate(text.splitlines(), 1):
            match = _LINE.fullmatch(line.strip().replace("\\", "/"))
            if match:
                files.append(images.find(match[1]))
                cameras.append(int(match[2]))
                identities.append(int(match[3]) + 1)
            elif line.strip():
                ignored_files.append(f"{name}:{number}: {line.strip()[:80]}")
    if not files:
        raise InputError(
            f"{storage.path(names[0])}: no line such as '{EXAMPLE_NAME} 0' in it.\n\n{_WHAT_IT_IS}"
        )
    return Split(
        split,
        tuple(files),
        np.array(identities, np.int32),
        np.array(cameras, np.int32),
        storage,
    )


class _Images:
    """The files below one folder of images; each folder in it is listed once."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder
        # Of training images train/ or mask_train_v2/, whichever of them the folder is called.
        kind = "train" if "train" in folder else "test"
        self._prefix = re.compile(rf"(?:\./)*(?:(?:mask_)?{kind}(?:_v2)?/)?")
        self._names: dict[str, frozenset[str]] = {}

    def find(self, listed: str) -> str:
        """The file that a line means, with its folder; the line's own name if there is none."""
        own = f"{self._folder}/{listed}"
        if self._is_there(own):
            return own
        inside = self._prefix.sub("", listed, count=1)
        stem = os.path.splitext(f"{self._folder}/{inside}")[0]
        suffixes = (os.path.splitext(listed)[1], *_SUFFIXES)
        return next((stem + suffix for suffix in suffixes if self._is_there(stem + suffix)), own)

    def _is_there(self, file: str) -> bool:
        folder, _, name = file.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(self._storage.names(folder))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]
