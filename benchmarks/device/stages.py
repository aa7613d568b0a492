"""Runs the stages of a lease: each in processes of its own, with a time limit of its own.

What a stage measures it prints as JSON, an object a line; each goes to the results at once. Only
the standard library is used: on a fresh machine nothing else may be there yet.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Seconds that a stage has to end after SIGTERM.
GRACE = 10.0
# Of the output of a stage that failed, lines that stand in its result.
_TAIL = 15
_POLL = 0.2

Row = dict[str, Any]
# Processes of stages that have not ended.
_live: set[int] = set()


class Results:
    """Rows of results: printed, and appended to files that are complete after every row.

    Attributes:
        rows: those of this process.
    """

    def __init__(self, files: Sequence[Path], log: Path) -> None:
        """`files`: JSON Lines; `log`: gets all other output of stages."""
        self.rows: list[Row] = []
        self._files, self._log = files, log
        self._lock = threading.Lock()

    def add(self, row: Row) -> None:
        """Prints and appends a row."""
        line = json.dumps(row)
        with self._lock:
            self.rows.append(row)
            print(line, flush=True)
            for file in self._files:
                _append(file, line)

    def note(self, stage: str, line: str) -> None:
        """Appends a line of a stage's other output to the log."""
        with self._lock:
            _append(self._log, f"{stage}: {line}")

    def of(self, stage: str) -> Row:
        """The last row that a stage measured, or {}."""
        found = [row for row in self.rows if row["stage"] == stage and "status" not in row]
        return found[-1] if found else {}


def _append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


@dataclass(frozen=True)
class Stage:
    """One or several commands, the next only if the one before succeeded.

    Attributes:
        name: in the results.
        commands: argument lists, run in the repository's root.
        limit: seconds for all of them.
        environment: variables besides those of this process.
        adjust: adds what follows from other results to a measured row.
    """

    name: str
    commands: Sequence[Sequence[str]]
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)
    adjust: Callable[[Row], Row] = lambda row: row


@dataclass
class Turn:
    """When a stage that has prepared itself may go on, and until when.

    Attributes:
        file: the stage waits until it exists.
        ready: it has printed a row with "ready": true, or has ended.
        deadline: of `time.monotonic()`.
    """

    file: Path
    ready: threading.Event = field(default_factory=threading.Event)
    deadline: float = float("inf")


def run_stage(
    stage: Stage,
    results: Results,
    root: Path,
    until: float = float("inf"),
    turn: Turn | None = None,
) -> str:
    """Runs a stage and reports how it ended: "ok", "failed", "timeout" or "skipped".

    Args:
        root: the repository.
        until: of `time.monotonic()`, when it has to be over whatever its own limit is.
        turn: the stage's limit holds until it is ready; then that of its turn.
    """
    started = time.monotonic()
    turn = turn or Turn(Path())
    turn.deadline = min(started + stage.limit, until)
    if turn.deadline - started < 1:
        turn.ready.set()
        results.add({"stage": stage.name, "status": "skipped", "reason": "no time is left"})
        return "skipped"
    status, code = "ok", 0
    tail: deque[str] = deque(maxlen=_TAIL)
    for command in stage.commands:
        status, code = _run(command, stage, results, root, turn, tail)
        if status != "ok":
            break
    turn.ready.set()
    row: Row = {
        "stage": stage.name,
        "status": status,
        "seconds": round(time.monotonic() - started, 1),
    }
    if status != "ok":
        row |= {"exit_code": code, "limit": round(turn.deadline - started, 1), "tail": list(tail)}
    results.add(row)
    return status


def run_together(
    stages: Sequence[Stage], results: Results, root: Path, until: float = float("inf")
) -> None:
    """Runs stages at the same time; returns when all have ended."""
    threads = [
        threading.Thread(target=run_stage, args=(stage, results, root, until), daemon=True)
        for stage in stages
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_in_turns(
    stages: Sequence[tuple[Stage, Path | None]],
    limit: float,
    results: Results,
    root: Path,
    until: float = float("inf"),
    *,
    at_once: int,
    ready_until: float = float("inf"),
) -> None:
    """Lets stages prepare themselves, some at the same time, then go on one by one, alone.

    Args:
        stages: in the order in which they begin, each with the file that it waits for once it has
            printed {"ready": true, ...}; its own limit is that of the preparation. One with None
            has no turn: it is all preparation.
        limit: seconds of a turn.
        results, root, until: as of `run_stage`.
        at_once: how many prepare themselves at the same time; the next begins when one is ready.
        ready_until: of `time.monotonic()`, when those that are not ready are ended.
    """
    slots = threading.Semaphore(at_once)

    def run(stage: Stage, turn: Turn) -> None:
        run_stage(stage, results, root, min(until, ready_until), turn)

    def release(turn: Turn) -> None:
        turn.ready.wait()
        slots.release()

    begun = []
    for stage, file in stages:
        turn = Turn(file or Path())
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
        slots.acquire()
        thread = threading.Thread(target=run, args=(stage, turn), daemon=True)
        thread.start()
        threading.Thread(target=release, args=(turn,), daemon=True).start()
        begun.append((turn, thread, file))
    for turn, _, _ in begun:
        turn.ready.wait()
    for turn, thread, file in begun:
        if file is not None:
            turn.deadline = min(time.monotonic() + limit, until)
            file.touch()
        thread.join()


def _run(
    command: Sequence[str],
    stage: Stage,
    results: Results,
    root: Path,
    turn: Turn,
    tail: deque[str],
) -> tuple[str, int]:
    try:
        # A group of its own, so that its children end with it; in this session, so that all of
        # them end where the end of a session's first command ends the session.
        process = subprocess.Popen(
            list(command),
            cwd=root,
            env={**os.environ, **stage.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
    except OSError as error:
        tail.append(str(error))
        return "failed", -1

    _live.add(process.pid)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            row = _measured(line)
            if row is None:
                tail.append(line.rstrip())
                results.note(stage.name, line.rstrip())
            else:
                if row.get("ready"):
                    turn.deadline = float("inf")
                    turn.ready.set()
                results.add({"stage": stage.name} | stage.adjust(row))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    status = "ok"
    while True:
        try:
            code = process.wait(_POLL)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() >= turn.deadline:
                status, code = "timeout", _end(process)
                break
    _live.discard(process.pid)
    # A child that outlives it may hold the pipe open.
    reader.join(5)
    if status == "ok" and code != 0:
        status = "failed"
    return status, code


def _end(process: subprocess.Popen[str]) -> int:
    """Ends a process with its children: politely, then by force."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 30.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    return -1


def end_all() -> None:
    """Ends all stages at once, by force."""
    for pid in list(_live):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _measured(line: str) -> Row | None:
    if not line.startswith("{"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
