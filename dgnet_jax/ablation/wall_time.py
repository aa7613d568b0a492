"""How long a run has taken, over all its restarts."""

import json
import time
from pathlib import Path

import jax

from dgnet_jax.runtime.atomic import replacing

FILE = "wall_time.json"


class WallTime:
    """Goes on from what the folder says; a killed process loses what came after the last `save`."""

    def __init__(self, folder: Path, every: float = 30.0) -> None:
        """Starts the clock.

        Args:
            folder: the run's work directory; nothing is written before it is there.
            every: seconds between writes.
        """
        self._file, self._every = folder / FILE, every
        self._earlier = self._read()
        self._started = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all processes so far."""
        return self._earlier + time.monotonic() - self._started

    def save(self, now: bool = False) -> None:
        """Writes the time, if it is due or to be done now."""
        clock = time.monotonic()
        due = now or clock - self._saved >= self._every
        if due and jax.process_index() == 0 and self._file.parent.is_dir():
            self._saved = clock
            with replacing(self._file) as temporary:
                temporary.write_text(json.dumps({"wall_seconds": round(self.seconds, 1)}) + "\n")

    def _read(self) -> float:
        try:
            return float(json.loads(self._file.read_text())["wall_seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0
