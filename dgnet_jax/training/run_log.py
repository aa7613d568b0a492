"""The log of a run: metrics.jsonl, TensorBoard and a progress line, from the first process only."""

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TextIO

import jax
import numpy as np
import pydantic
from tqdm import tqdm
from typing_extensions import TypedDict

from dgnet_jax.errors import DivergedError, InputError, naming
from dgnet_jax.runtime.atomic import replacing
from dgnet_jax.runtime.reading import (
    TABLE_BYTES,
    Count,
    Number,
    check_shape,
    parse_json,
    read_bytes,
)
from dgnet_jax.training.board import Board

METRICS_FILE = "metrics.jsonl"


class _Row(TypedDict):
    """What every row has; the rest are numbers, and the names of those that were not finite."""

    __pydantic_config__ = pydantic.ConfigDict(extra="allow")  # type: ignore[misc]

    kind: Literal["train", "evaluation"]
    stage: str
    step: Count
    non_finite: NotRequired[str]


def parse_row(line: str | bytes) -> Mapping[str, Any]:
    """A row of metrics.jsonl.

    Raises:
        ValueError: it is something else.
    """
    row: Mapping[str, Any] = check_shape(parse_json(line), _Row)
    numbers = {name: value for name, value in row.items() if name not in _Row.__annotations__}
    check_shape(numbers, dict[str, Number | None])
    return row


class RunLog:
    """Logs one stage ("teacher" or "dgnet") of a run; a context manager.

    Rows of `metrics.jsonl` are JSON objects with `kind` ("train" or "evaluation"), `stage`, `step`
    and one field per number. A number that is not finite is null and named in `non_finite`.
    """

    def __init__(
        self,
        workdir: str | Path,
        total_steps: int,
        *,
        stage: str = "dgnet",
        resume_step: int | None = None,
        shown: Sequence[str] | None = None,
        seconds_between_lines: float = 30.0,
        stream: TextIO | None = None,
    ):
        """Opens the log, after removing what a lost run wrote beyond the step to resume from.

        Args:
            workdir: gets `metrics.jsonl` and `tensorboard/<stage>`.
            total_steps: the last step of the stage.
            stage: rows of other stages are left alone.
            resume_step: the step of the restored checkpoint; later rows of the stage are removed.
                None starts the stage afresh, without any earlier row of it.
            shown: the losses of the progress line; by default all.
            seconds_between_lines: how often a plain line is printed where there is no terminal.
            stream: of the progress line; standard error by default.
        """
        self._active = jax.process_index() == 0
        self._stage, self._total, self._shown = stage, total_steps, shown
        self._start_step = resume_step or 0
        self._evaluated: set[int] = set()
        if not self._active:
            return
        path = Path(workdir) / METRICS_FILE
        keep_until = -1 if resume_step is None else resume_step
        if path.exists():
            self._evaluated = _truncate(path, stage, keep_until)
        self._path, self._file = path, path.open("a", encoding="utf-8", buffering=1)
        self._board = Board(Path(workdir) / "tensorboard" / stage, keep_until + 1)
        self._stream = stream or sys.stderr
        self._seconds_between_lines = seconds_between_lines
        self._printed = -math.inf
        self._first: tuple[int, float] | None = None
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total_steps,
                initial=self._start_step,
                desc=stage,
                unit="step",
                file=self._stream,
                dynamic_ncols=True,
            )

    def train(
        self,
        step: int,
        losses: Mapping[str, float],
        inactive: Mapping[str, str] | None = None,
        images_per_second: float | None = None,
        data_share: float | None = None,
    ) -> None:
        """Logs a training step.

        Args:
            step: the number of finished steps.
            losses: by name; also other numbers of the step, such as learning rates.
            inactive: losses that do not act yet and until when, as {"teacher": "until step 30003"}.
                They are left out of the numbers.
            images_per_second: the throughput.
            data_share: the share of the step, 0 to 1, spent on waiting for data.
        """
        if not self._active:
            return
        inactive = inactive or {}
        active = {name: float(value) for name, value in losses.items() if name not in inactive}
        speed = {"images_per_second": images_per_second, "data_share": data_share}
        known = {name: float(value) for name, value in speed.items() if value is not None}
        self._write("train", step, {**known, **active})
        now = time.monotonic()
        self._first = self._first or (step, now)
        line = self._describe(active, inactive, images_per_second, data_share)
        if self._bar is not None:
            self._bar.set_postfix_str(line, refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._printed >= self._seconds_between_lines or step == self._total:
            self._printed = now
            self._print(f"{self._stage} {step}/{self._total} | ETA {self._eta(step, now)} | {line}")

    def evaluation(self, step: int, metrics: Mapping[str, float], stage: str | None = None) -> None:
        """Logs an evaluation; `metrics` has `rank1`, `rank5`, `rank10`, `mAP`, ... of 0 to 1."""
        if not self._active:
            return
        stage = stage or self._stage
        self._write(
            "evaluation", step, {name: float(value) for name, value in metrics.items()}, stage
        )
        if stage == self._stage:
            self._evaluated.add(step)
        figures = [
            f"{name} {100 * metrics[name]:.2f} %"
            for name in ("rank1", "rank5", "rank10", "mAP")
            if name in metrics
        ]
        figures += [
            f"{name.replace('_', ' ')} {metrics[name]:.3f}"
            for name in ("appearance_transfer", "structure_kept")
            if name in metrics
        ]
        self._print(f"{stage} step {step} evaluated: {', '.join(figures) or _pairs(metrics)}")

    def evaluated(self, step: int) -> bool:
        """Whether this stage's log has an evaluation at `step` already (from before a resume)."""
        return step in self._evaluated

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows an image, (height, width, 3) uint8, in TensorBoard."""
        if self._active:
            self._board.image(name, image, step)

    def close(self) -> None:
        """Writes out what is pending.

        Raises:
            DiskFullError: there is no room for it.
        """
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
        try:
            self._board.close()
        finally:
            with naming(self._path):
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(
        self, kind: str, step: int, numbers: Mapping[str, float], stage: str | None = None
    ) -> None:
        row: dict[str, Any] = {"kind": kind, "stage": stage or self._stage, "step": int(step)}
        clash = row.keys() & numbers.keys()
        if clash:
            raise ValueError(f"{sorted(clash)} are fields of every row; rename these numbers")
        for name, value in numbers.items():
            row[name] = value if math.isfinite(value) else None
            self._board.scalar(f"{kind}/{name}", value, step)
        odd = {name: str(value) for name, value in numbers.items() if not math.isfinite(value)}
        if odd:
            row["non_finite"] = ", ".join(f"{name}={value}" for name, value in odd.items())
        with naming(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def _describe(
        self,
        active: Mapping[str, float],
        inactive: Mapping[str, str],
        images_per_second: float | None,
        data_share: float | None,
    ) -> str:
        chosen = (
            active if self._shown is None else {n: active[n] for n in self._shown if n in active}
        )
        parts = []
        if images_per_second is not None:
            parts.append(f"{images_per_second:.1f} images/s")
        if data_share is not None:
            parts.append(f"data {100 * data_share:.0f} %")
        if chosen:
            parts.append(_pairs(chosen))
        by_reason: dict[str, list[str]] = {}
        for name, reason in inactive.items():
            by_reason.setdefault(reason, []).append(name)
        parts += [f"{', '.join(names)}: inactive {reason}" for reason, names in by_reason.items()]
        return " | ".join(parts)

    def _eta(self, step: int, now: float) -> str:
        """Time left at the mean speed since the first logged step, which holds the compilation."""
        first_step, first_time = self._first or (step, now)
        if step <= first_step:
            return "?"
        return tqdm.format_interval((self._total - step) * (now - first_time) / (step - first_step))

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)


def check_finite(
    step: int, losses: Mapping[str, float], last_checkpoint: Callable[[], int | None]
) -> None:
    """Raises DivergedError if a loss of `step` is NaN or infinite.

    Args:
        step: the training step.
        losses: by name.
        last_checkpoint: gives the step of the last good checkpoint, for the message. It is called
            only then, since it waits for a save in progress.
    """
    odd = {name: float(v) for name, v in losses.items() if not math.isfinite(float(v))}
    if not odd:
        return
    last = last_checkpoint()
    state = (
        f"The last good checkpoint is of step {last}"
        if last is not None
        else "There is no checkpoint yet"
    )
    raise DivergedError(
        f"step {step}: {_pairs(odd)}: the training diverged. {state}. Lower the learning rate, "
        "lengthen the warm-up, or use float32 if this was bfloat16.",
        step,
        next(iter(odd)),
        last,
    )


def _pairs(numbers: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _truncate(path: Path, stage: str, last_step: int) -> set[int]:
    """Removes the stage's rows beyond `last_step` and broken lines; returns evaluated steps."""
    evaluated, broken = set(), 0
    try:
        old = read_bytes(path, TABLE_BYTES).splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}). Move it away; the log then "
            "begins anew"
        ) from error
    with replacing(path) as temporary, temporary.open("wb") as new:
        for line in old:
            try:
                row = parse_row(line)
            except ValueError:
                broken += 1
                continue
            if row["stage"] == stage and row["step"] > last_step:
                continue
            new.write(line + b"\n")
            if row["stage"] == stage and row["kind"] == "evaluation":
                evaluated.add(row["step"])
    if broken:
        logging.warning("%s: dropped %d broken line(s), cut short by a kill", path, broken)
    return evaluated
