"""What TensorBoard shows of a stage."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dgnet_jax.errors import naming

# Between writes of what TensorBoard shows.
_FLUSH_SECONDS = 30.0


@contextmanager
def _without_torch() -> Iterator[None]:
    """Imports inside do not find PyTorch.

    tensorboardX imports it where it can, for tensors that it never gets here: 2.3 of the 6 seconds
    that a training took to its first line.
    """
    hides = "torch" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hides:
            del sys.modules["torch"]


with _without_torch():
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog


class Board:
    """TensorBoard's file of a stage.

    It is written by who calls, not by a thread of tensorboardX: that one ends on a full disk, and
    the training then waits for it without end.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Opens a new file; TensorBoard is to forget the steps from `purge_step` on."""
        self._folder, self._flushed = folder, time.monotonic()
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))
        self._add(step=purge_step, file_version="brain.Event:2")
        self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, name: str, value: float, step: int) -> None:
        self._add(step=step, summary=summary.scalar(name, value))

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        self._add(step=step, summary=summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        with naming(self._folder):
            self._events.close()

    def _add(self, **fields: Any) -> None:
        with naming(self._folder):
            self._events.write_event(Event(wall_time=time.time(), **fields))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()
