"""A training that goes on between the calls of a lease, until it is stopped.

    python -m benchmarks.device.training start WORK --warm=full -- --config=... --config.dtype=...
    python -m benchmarks.device.training finish WORK --seconds=200

`start` runs `launch.py` with these flags in a session of its own, its work directory WORK/run, its
output in WORK/training.log, and returns. --warm names those of DG-Net's two programs, before and
after the ramps, that are compiled into the cache beside it, while its teacher trains. `finish`
waits for its end, or after so many seconds sends SIGTERM, upon which it saves, and reports how far
it came. Each prints one JSON line. Only the standard library is used.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LOG, _STATE = "training.log", "training.json"
# Seconds in which a wrong flag or a missing file shows.
_WATCH = 20.0
# Seconds for a checkpoint after SIGTERM.
_SAVING = 60.0
_TAIL = 10


def run_folder(work: Path) -> Path:
    """The training's work directory."""
    return work / "run"


def is_running(pid: int, work: Path) -> bool:
    """Whether the process is there, is no zombie, and is the training of this folder."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(f"--workdir={run_folder(work)}") in command.split(b"\0")


def tail(work: Path) -> list[str]:
    """The last lines that it printed."""
    log = work / _LOG
    return log.read_text(errors="replace").splitlines()[-_TAIL:] if log.is_file() else []


def warm(work: Path, phases: Sequence[str], flags: Sequence[str]) -> None:
    """Starts the compilation of DG-Net's programs of these phases, in sessions of their own."""
    for phase in phases:
        command = [sys.executable, "benchmarks/step_time.py", "--steps=0", f"--phase={phase}"]
        with (work / f"warm_{phase}.log").open("w") as log:
            subprocess.Popen(
                [*command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def start(work: Path, flags: Sequence[str], watch: float = _WATCH) -> dict[str, Any]:
    """Starts the training; raises RuntimeError if it ends with an error at once."""
    command = [sys.executable, "launch.py", f"--workdir={run_folder(work)}", *flags]
    with (work / _LOG).open("a") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (work / _STATE).write_text(json.dumps({"pid": process.pid, "started": time.time()}))
    try:
        code = process.wait(watch)
    except subprocess.TimeoutExpired:
        return {"pid": process.pid, "running": True, "flags": list(flags)}
    if code:
        raise RuntimeError(f"launch.py ended with {code}: " + "\n".join(tail(work)))
    return {"pid": process.pid, "running": False, "flags": list(flags)}


def finish(work: Path, seconds: float) -> dict[str, Any]:
    """Waits for the end of the training, or stops it after so many seconds.

    Raises:
        RuntimeError: none was started, or it has logged no step.
    """
    try:
        pid = json.loads((work / _STATE).read_text())["pid"]
    except (OSError, ValueError, KeyError) as error:
        raise RuntimeError(f"no training was started in {work} ({error})") from error
    how = "ended"
    deadline = time.monotonic() + seconds
    while is_running(pid, work) and time.monotonic() < deadline:
        time.sleep(0.2)
    for number, patience in ((signal.SIGTERM, _SAVING), (signal.SIGKILL, 10.0)):
        if not is_running(pid, work):
            break
        how = f"stopped by {number.name}"
        os.kill(pid, number)
        deadline = time.monotonic() + patience
        while is_running(pid, work) and time.monotonic() < deadline:
            time.sleep(0.1)
    rows = last_rows(run_folder(work) / "metrics.jsonl")
    if not rows:
        raise RuntimeError("the training has logged no step: " + "\n".join(tail(work)))
    return {"how": how, "last": rows, "tail": tail(work)}


def last_rows(metrics: Path) -> dict[str, dict[str, Any]]:
    """The last row of losses of each stage in a `metrics.jsonl`."""
    found: dict[str, dict[str, Any]] = {}
    if metrics.is_file():
        for line in metrics.read_text().splitlines():
            row = json.loads(line)
            if row.get("kind") == "train":
                found[row["stage"]] = row
    return found


def main(argv: Sequence[str]) -> None:
    """The command."""
    own, flags = list(argv), []
    if "--" in own:
        flags = own[own.index("--") + 1 :]
        own = own[: own.index("--")]
    parser = argparse.ArgumentParser("python -m benchmarks.device.training", description=__doc__)
    parser.add_argument("what", choices=["start", "finish"])
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--warm", action="append", default=[], choices=["start", "full"], help="start: compile it"
    )
    parser.add_argument("--seconds", type=float, default=_WATCH, help="finish: how long to wait")
    arguments = parser.parse_args(own)
    work = arguments.work.absolute()
    try:
        if arguments.what == "start":
            warm(work, arguments.warm, flags)
            row = start(work, flags)
        else:
            row = finish(work, arguments.seconds)
    except RuntimeError as error:
        parser.exit(1, f"error: {error}\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
