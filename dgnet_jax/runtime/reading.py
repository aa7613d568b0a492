"""Files that others made: regular ones of a bounded size, JSON of a stated shape, safetensors.

A FIFO or a device in the place of a file would be waited for without end, and a sparse file or a
bomb would take all memory: both are refused before they are opened.
"""

import functools
import json
import math
import os
import stat
import struct
import zipfile
from typing import Annotated, Any, NamedTuple, TypeVar

import ml_dtypes
import numpy as np
import pydantic
import safetensors

from dgnet_jax.errors import InputError

T = TypeVar("T")

MEGABYTE = 1024**2
# Far above what this package and the published data sets hold.
IMAGE_BYTES = 64 * MEGABYTE
TABLE_BYTES = 256 * MEGABYTE
JSON_BYTES = 64 * MEGABYTE
WEIGHTS_BYTES = 8 * 1024 * MEGABYTE
STATISTICS_BYTES = 2 * 1024 * MEGABYTE
# Of what is read in parts: zips of data sets, records, memory-mapped arrays.
ARCHIVE_BYTES = 1024 * 1024 * MEGABYTE
# Of a file of JSON; the deepest one that this package writes has five.
_MOST_LEVELS = 50


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):  # which pydantic takes for 0.0 or 1.0
        raise ValueError("a bool")
    return value


Number = Annotated[float, pydantic.Field(strict=True), pydantic.BeforeValidator(_no_bool)]
"""An int or a float, for shapes."""
Count = Annotated[int, pydantic.Field(strict=True, ge=0, le=2**31 - 1)]
"""A whole number from 0 on that NumPy's and jax's int32 can hold, for shapes."""


class NotRegularError(OSError):
    """A path is no regular file, or one of more bytes than what it should hold can have.

    An `OSError`, as other files that cannot be read, so that a damaged image among good ones is
    named and left out in the same way.
    """


def check_regular(path: str | os.PathLike[str], most_bytes: int) -> None:
    """Looks at a file before it is opened; links are followed.

    Args:
        path: of the file.
        most_bytes: the largest size that what it should hold can have.

    Raises:
        NotRegularError: it is a FIFO, a socket, a device or a folder, or larger than `most_bytes`.
        FileNotFoundError, PermissionError and other OSErrors: of `os.stat`.
    """
    found = os.stat(path)
    for is_kind, kind in _KINDS:
        if is_kind(found.st_mode):
            raise NotRegularError(f"{kind}, not a file")
    if found.st_size > most_bytes:
        raise NotRegularError(
            f"{found.st_size:,} bytes, more than the {most_bytes:,} that are read of such a file"
        )


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def check_zip(path: str | os.PathLike[str], most_bytes: int) -> None:
    """Looks at a zip: what its members say of their sizes, then their number, names and checksums.

    Raises:
        NotRegularError: as `check_regular`, or its members are larger than `most_bytes` in all.
        zipfile.BadZipFile, OSError and others: it is damaged.
    """
    check_regular(path, most_bytes)
    with zipfile.ZipFile(path) as archive:
        found, stated = len(archive.infolist()), _stated_members(path)
        if stated is not None and found != stated:  # zipfile does not compare
            raise zipfile.BadZipFile(f"{found} members in it, but it says that there are {stated}")
        size = sum(member.file_size for member in archive.infolist())
        if size > most_bytes:
            raise NotRegularError(
                f"{size:,} bytes when unpacked, more than the {most_bytes:,} that are read of such "
                "a file"
            )
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} in it does not have its checksum")


def _stated_members(path: str | os.PathLike[str]) -> int | None:
    """The number of members in the record that ends a zip; None where there are too many for it."""
    with open(path, "rb") as stream:
        stream.seek(max(os.path.getsize(path) - _ZIP_END - 2**16, 0))
        end = stream.read()
    start = end.rindex(b"PK\x05\x06")
    (count,) = struct.unpack_from("<H", end, start + 10)
    return None if count == 2**16 - 1 else count


_ZIP_END = 22  # bytes of that record, before a comment of up to 2^16


def read_bytes(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """The content of a regular file; raises as `check_regular`."""
    check_regular(path, most_bytes)
    with open(path, "rb") as stream:
        return stream.read(most_bytes)  # also where it grows meanwhile


class Tensors(NamedTuple):
    """The content of a .safetensors file; metadata is what its writer says of it."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


def read_safetensors(path: str | os.PathLike[str]) -> Tensors:
    """Reads a .safetensors file of weights.

    Raises:
        NotRegularError, FileNotFoundError and other OSErrors: as `check_regular`.
        ValueError: it is no such file, or holds numbers of few bits, complex ones, NaN or infinite
            ones.
    """
    data = read_bytes(path, WEIGHTS_BYTES)
    try:
        tensors = safetensors.deserialize(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__")
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    arrays = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise ValueError(
                f"{name} is of {tensor['dtype']}, which is not read here; known are {known}. Save "
                "it as F32"
            )
        array = np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        if array.dtype.kind not in "iub" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values")
        arrays[name] = array
    return Tensors(arrays, metadata or {})


_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_json(path: str | os.PathLike[str], shape: type[T], remedy: str) -> T:
    """The content of a JSON file, checked against a type.

    Args:
        path: of the file.
        shape: what pydantic can validate: `dict[str, Any]`, a dataclass, a TypedDict (of
            typing_extensions), ... Numbers
            stay numbers and text stays text: nothing is converted into another kind.
        remedy: a sentence that says what to do about a file that is not that.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        InputError: it cannot be read, is no JSON, or is of another shape; it names the place in it.
    """
    try:
        text = read_bytes(path, JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except NotRegularError as error:
        raise InputError(f"{path}: cannot be read ({error}). {remedy}") from error
    except OSError as error:  # permissions or a failing disk: the content may be good
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Look at its permissions and at the disk"
        ) from error
    try:
        return check_shape(parse_json(text), shape)
    except ValueError as error:
        raise InputError(f"{path}: {error}. {remedy}") from error


def parse_json(text: str | bytes) -> Any:
    """Strict JSON, of finite numbers.

    Raises:
        ValueError: it is no JSON, not UTF-8, too deeply nested, or has a number beyond float's.
    """
    try:
        content = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole
        )
        _refuse_deep(content)
        return content
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error})") from error
    except RecursionError as error:
        raise ValueError("not valid JSON (too deeply nested)") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON ({error})") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is no number that can be computed with")
    return value


def _whole(digits: str) -> int:
    _finite(digits)
    return int(digits)


def _refuse_deep(content: Any) -> None:
    """Raises RecursionError for what functions that call themselves could not walk through."""
    level = [content]
    for _ in range(_MOST_LEVELS):
        inside = [item.values() if isinstance(item, dict) else item for item in level]
        level = [
            value
            for values in inside
            if not isinstance(values, str | int | float | None)
            for value in values
        ]
        if not level:
            return
    raise RecursionError


def check_shape(content: Any, shape: type[T]) -> T:
    """`content` as pydantic validates it against `shape`, strictly.

    Raises:
        ValueError: it is of another shape; the message names the first places and what is there.
    """
    try:
        return _adapter(shape).validate_python(content, strict=True)  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        places = [
            f"{'.'.join(map(str, detail['loc'])) or 'the whole'}: {detail['msg']}, "
            f"found {_short(detail['input'])}"
            for detail in error.errors(include_url=False)[:3]
        ]
        raise ValueError("; ".join(places)) from error


@functools.cache  # it compiles the shape, which takes longer than most checks
def _adapter(shape: type[T]) -> pydantic.TypeAdapter[T]:
    return pydantic.TypeAdapter(shape)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
