"""SIGTERM and Ctrl-C end a run after the step, on all processes after the same one."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dgnet_jax.loop import Stopped
from dgnet_jax.preemption import GracefulStop

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop_and_the_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with GracefulStop() as stop:
        assert not stop.should_stop(1)
        assert stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.should_stop(2)
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
            answers.append(stop.should_stop(1))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_stop_after_the_same_step_when_one_gets_a_signal(number):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    program = textwrap.dedent(
        """
        import os, signal, sys, time
        import jax
        rank, port, number = map(int, sys.argv[1:])
        jax.distributed.initialize(f"localhost:{port}", 2, rank)
        from jax.experimental import multihost_utils
        from dgnet_jax.preemption import GracefulStop
        with GracefulStop() as stop:
            for step in range(1, 2000):
                multihost_utils.sync_global_devices("step")
                time.sleep(0.01)
                if step == 5 and rank == 1:
                    os.kill(os.getpid(), number)
                if stop.should_stop(step):
                    break
        print("stopped", step, stop.signal_name, flush=True)
        """
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(port), str(int(number))],
            cwd=REPOSITORY,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    words = [out.split()[-3:] for out, _ in outputs]
    assert words[0][0] == "stopped", outputs
    assert words[0] == words[1]
    assert 5 <= int(words[0][1]) < 1999
    assert words[0][2] == "SIGTERM"
