"""Files that are there completely or not at all, however the process ends."""

import contextlib
import io
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from dgnet_jax.errors import naming


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it to `path` at the end.

    If the block raises, `path` stays as it was and the temporary file is removed.

    Raises:
        DiskFullError: there is no room; it names `path`.
    """
    path = Path(path)
    # The process's number alone may be another machine's, too, on a shared file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
