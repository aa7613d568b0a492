"""Where the files of a data set lie: a folder, or a zip that is read in place.

Both are safe to read from several threads. Names inside a storage use `/` and are relative to the
folder that holds the data set's own folders (`query`, ...), wherever in the zip or on disk that is.
"""

import os
import threading
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol


class Storage(Protocol):
    """A read-only tree of files."""

    @property
    def location(self) -> str:
        """The tree's place, for messages."""
        ...

    def has_folder(self, folder: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """The sorted names of what lies directly in a folder."""
        ...

    def path(self, file: str) -> str:
        """The file's full path, for messages."""
        ...

    def read_bytes(self, file: str) -> bytes:
        """Raises OSError if the file cannot be read, whatever the reason."""
        ...


class FolderStorage:
    """A folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def location(self) -> str:
        return str(self._folder)

    def has_folder(self, folder: str) -> bool:
        return os.path.isdir(self._folder / folder)

    def names(self, folder: str) -> list[str]:
        return sorted(os.listdir(self._folder / folder))

    def path(self, file: str) -> str:
        return str(self._folder / file)

    def read_bytes(self, file: str) -> bytes:
        with open(self._folder / file, "rb") as stream:
            return stream.read()


class ZipStorage:
    """The tree below one prefix of an open zip."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, lock: threading.Lock) -> None:
        self._archive = archive
        self._prefix = prefix
        self._lock = lock
        self._names: dict[str, set[str]] = {}
        for name in archive.namelist():
            if name.startswith(prefix):
                folder, slash, rest = name[len(prefix) :].partition("/")
                if slash:
                    inside = self._names.setdefault(folder, set())
                    if rest:
                        inside.add(rest.partition("/")[0])

    @property
    def location(self) -> str:
        return os.path.join(str(self._archive.filename), self._prefix).rstrip("/")

    def has_folder(self, folder: str) -> bool:
        return folder in self._names

    def names(self, folder: str) -> list[str]:
        return sorted(self._names[folder])

    def path(self, file: str) -> str:
        return f"{self.location}/{file}"

    def read_bytes(self, file: str) -> bytes:
        # Readers share one file position; images are a few kilobytes, so waiting is cheap.
        try:
            with self._lock:
                return self._archive.read(self._prefix + file)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError) as error:
            raise OSError(f"cannot be read from the zip: {error}") from error


class LayoutNotFoundError(Exception):
    """No place below a root holds a data set's folders; `looked` lists each place and its state."""

    def __init__(self, looked: Sequence[str]) -> None:
        super().__init__("\n".join(looked))
        self.looked = tuple(looked)


def find_layout(root: str | os.PathLike[str], folders: Sequence[str], folder_name: str) -> Storage:
    """Finds the tree that holds all `folders`.

    Args:
        root: that folder itself, its parent, a zip, or a folder with the zip in it.
        folders: names of the folders that must be there.
        folder_name: the data set's own (`Market-1501-v15.09.15`). In a parent of several data sets
            with the same layout, it and then names that begin like it (up to the first `-`) win.

    Raises:
        LayoutNotFoundError: with every place looked at.
    """
    path = Path(root).expanduser()
    if path.is_file():
        return _choose(_in_zip(path, folders), folders, folder_name, [])
    if not path.is_dir():
        raise LayoutNotFoundError([f"{path}: does not exist"])

    here = FolderStorage(path)
    if all(here.has_folder(folder) for folder in folders):
        return here
    looked = [_describe(here, folders)]
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise LayoutNotFoundError([f"{path}: cannot be listed ({error.strerror})"]) from error
    if not os.path.exists(path / folder_name):
        looked.append(f"{path / folder_name}: does not exist")
    children: list[Storage] = [FolderStorage(entry) for entry in entries if os.path.isdir(entry)]
    near = [child for child in children if any(child.has_folder(folder) for folder in folders)]
    looked.append(f"{path}/*/: {len(children)} folders, {len(near)} of them with one of the names")
    stem = _stem(folder_name)
    zips = [e for e in entries if e.suffix.lower() == ".zip" and e.name.lower().startswith(stem)]
    if not any(_complete(child, folders) for child in near):
        looked.append(f"{path}/{folder_name.partition('-')[0]}*.zip: {len(zips)} files")
        for archive in zips:
            try:
                near += _in_zip(archive, folders)
            except LayoutNotFoundError as error:
                looked += error.looked
    return _choose(near, folders, folder_name, looked)


def _stem(folder_name: str) -> str:
    return folder_name.partition("-")[0].lower()


def _complete(storage: Storage, folders: Iterable[str]) -> bool:
    return all(storage.has_folder(folder) for folder in folders)


def _describe(storage: Storage, folders: Sequence[str]) -> str:
    missing = [folder for folder in folders if not storage.has_folder(folder)]
    if len(missing) == len(folders):
        return f"{storage.location}: holds none of {', '.join(folders)}"
    present = [folder for folder in folders if folder not in missing]
    return f"{storage.location}: holds {', '.join(present)} but not {', '.join(missing)}"


def _in_zip(path: Path, folders: Sequence[str]) -> list[Storage]:
    """Every place of a zip where one of the folders is."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        reason = f"{path}: not a readable zip file ({error}); is the download complete?"
        raise LayoutNotFoundError([reason]) from error
    prefixes = set()
    for name in archive.namelist():
        parts = name.split("/")[:-1]
        if parts and parts[0] != "__MACOSX":
            prefixes |= {
                "".join(f"{part}/" for part in parts[:i])
                for i, part in enumerate(parts)
                if part in folders
            }
    if not prefixes:
        top = sorted({name.split("/")[0] for name in archive.namelist()})
        archive.close()
        found = ", ".join(top[:5]) or "nothing"
        raise LayoutNotFoundError(
            [f"{path}: no folder {', '.join(folders)} in it (it holds {found})"]
        )
    lock = threading.Lock()
    return [ZipStorage(archive, prefix, lock) for prefix in sorted(prefixes)]


def _choose(
    storages: Sequence[Storage], folders: Sequence[str], folder_name: str, looked: Sequence[str]
) -> Storage:
    complete = [storage for storage in storages if _complete(storage, folders)]
    if not complete:
        raise LayoutNotFoundError([*looked, *(_describe(storage, folders) for storage in storages)])
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
