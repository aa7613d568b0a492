"""JSON files of a study, read back."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dgnet_jax.errors import InputError


def read_stored(path: Path, what: str, needed: Iterable[str], hint: str) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Args:
        path: of the file.
        what: it should be, for the error: "a study".
        needed: keys without which it is something else.
        hint: what to do about a file that is.

    Raises:
        InputError: it is not JSON, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). {hint}") from error
    if not isinstance(content, dict) or not content.keys() >= set(needed):
        raise InputError(f"{path}: not {what}, which has {', '.join(needed)}. {hint}")
    return content
