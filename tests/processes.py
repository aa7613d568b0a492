"""Training runs of `launch.py` with the tiny configuration, each in a process of its own."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver
from compilation import FAST_FLAGS

from dgnet_jax.data.synthetic import draw_dataset

REPOSITORY = Path(__file__).parents[1]
# Numbers of a row that differ from run to run.
TIMES = ("images_per_second", "data_share")
# Seconds; with other programs beside it a compilation takes minutes.
PATIENCE = 900


def free_port() -> int:
    """A port that nothing listens to."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def draw_tiny_data(root: Path) -> None:
    """A drawn data set of five training people."""
    draw_dataset(
        root,
        train_identities=5,
        test_identities=3,
        images_per_identity_camera=2,
        distractors=2,
        junk=2,
        height=32,
        width=16,
    )


def tiny_data(factory: pytest.TempPathFactory) -> Path:
    """The folder of the drawn data set, made once a session."""
    root = factory.getbasetemp() / "people" / "data"
    draw_tiny_data(root)
    return root


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder, at any depth."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Run(subprocess.Popen):
    """A process whose standard error goes to a file."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("w") as stream:
            super().__init__(
                [sys.executable, "launch.py", *arguments],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def end(self) -> int:
        """Waits for its end."""
        try:
            return self.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {PATIENCE} s:\n{self.said()}") from None

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Returns as soon as something has happened; fails if the process ends before it."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.poll() is None, f"ended with {self.returncode}:\n{self.said()}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.said()}"
            time.sleep(0.005)


def run_two(program: list[str], *arguments: str) -> list[str]:
    """What `python PROGRAM 0 PORT ARGUMENTS` and `python PROGRAM 1 PORT ARGUMENTS` print."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, *program, str(rank), port, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [out for out, _ in outputs]


def end_together(runs: list[Run]) -> list[int]:
    """Waits for the end of all processes; ends all if one of them does not come to its own."""
    try:
        return [run.end() for run in runs]
    finally:
        for run in runs:
            run.kill()


def simulated(devices: int) -> dict[str, str]:
    """The environment of a process that sees so many devices, and compiles fast."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{FAST_FLAGS} --xla_force_host_platform_device_count={devices}",
    }


def run_script(
    script: str, *arguments: str, devices: int, environment: dict[str, str] | None = None
) -> str:
    """What a Python file of the repository prints; it has to come to a good end."""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=REPOSITORY,
        env={**simulated(devices), "PYTHONPATH": path, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Ended(NamedTuple):
    """How a command line ended: its exit code, and what it printed."""

    code: int
    said: str


def launch_here(arguments: Sequence[str]) -> Ended:
    """What `python launch.py ARGUMENTS` comes to, without a process of its own.

    An exception that a process would end with in a traceback is raised, and `said` has no lines of
    the log.
    """
    import launch

    printed = io.StringIO()
    argv = ["launch.py", *arguments]
    code: object = 0
    with (
        contextlib.chdir(REPOSITORY),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        # Where config_flags looks for the fields that are set.
        patch.object(sys, "argv", argv),
        flagsaver.flagsaver(),
    ):
        try:
            absl_flags.FLAGS.unparse_flags()
            launch.run(launch.parse_flags(argv))
        except SystemExit as ended:
            code = ended.code
    if isinstance(code, str):  # Python itself prints it, and exits with 1
        print(code, file=printed)
        code = 1
    assert isinstance(code, int)
    return Ended(code, printed.getvalue())


def refusal(arguments: Sequence[str]) -> str:
    """The message that `launch.py` ends with, on one line or more; fails if it ends well."""
    return _message(launch_here(arguments))


def launches(
    command_lines: Sequence[Sequence[str]],
    devices: int,
    environment: dict[str, str] | None = None,
) -> list[Ended]:
    """How they end, one after another in one process that sees so many devices."""
    lines = json.dumps(command_lines)
    return _ends(run_script("tests/launches.py", lines, devices=devices, environment=environment))


def refusals(command_lines: Sequence[Sequence[str]], devices: int) -> list[str]:
    """`refusal` of each, in one process that sees so many devices."""
    return [_message(ended) for ended in launches(command_lines, devices)]


def refusals_of_two(command_lines: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """`refusal` of each by the first and by the second of two processes, which run all of them."""
    printed = run_two(["tests/launches.py"], json.dumps(command_lines))
    first, second = (map(_message, _ends(text)) for text in printed)
    return list(zip(first, second, strict=True))


def _ends(printed: str) -> list[Ended]:
    return [Ended(*ended) for ended in json.loads(printed.splitlines()[-1])]


def _message(ended: Ended) -> str:
    assert ended.code == 1 and "error: " in ended.said, ended.said
    return ended.said


class Launcher:
    """Starts runs of launch.py; they share the compilation cache that conftest.py makes."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.data = tiny_data(factory)
        self._logs = factory.mktemp("logs")
        self._count = 0

    def start(
        self,
        workdir: Path,
        *flags: str,
        devices: int = 1,
        config: str | None = "tests/tiny.py",
        environment: dict[str, str] | None = None,
    ) -> Run:
        """Starts launch.py; `flags` come last."""
        self._count += 1
        log = self._logs / f"{self._count}.txt"
        variables = {**simulated(devices), **(environment or {})}
        return Run(self.arguments(workdir, *flags, config=config), log, variables)

    def arguments(
        self, workdir: Path, *flags: str, config: str | None = "tests/tiny.py"
    ) -> list[str]:
        """The command line of a run on the drawn data; `flags` come last."""
        first = [f"--workdir={workdir}"]
        if config is not None:
            first += [f"--config={config}", f"--config.data.root={self.data}"]
        return [*first, *flags]

    def refusal(self, workdir: Path, *flags: str, config: str | None = "tests/tiny.py") -> str:
        """What a command line that cannot start ends with, without a process of its own."""
        return refusal(self.arguments(workdir, *flags, config=config))

    def start_two(self, workdir: Path, *flags: str, **options: Any) -> list[Run]:
        """Starts the two processes of one run."""
        flags = (*flags, f"--coordinator_address=localhost:{free_port()}", "--num_processes=2")
        return [
            self.start(workdir, *flags, f"--process_id={index}", **options) for index in range(2)
        ]

    def finish(self, workdir: Path, *flags: str, **options: Any) -> Run:
        """Runs to the end, which has to be a good one."""
        run = self.start(workdir, *flags, **options)
        assert run.end() == 0, run.said()
        return run


def rows(workdir: Path) -> dict[tuple[str, str, int], dict[str, float]]:
    """The rows of metrics.jsonl by kind, stage and step, without what differs from run to run."""
    found = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        key = row.pop("kind"), row.pop("stage"), row.pop("step")
        assert key not in found, f"{key} is in the log twice"
        found[key] = {name: value for name, value in row.items() if name not in TIMES}
    return found


def saved_steps(workdir: Path, stage: str) -> list[int]:
    """The complete checkpoints of a stage."""
    folder = workdir / stage / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
