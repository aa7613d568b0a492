"""SIGTERM and Ctrl-C end a run after the step, on all processes after the same one.

`test_parallel.py` stops a run of two processes in this way.
"""

import os
import signal
import textwrap
import threading

import pytest
from processes import run_two, saved_steps
from two_stages import STEPS

from dgnet_jax.runtime.preemption import GracefulStop, Stopped, stopping_at_once


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_the_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with GracefulStop() as stop:
        assert not stop.should_stop()
        assert stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.should_stop()
        assert stop.requested
        assert stop.signal_name == number.name
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert stop.requested


def test_a_second_ctrl_c_interrupts_at_once_and_a_second_sigterm_does_not():
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal_name == "SIGTERM"


def test_handlers_come_back_after_an_exception():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), GracefulStop():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_stopped_nothing_is_handed_to_the_programs_own_handler():
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with GracefulStop():
            os.kill(os.getpid(), signal.SIGTERM)
            assert told == []
        assert told == [signal.SIGTERM]
        with pytest.raises(Stopped), GracefulStop():
            os.kill(os.getpid(), signal.SIGTERM)
            raise Stopped("SIGTERM", "dgnet", 4)
        assert told == [signal.SIGTERM]
        with pytest.raises(ZeroDivisionError), GracefulStop():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError
        assert told == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_it_never_asks_to_stop():
    answers = []

    def work():
        with GracefulStop() as stop:
            answers.append(stop.should_stop())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
    assert signal.getsignal(signal.SIGTERM) is before


class LosesASignal:
    """Gets a signal while it is finalised, where Python forgets what a handler raises."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # a handler runs between two instructions
            pass


def lose_a_signal() -> None:
    LosesASignal()


lost = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@lost
def test_a_signal_whose_exception_is_lost_stops_at_the_next_stage():
    reached = []
    with pytest.raises(Stopped, match="SIGTERM"), stopping_at_once() as check:
        check()
        lose_a_signal()
        reached.append("the end of the stage")
        check()
        reached.append("the next stage")
    assert reached == ["the end of the stage"]


@lost
def test_a_lost_signal_stops_at_the_end_at_the_latest():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), stopping_at_once():
        lose_a_signal()
    assert signal.getsignal(signal.SIGTERM) is before


@lost
def test_a_training_and_a_stage_within_heed_a_lost_signal():
    with pytest.raises(Stopped), stopping_at_once():
        lose_a_signal()
        with GracefulStop() as stop:
            assert stop.should_stop()
            assert stop.signal_name == "SIGTERM"
    with pytest.raises(Stopped), stopping_at_once():
        lose_a_signal()
        with stopping_at_once():
            pytest.fail("a stage began though a signal had come")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_stop_after_the_same_step_when_one_gets_a_signal(number):
    program = textwrap.dedent(
        """
        import os, signal, sys, time
        import jax
        rank, port, number = map(int, sys.argv[1:])
        jax.distributed.initialize(f"localhost:{port}", 2, rank)
        from jax.experimental import multihost_utils
        from dgnet_jax.runtime.preemption import GracefulStop
        with GracefulStop() as stop:
            for step in range(1, 2000):
                multihost_utils.sync_global_devices("step")
                time.sleep(0.01)
                if step == 5 and rank == 1:
                    os.kill(os.getpid(), number)
                if stop.should_stop():
                    break
        print("stopped", step, stop.signal_name, flush=True)
        """
    )
    outputs = run_two(["-c", program], str(int(number)))
    words = [out.split()[-3:] for out in outputs]
    assert words[0][0] == "stopped", outputs
    assert words[0] == words[1]
    assert 5 <= int(words[0][1]) < 1999
    assert words[0][2] == "SIGTERM"


def last_line(outputs: list[str]) -> str:
    """What both processes of `two_stages.py` said of their end."""
    ends = {out.splitlines()[-1] for out in outputs}
    assert len(ends) == 1, outputs
    return ends.pop()


def trained(outputs: list[str]) -> list[str]:
    """Steps that both processes of `two_stages.py` made, such as "first 2"."""
    done = [
        [line.removeprefix("trains ") for line in out.splitlines() if line.startswith("trains ")]
        for out in outputs
    ]
    assert done[0] == done[1]
    return done[0]


@pytest.mark.slow
def test_processes_stop_before_any_step_between_two_stages_and_within_one_and_go_on(tmp_path):
    program = ["tests/two_stages.py"]
    outputs = run_two(program, str(tmp_path), "start")
    assert last_line(outputs) == "stopped at first 0"
    assert trained(outputs) == []
    assert saved_steps(tmp_path, "first") == [0]

    outputs = run_two(program, str(tmp_path), "between")
    assert last_line(outputs) == "stopped at second 0"
    assert trained(outputs) == ["first 0", "first 1", "first 2"]
    assert saved_steps(tmp_path, "second") == [0]

    outputs = run_two(program, str(tmp_path), "second1")
    assert last_line(outputs) == "stopped at second 1"
    assert trained(outputs) == ["second 0"]

    # The last step of all has nothing behind it to stop before.
    outputs = run_two(program, str(tmp_path), f"second{STEPS}")
    assert last_line(outputs) == "finished"
    assert trained(outputs) == ["second 1", "second 2"]


@pytest.mark.slow
def test_processes_stop_after_the_last_step_of_a_stage_that_another_follows(tmp_path):
    program = ["tests/two_stages.py"]
    outputs = run_two(program, str(tmp_path), f"first{STEPS}")
    assert last_line(outputs) == f"stopped at first {STEPS}"
    assert saved_steps(tmp_path, "first")[-1] == STEPS
    assert saved_steps(tmp_path, "second") == []
    # Asked again while the finished stage is looked at.
    outputs = run_two(program, str(tmp_path), "start")
    assert last_line(outputs) == f"stopped at first {STEPS}"
    assert trained(outputs) == []
