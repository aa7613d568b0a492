"""Files that are there completely or not at all, however the process ends."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it to `path` at the end.

    If the block raises, `path` stays as it was and the temporary file is removed.
    """
    path = Path(path)
    # The process's number alone may be another machine's, too, on a shared file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any, indent: int | None = 2) -> None:
    """Writes strict JSON: a NaN, which is a number that could not be measured, becomes null."""
    strict = json.loads(json.dumps(content), parse_constant=lambda _: None)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(strict, indent=indent) + "\n", encoding="utf-8")
