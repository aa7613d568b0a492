"""Paths as people type them, and as they are shown."""

import os
from pathlib import Path

from dgnet_jax.errors import InputError


def user_path(given: str | os.PathLike[str]) -> Path:
    """The path, with "~" at its start as the home folder; shells leave it in `--flag=~/x`.

    Every function and command that takes a path from a user passes it through this once.

    Raises:
        InputError: it is "~NAME" of a user that there is not, or holds a NUL.
    """
    if "\0" in os.fspath(given):
        raise InputError(f"{os.fspath(given)!r}: no path, for it holds a NUL character")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise InputError(f"{os.fspath(given)}: {error}; give the whole path") from error


def printable(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of file names that are not become "\\udcff"."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
