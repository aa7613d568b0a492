"""What only the first process does, and what goes wrong there, is every process's."""

import fcntl
import signal
import socket
import textwrap
from pathlib import Path

import pytest
from processes import Run, end_together, free_port, refusals, refusals_of_two, run_two
from trained import save_run

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.devices import join_processes, on_first_process
from dgnet_jax.runtime.workdir import LOCK_FILE


@pytest.fixture
def file(tmp_path) -> Path:
    """A file where a folder is needed."""
    path = tmp_path / "file"
    path.touch()
    return path


def the_error(runs: list[Run]) -> str:
    """The message that both processes end with, and nothing else of an error."""
    codes = end_together(runs)
    said = [run.said() for run in runs]
    assert codes == [1, 1], said
    assert all("Traceback" not in text for text in said), said
    messages = {text[text.rindex("error: ") :].strip() for text in said}
    assert len(messages) == 1, said
    return messages.pop()


def test_in_a_single_process_it_is_a_call():
    assert on_first_process(lambda: "done") == "done"
    with pytest.raises(ZeroDivisionError):
        on_first_process(lambda: 1 // 0)


def test_results_and_errors_of_the_first_process_are_every_process_s():
    program = textwrap.dedent(
        """
        import sys
        import jax
        rank, port = map(int, sys.argv[1:])
        jax.distributed.initialize(f"localhost:{port}", 2, rank)
        from dgnet_jax.errors import InputError, disk_full
        from dgnet_jax.runtime.devices import on_first_process
        from dgnet_jax.runtime.workdir import InUseError

        def work(answer):
            print("works", flush=True)
            if isinstance(answer, Exception):
                raise answer from answer.__cause__
            return answer

        told_of_a_full_disk = InputError("make room")
        told_of_a_full_disk.__cause__ = OSError(28, "disk full")

        result = on_first_process(lambda: work({"long": "é" * 3000, "rank": rank}))
        print(len(result["long"]), result["rank"])
        for error in (
            InUseError("held"),
            ValueError("odd"),
            OSError(28, "disk full", "log"),
            told_of_a_full_disk,
        ):
            try:
                on_first_process(lambda: work(error))
            except Exception as found:
                print(f"{type(found).__name__}, disk full: {bool(disk_full(found))}")
                print(str(found).split(".")[0])
        print(on_first_process(lambda: work(rank)))
        """
    )
    first, second = (
        [line for line in out.splitlines() if "Gloo" not in line]
        for out in run_two(["-c", program])
    )
    assert [line for line in first if line != "works"] == [
        "3000 0",
        *("InUseError, disk full: False", "held"),
        *("ValueError, disk full: False", "odd"),
        *("OSError, disk full: True", "[Errno 28] disk full: 'log'"),
        *("InputError, disk full: True", "make room"),
        "0",
    ]
    assert first.count("works") == 6
    assert second == [
        "3000 0",
        *("InUseError, disk full: False", "held"),
        *("RuntimeError, disk full: False", "the first process met ValueError: odd"),
        *("DiskFullError, disk full: True", "log: cannot be written (disk full)"),
        *("InputError, disk full: True", "make room"),
        "0",
    ]


@pytest.mark.slow
def test_training_on_a_data_set_that_cannot_be_drawn_ends_everywhere(launcher, tmp_path, file):
    flags = [f"--config.data.root={tmp_path}", "--config.data.name=quickstart"]
    runs = launcher.start_two(tmp_path / "run", *flags, config="configs/quickstart.py:l1")
    message = the_error(runs)
    assert message.startswith(f"error: {tmp_path}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_the_first_process_cannot_do_with_files_ends_everywhere(launcher, tmp_path, file):
    """A folder in use; an evaluation, generated images and a study that cannot be written."""
    trained = tmp_path / "trained"
    save_run(trained, {"data.root": str(launcher.data)})
    # The steps that are traced before the folders are looked at have few terms.
    few_terms = "--config.ramp.start=50"
    used = tmp_path / "used"
    used.mkdir()

    def of_trained(*flags: str) -> list[str]:
        return launcher.arguments(trained, *flags, config=None)

    expected = {
        f"{used}: another process is training in it (unknown)": (
            launcher.arguments(used, few_terms)
        ),
        f"--output={file}/found.json: cannot be written": (
            of_trained("--mode=evaluate", f"--output={file}/found.json")
        ),
        f"--output: {file}/x/swap.png cannot be written": (
            of_trained("--mode=generate", f"--output={file}/x", "--task=swap", "--count=2")
        ),
        f"{file}/x: Not a directory after 0 of": (
            of_trained("--mode=generate", f"--output={file}/x", "--task=dataset", "--count=4")
        ),
        f"--workdir={file}/study: cannot be written to": launcher.arguments(
            file / "study", "--mode=ablate", "--losses=l1", few_terms
        ),
    }
    with (used / LOCK_FILE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = refusals_of_two(list(expected.values()))
    for message, (first, second) in zip(expected, found, strict=True):
        # What else the first one prints is its own.
        assert first[first.rindex("error: ") :] == second[second.rindex("error: ") :]
        assert second.splitlines()[-1].startswith(f"error: {message}")


@pytest.mark.slow
def test_processes_that_cannot_join_are_told_why_in_time(launcher, tmp_path):
    """A coordinator out of reach; none at all on a machine of no cluster."""
    with socket.socket() as silent:
        silent.bind(("localhost", 0))  # takes the port, and does not listen
        port = silent.getsockname()[1]
        flags = [
            f"--coordinator_address=localhost:{port}",
            "--num_processes=2",
            "--process_id=1",
            "--initialization_timeout=2",
        ]
        lines = [
            launcher.arguments(tmp_path / "run", *flags),
            launcher.arguments(tmp_path / "run", "--distributed"),
        ]
        out_of_reach, without = (said.splitlines()[-1] for said in refusals(lines, devices=1))
    assert out_of_reach.startswith(
        f"error: --coordinator_address=localhost:{port}: process 0 could not be reached in 2 s ("
    )
    assert "--initialization_timeout" in out_of_reach
    message = "error: --distributed: coordinator_address should be defined. Give"
    assert without.startswith(message)


@pytest.mark.slow
def test_a_first_process_that_waits_in_vain_ends_in_time(launcher, tmp_path):
    address = f"--coordinator_address=localhost:{free_port()}"
    flags = [address, "--num_processes=2", "--process_id=0"]
    run = launcher.start(tmp_path / "run", *flags, "--initialization_timeout=2")
    # jax itself ends it, and says why.
    assert run.end() == -signal.SIGABRT
    assert "DEADLINE_EXCEEDED" in run.said()


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "10.0.0.1:", ":12355", "10.0.0.1:port", "10.0.0.1:70000"]
)
def test_an_address_without_host_or_port_is_refused(address):
    with pytest.raises(InputError, match=f"--coordinator_address={address}: give host:port"):
        join_processes(address, 2, 1, 1)
