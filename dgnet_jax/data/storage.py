"""Where the files of a data set lie: a folder, or a zip that is read in place.

Both are safe to read from several threads. Names inside a storage use `/` and are relative to the
folder that holds the data set's own entries (`query`, `list_train.txt`, ...), wherever in the zip
or on disk that is.
"""

import os
import threading
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import (
    ARCHIVE_BYTES,
    IMAGE_BYTES,
    NotRegularError,
    check_regular,
    read_bytes,
)


class Files(Protocol):
    """Where the images of a split are read from."""

    def path(self, file: str) -> str:
        """The file's full path, for messages."""
        ...

    def read_bytes(self, file: str) -> bytes:
        """Raises OSError if the file cannot be read, whatever the reason."""
        ...


class Storage(Files, Protocol):
    """A read-only tree of files."""

    @property
    def location(self) -> str:
        """The tree's place, for messages."""
        ...

    def has(self, entry: str) -> bool:
        """Whether there is such a folder or file; `a/b` looks inside folder `a`."""
        ...

    def names(self, folder: str) -> list[str]:
        """The sorted names of what lies directly in a folder."""
        ...


class FolderStorage:
    """A folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def location(self) -> str:
        return str(self._folder)

    def has(self, entry: str) -> bool:
        return os.path.exists(self._folder / entry)

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(self._folder / folder))

    def path(self, file: str) -> str:
        return str(self._folder / file)

    def read_bytes(self, file: str) -> bytes:
        return read_bytes(self._folder / file, IMAGE_BYTES)


class ZipStorage:
    """The tree below one prefix of an open zip."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, lock: threading.Lock) -> None:
        self._archive = archive
        self._prefix = prefix
        self._lock = lock
        self._members: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}
        for name, member in _members(archive).items():
            if name.startswith(prefix):
                self._members[name[len(prefix) :]] = member
                parts = name[len(prefix) :].split("/")
                for depth in range(1, len(parts)):
                    inside = self._names.setdefault("/".join(parts[:depth]), set())
                    if parts[depth]:
                        inside.add(parts[depth])

    @property
    def location(self) -> str:
        return os.path.join(str(self._archive.filename), self._prefix).rstrip("/")

    def has(self, entry: str) -> bool:
        return entry in self._names or entry in self._members

    def names(self, folder: str) -> list[str]:
        return sorted(self._names.get(folder, ()))

    def path(self, file: str) -> str:
        return f"{self.location}/{file}"

    def read_bytes(self, file: str) -> bytes:
        # Readers share one file position; images are a few kilobytes, so waiting is cheap.
        try:
            with self._lock:
                size = self._archive.getinfo(self._members[file]).file_size
                if size > IMAGE_BYTES:
                    raise NotRegularError(
                        f"{size:,} bytes, more than the {IMAGE_BYTES:,} that are read of a file"
                    )
                return self._archive.read(self._members[file])
        except OSError:
            raise
        except Exception as error:  # zipfile and its decoders have many kinds for damaged bytes
            raise OSError(f"cannot be read from the zip: {error}") from error


class LayoutNotFoundError(Exception):
    """No place below a root holds a data set's folders; `looked` lists each place and its state."""

    def __init__(self, looked: Sequence[str]) -> None:
        super().__init__("\n".join(looked))
        self.looked = tuple(looked)


def find_layout(
    root: str | os.PathLike[str], layouts: Sequence[Sequence[str]], folder_name: str
) -> tuple[Storage, int]:
    """Finds the tree that holds all entries of one of the layouts.

    Args:
        root: that folder itself, its parent, a zip, or a folder with the zip in it.
        layouts: lists of folders and files that must be there; the first that is found counts.
        folder_name: the data set's own (`Market-1501-v15.09.15`). In a parent of several data sets
            with the same layout, it and then names that begin like it (up to the first `-`) win.

    Returns:
        The tree, and which of the layouts it has.

    Raises:
        LayoutNotFoundError: with every place looked at.
    """
    looked: list[str] = []
    for index, entries in enumerate(layouts):
        try:
            return _find(root, entries, folder_name), index
        except LayoutNotFoundError as error:
            looked += [line for line in error.looked if line not in looked]
    raise LayoutNotFoundError(looked)


def _find(root: str | os.PathLike[str], entries: Sequence[str], folder_name: str) -> Storage:
    path = user_path(root)
    if os.path.isfile(path):  # Path's own raises where a folder above may not be entered
        return _choose(_in_zip(path, entries), entries, folder_name, [])
    if not os.path.isdir(path):
        found = "neither a folder nor a file" if os.path.exists(path) else "does not exist"
        raise LayoutNotFoundError([f"{path}: {found}"])

    here = FolderStorage(path)
    if _complete(here, entries):
        return here
    looked = [_describe(here, entries)]
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise LayoutNotFoundError([f"{path}: cannot be listed ({error.strerror})"]) from error
    if not os.path.exists(path / folder_name):
        looked.append(f"{path / folder_name}: does not exist")
    children: list[Storage] = [FolderStorage(child) for child in inside if os.path.isdir(child)]
    near = [child for child in children if any(child.has(entry) for entry in entries)]
    looked.append(f"{path}/*/: {len(children)} folders, {len(near)} of them with one of the names")
    stem = _stem(folder_name)
    zips = [e for e in inside if e.suffix.lower() == ".zip" and e.name.lower().startswith(stem)]
    if not any(_complete(child, entries) for child in near):
        looked.append(f"{path}/{folder_name.partition('-')[0]}*.zip: {len(zips)} files")
        for archive in zips:
            try:
                near += _in_zip(archive, entries)
            except LayoutNotFoundError as error:
                looked += error.looked
    return _choose(near, entries, folder_name, looked)


def _stem(folder_name: str) -> str:
    return folder_name.partition("-")[0].lower()


def _complete(storage: Storage, entries: Iterable[str]) -> bool:
    return all(storage.has(entry) for entry in entries)


def _describe(storage: Storage, entries: Sequence[str]) -> str:
    missing = [entry for entry in entries if not storage.has(entry)]
    if len(missing) == len(entries):
        return f"{storage.location}: holds none of {', '.join(entries)}"
    present = [entry for entry in entries if entry not in missing]
    return f"{storage.location}: holds {', '.join(present)} but not {', '.join(missing)}"


def _in_zip(path: Path, entries: Sequence[str]) -> list[Storage]:
    """Every place of a zip where one of the entries is."""
    try:
        check_regular(path, ARCHIVE_BYTES)
        archive = zipfile.ZipFile(path)
    except Exception as error:  # as in ZipStorage.read_bytes
        reason = f"{path}: not a readable zip file ({error}); is the download complete?"
        raise LayoutNotFoundError([reason]) from error
    places: set[str] = set()
    members = _members(archive)
    for name in members:
        if not name.startswith("__MACOSX/"):
            parts = name.rstrip("/").split("/")
            places |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    prefixes = {
        place.removesuffix(entry)
        for place in places
        for entry in entries
        if f"/{place}".endswith(f"/{entry}")
    }
    if not prefixes:
        top = sorted({name.split("/")[0] for name in members})
        archive.close()
        found = ", ".join(top[:5]) or "nothing"
        raise LayoutNotFoundError([f"{path}: no {' or '.join(entries)} in it (it holds {found})"])
    lock = threading.Lock()
    return [ZipStorage(archive, prefix, lock) for prefix in sorted(prefixes)]


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names with `/` to names in the zip, in which some programs on Windows write backslashes."""
    names = sorted(archive.namelist(), key=lambda name: "\\" not in name)  # a right name counts
    return {name.replace("\\", "/").removeprefix("./"): name for name in names}


def _choose(
    storages: Sequence[Storage], entries: Sequence[str], folder_name: str, looked: Sequence[str]
) -> Storage:
    complete = [storage for storage in storages if _complete(storage, entries)]
    if not complete:
        raise LayoutNotFoundError([*looked, *(_describe(storage, entries) for storage in storages)])
    names = [Path(storage.location).name.lower() for storage in complete]
    for wanted in (
        [s for s, name in zip(complete, names, strict=True) if name == folder_name.lower()],
        [s for s, name in zip(complete, names, strict=True) if name.startswith(_stem(folder_name))],
        complete,
    ):
        if len(wanted) == 1:
            return wanted[0]
        if wanted:
            several = ", ".join(storage.location for storage in wanted)
            raise LayoutNotFoundError([*looked, f"several fit: {several}; name one of them"])
    raise AssertionError("complete is not empty")
