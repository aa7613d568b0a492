"""The exceptions that end a run: wrong input, a full disk, and a loss that is not a number."""

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The exit status of a command that found no room to write; EX_IOERR of sysexits.h.
DISK_FULL_STATUS = 74
_UNNAMED = "standard output, or a file that is not named"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As libraries in C++ pass them on, in a text.
_FULL_TEXT = re.compile("|".join(re.escape(os.strerror(number)) for number in _FULL))


class InputError(ValueError):
    """A file, flag or config field is wrong.

    The message names it, says what was found and what to do; `launch.py` prints it without a
    traceback.
    """


class DivergedError(FloatingPointError):
    """A loss or a parameter became NaN or infinite.

    Attributes:
        step: the training step where it was found.
        loss_name: the first loss that is not finite, or "parameters".
        checkpoint: the step of the last good checkpoint, or None.
    """

    def __init__(self, message: str, step: int, loss_name: str, checkpoint: int | None):
        super().__init__(message)
        self.step = step
        self.loss_name = loss_name
        self.checkpoint = checkpoint


class DiskFullError(OSError):
    """There is no room for a file: the disk is full, or a quota or a limit of file sizes reached.

    Takes errno, strerror and filename, as any OSError.
    """

    def __str__(self) -> str:
        return (
            f"{self.filename}: cannot be written ({self.strerror}). Make room, or choose another "
            "place; the same command then goes on. What was there before is as it was"
        )


def disk_full(error: BaseException, path: str | Path = "") -> DiskFullError | None:
    """A `DiskFullError` if that is why an exception was raised, or one that it came from; or None.

    Args:
        error: of this package, Python or a library in C++.
        path: what was written; by default what the exception names.
    """
    link: BaseException | None = error
    seen: list[BaseException] = []
    while link is not None and link not in seen:
        if isinstance(link, DiskFullError):
            return link
        seen.append(link)
        link = link.__cause__ or link.__context__
    for link in reversed(seen):
        if isinstance(link, OSError) and link.errno in _FULL:
            return DiskFullError(link.errno, link.strerror, str(path or link.filename or _UNNAMED))
        if found := _FULL_TEXT.search(str(link)):
            return DiskFullError(errno.ENOSPC, found[0], str(path or _UNNAMED))
    return None


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Raises `DiskFullError` with `path` for what a block raises where there is no room."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if full := disk_full(error, path):
            raise full from error
        raise


@contextlib.contextmanager
def one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Ends the process with a line on standard error for what its user can correct.

    Args:
        kinds: of exceptions that are told so; by default InputError, DivergedError and OSError. A
            full disk always is, and a closed pipe (`... | head`) ends the process without a word.

    Raises:
        SystemExit: with `DISK_FULL_STATUS` if there was no room to write, 141 for a closed pipe,
            else with a text, which Python prints, and status 1.
    """
    if not isinstance(sys.unraisablehook, _WithoutClosedLoops):
        sys.unraisablehook = _WithoutClosedLoops(sys.unraisablehook)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid UTF-8
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        _drop_output()
        raise SystemExit(141) from error
    except (InputError, DivergedError, OSError) as error:
        full = disk_full(error)
        if full is not None:
            _drop_output()
            with contextlib.suppress(OSError):  # it may be a file on the same disk
                print(f"error: {full if isinstance(error, OSError) else error}", file=sys.stderr)
            raise SystemExit(DISK_FULL_STATUS) from error
        if isinstance(error, kinds or (InputError, DivergedError, OSError)):
            raise SystemExit(f"error: {error}") from error
        raise


class _WithoutClosedLoops:
    """Says nothing of reads and writes that orbax abandons once the first of many has failed.

    Each of them, when it fails too, reports to an event loop that is closed by then: a page of
    traceback beside the line that says what happened.
    """

    def __init__(self, otherwise: Callable[[Any], object]) -> None:
        self._otherwise = otherwise

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._otherwise(unraisable)


def _drop_output() -> None:
    """Keeps Python from trying once more to print what it could not."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
