"""How far a study is, how long it will take, and how long each run has taken."""

import sys
import time
from pathlib import Path
from typing import Annotated, Self, TextIO

import jax
import pydantic
from absl import logging
from tqdm import tqdm
from typing_extensions import TypedDict

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.atomic import write_json
from dgnet_jax.runtime.reading import Number, read_json

WALL_TIME_FILE = "wall_time.json"


class _Seconds(TypedDict):
    wall_seconds: Annotated[Number, pydantic.Field(ge=0)]


class StudyProgress:
    """Counts the training steps of all runs: a bar on a terminal, a line now and then elsewhere.

    The time left is the steps left at the mean speed so far, which holds compilation, evaluation
    and measuring; it is fair once a whole run is over.
    """

    def __init__(
        self,
        runs: int,
        steps: int,
        *,
        finished: int = 0,
        silent: bool = False,
        seconds_between_lines: float = 60.0,
        stream: TextIO | None = None,
        name: str = "study",
    ) -> None:
        """Starts the clock.

        Args:
            runs: of the study, or of this shard.
            steps: of one run.
            finished: runs that were over before.
            silent: shows nothing, as all processes of a run but the first.
            seconds_between_lines: where there is no terminal.
            stream: standard error by default.
            name: what the lines begin with.
        """
        self._whole = name
        self._runs, self._steps = runs, steps
        self._over = finished
        # Steps of runs that are over, of the present one, and those that cost no time here.
        self._before, self._here, self._free = finished * steps, 0, finished * steps
        self._began_at: int | None = None
        self._name = ""
        self._started, self._printed = time.monotonic(), time.monotonic()
        self._seconds_between_lines = seconds_between_lines
        self._stream = stream or sys.stderr
        self._silent = silent
        self._bar = None
        if not silent and self._stream.isatty():
            self._bar = tqdm(
                total=runs * steps,
                initial=self._before,
                unit="step",
                file=self._stream,
                smoothing=0,
                dynamic_ncols=True,
            )

    @property
    def seconds_left(self) -> float | None:
        """None before the first step."""
        done = self._before + self._here
        if done <= self._free:
            return None
        pace = (time.monotonic() - self._started) / (done - self._free)
        return pace * (self._runs * self._steps - done)

    @property
    def line(self) -> str:
        """Such as "study: run 3 of 24 (rmse, seed 1) | 10 % of all steps | left 02:10:00"."""
        total = self._runs * self._steps
        share = (self._before + self._here) / total if total else 1.0
        left = self.seconds_left
        return (
            f"{self._whole}: run {min(self._over + 1, self._runs)} of {self._runs}{self._name} | "
            f"{share:.0%} of all steps | left {'?' if left is None else tqdm.format_interval(left)}"
        )

    def begin(self, label: str, seed: int) -> None:
        """A run starts, or goes on."""
        self._name = f" ({label}, seed {seed})"
        self._began_at, self._here = None, 0
        self._show(now=True)

    def step(self, done: int) -> None:
        """The present run has `done` steps behind it; the first call says where it goes on."""
        if self._began_at is None:
            self._began_at = done
            self._free += done
        self._here = done
        self._show(now=False)

    def end(self) -> None:
        """The present run is over; steps that it did not come to, for it diverged, are free."""
        self._free += self._steps - self._here
        self._before += self._steps
        self._here, self._over, self._name = 0, self._over + 1, ""
        if self._bar is not None or self._over == self._runs:
            self._show(now=True)

    def skip(self) -> None:
        """The present run is another process's."""
        self._here = 0
        self.end()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _show(self, now: bool) -> None:
        if self._bar is not None:
            self._bar.set_description_str(
                f"{self._whole} {min(self._over + 1, self._runs)}/{self._runs}{self._name}",
                refresh=False,
            )
            self._bar.initial = self._free
            self._bar.update(self._before + self._here - self._bar.n)
            if now:
                self._bar.refresh()
        elif not self._silent:
            clock = time.monotonic()
            if now or clock - self._printed >= self._seconds_between_lines:
                self._printed = clock
                print(self.line, file=self._stream, flush=True)


class WallTime:
    """The time that a run has taken over all its restarts, kept in its folder.

    A killed process loses what came after the last `save`.
    """

    def __init__(self, folder: Path, every: float = 30.0) -> None:
        """Starts the clock.

        Args:
            folder: the run's work directory; nothing is written before it is there.
            every: seconds between writes.
        """
        self._file, self._every = folder / WALL_TIME_FILE, every
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
            write_json(self._file, {"wall_seconds": round(self.seconds, 1)}, indent=None)

    def _read(self) -> float:
        try:
            seconds = read_json(self._file, _Seconds, "The time is counted from now on.")
        except (FileNotFoundError, NotADirectoryError):
            return 0.0
        except InputError as error:
            logging.warning("%s", error)
            return 0.0
        return seconds["wall_seconds"]
