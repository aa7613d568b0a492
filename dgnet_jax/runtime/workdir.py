"""The work directory: one configuration, one process training in it at a time."""

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import ml_collections

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.atomic import replacing
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import read_json

# The two stages of a training.
TEACHER_STAGE, DGNET_STAGE = "teacher", "dgnet"
CONFIG_FILE = "config.json"
REMEDY = "Restore it, or use another --workdir."
LOCK_FILE = ".lock"

# None in the processes of a run that the first one holds it for.
_locks: dict[Path, TextIO | None] = {}


class InUseError(InputError):
    """Another process is training in the work directory."""


def stage_directory(workdir: Path, name: str) -> Path:
    """The folder of a stage's checkpoints."""
    return Path(workdir) / name / "checkpoints"


def prepare(
    workdir: str | Path,
    config: ml_collections.ConfigDict,
    may_differ: tuple[str, ...] = (),
    defaults: ml_collections.ConfigDict | None = None,
) -> Path:
    """Creates, locks and labels the work directory of a run.

    Args:
        workdir: the folder; created with its parents.
        config: the effective configuration, saved as `config.json`.
        may_differ: fields that may change when a run is resumed, as dotted names (`total_steps`) or
            prefixes of them (`evaluation` covers `evaluation.alpha`). The new values are saved.
        defaults: what a field means for a run that is older than the field.

    Returns:
        The folder, absolute.

    Raises:
        InputError: the folder is of another configuration, in use, not writable, or not a folder.
    """
    folder = user_path(workdir).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"--workdir={workdir}: {error.filename} is not a folder: a file is in the way. "
            "Choose another folder."
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    lock(folder)

    def label() -> None:
        refuse_other(folder, config, may_differ, defaults)
        text = json.dumps(as_json(config), indent=2) + "\n"
        try:
            with replacing(folder / CONFIG_FILE) as path:
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritable(folder, error) from error

    on_first_process(label)
    return folder


def refuse_other(
    folder: Path,
    config: ml_collections.ConfigDict,
    may_differ: tuple[str, ...] = (),
    defaults: ml_collections.ConfigDict | None = None,
) -> None:
    """Raises InputError if the folder holds a run of another configuration; see `prepare`."""
    if not (folder / CONFIG_FILE).exists():
        return
    lines = differences(_read(folder), config, may_differ, defaults)
    if lines:
        raise InputError(
            f"{folder} holds a run of another configuration:\n"
            + "\n".join(lines)
            + "\nUse these values again to continue it, or choose another --workdir."
        )


def differences(
    present: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    may_differ: tuple[str, ...] = (),
    defaults: ml_collections.ConfigDict | None = None,
) -> list[str]:
    """A line for each field in which a configuration differs from a saved one; see `prepare`.

    Args:
        present: the saved one, as `as_json` gives it.
    """
    older = {} if defaults is None else dict(_flatten(as_json(defaults)))
    there, here = {**older, **dict(_flatten(present))}, dict(_flatten(as_json(config)))
    names = [name for name in {**there, **here} if not _covered(name, may_differ)]
    return [
        f"  {name}: {_shown(there, name)} there, {_shown(here, name)} now"
        for name in names
        if _shown(there, name) != _shown(here, name)
    ]


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """Reads the configuration of a work directory; sequences come back as tuples.

    Raises:
        InputError: there is no such folder or file, or the file is not a configuration.
    """
    folder = user_path(workdir).absolute()
    if not folder.is_dir():
        raise InputError(f"--workdir={workdir}: no such folder; name the folder of a finished run.")
    if not (folder / CONFIG_FILE).exists():
        raise InputError(
            f"{folder}: no {CONFIG_FILE} in it, so it is not a work directory; found "
            f"{sorted(entry.name for entry in folder.iterdir())[:10]}. Train in it first."
        )
    content = _read(folder)
    try:
        return from_json(content)
    except ValueError as error:
        raise InputError(f"{folder / CONFIG_FILE}: {error}. {REMEDY}") from error


def lock(workdir: Path) -> None:
    """Makes this process the only one that trains in `workdir`, until `unlock` or its end.

    The operating system releases the lock with the process, kill -9 included. Asking again in the
    process that holds it does nothing; in a multi-process run the first process holds it for all.

    Raises:
        InUseError: another process holds it.
        InputError: the folder cannot be written to.
    """
    workdir = Path(workdir).resolve()
    if workdir in _locks:
        return
    file: TextIO | None = None

    def acquire() -> None:
        nonlocal file
        file = _acquire(workdir)

    on_first_process(acquire)
    _locks[workdir] = file


def lock_here(workdir: Path) -> None:
    """`lock` for what the first process of a run does by itself: the others need not call it.

    Raises:
        InUseError, InputError: as `lock`.
    """
    workdir = Path(workdir).resolve()
    if workdir not in _locks:
        _locks[workdir] = _acquire(workdir)


def _acquire(workdir: Path) -> TextIO | None:
    """The lock of this process; None where the file system has none."""
    try:
        file = (workdir / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(workdir, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise InUseError(
            f"{workdir}: another process is training in it ({holder}). Wait for it or stop it, or "
            "choose another --workdir."
        ) from error
    except OSError as error:
        file.close()
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        logging.warning("%s: this file system has no locks; start one process in it only", workdir)
        return None
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"pid {os.getpid()} on {socket.gethostname()}".encode())
    except OSError as error:
        file.close()
        raise _unwritable(workdir, error) from error
    return file


def unlock(workdir: str | Path) -> None:
    """Lets other processes train in `workdir`; nothing if this one does not hold the lock."""
    file = _locks.pop(Path(workdir).resolve(), None)
    if file is not None:
        file.close()


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"--workdir={folder}: cannot be written to ({error.strerror}). Choose another folder."
    )


def _read(folder: Path) -> dict[str, Any]:
    return read_json(folder / CONFIG_FILE, dict[str, Any], REMEDY)


def _covered(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """A configuration as JSON holds it; InputError for a value that it cannot hold."""
    content = config.to_dict()
    for name, value in _flatten(content):
        try:
            json.dumps(value)
        except TypeError as error:
            raise InputError(
                f"config.{name}: {value!r} is a {type(value).__name__}, which cannot be saved; use "
                "numbers, text, booleans, None, tuples and nested configs."
            ) from error
    return json.loads(json.dumps(content))


def from_json(content: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The configuration that `as_json` gave; sequences come back as tuples.

    Raises:
        ValueError: a key is one that no field can have.
    """
    try:
        return ml_collections.ConfigDict(_with_tuples(dict(content)))
    except AttributeError as error:  # of a key such as __class__
        raise ValueError(str(error)) from error


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(item) for item in value)
    return value
