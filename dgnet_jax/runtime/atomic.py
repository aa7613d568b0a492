"""Files that are there completely or not at all, however the process ends."""

import contextlib
import functools
import io
import json
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from dgnet_jax.errors import naming


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it to `path` at the end.

    If the block raises, `path` stays as it was and the temporary file is removed. Where a process
    is killed, its temporary file stays; the next process that writes into the folder removes it.

    Raises:
        DiskFullError: there is no room; it names `path`.
    """
    path = Path(path)
    _remove_abandoned(path.parent)
    # The process's number alone may be another machine's, too, on a shared file system.
    unique = f"{os.getpid()}-{_machine()}{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{unique}.tmp")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# NAME, the process, its machine (not in names of releases before 2026-11-28), random digits.
_TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{8})?[0-9a-f]{8}\.tmp")
_ABANDONED_SECONDS = 24 * 3600.0


@functools.cache
def _machine() -> str:
    """8 digits that tell apart what can have two processes of one number: hosts and containers."""
    namespace = 0
    with contextlib.suppress(OSError):  # Linux alone has it
        namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{zlib.crc32(f'{socket.gethostname()} {namespace}'.encode()):08x}"


@functools.lru_cache(maxsize=1000)
def _remove_abandoned(folder: Path) -> None:
    """Removes temporary files of dead processes; once for a folder, which may hold many files.

    Dead is a process of this machine that is not there, and any whose file is a day old.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _TEMPORARY.fullmatch(entry.name)
            if found is None or not entry.is_file(follow_symlinks=False):
                continue
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if age > _ABANDONED_SECONDS or (found[2] == _machine() and not _runs(int(found[1]))):
                Path(entry).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks only
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


def write_image(image: Image.Image, path: str | Path, **options: Any) -> None:
    """`image.save(path, **options)`, which by itself takes a file cut short for a good one.

    Pillow writes to a file descriptor and does not look at how many bytes the system took: where a
    disk fills up, or a limit is reached, it leaves a part of an image and reports nothing.

    Args:
        options: `format` among them, and those of the format.

    Raises:
        OSError: it cannot be written; there is no room.
    """
    content = io.BytesIO()
    image.save(content, **options)
    Path(path).write_bytes(content.getvalue())


def write_json(path: str | Path, content: Any, indent: int | None = 2) -> None:
    """Writes strict JSON: a NaN, which is a number that could not be measured, becomes null."""
    strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(strict, indent=indent) + "\n", encoding="utf-8")
