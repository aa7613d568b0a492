"""SIGTERM and Ctrl-C while a study is not training, when there is nothing to save."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import jax

from dgnet_jax.training.loop import Stopped


class StoppedBetween(Stopped):
    """The study was asked to stop between two stages; all that is trained is saved."""

    def __init__(self, signal_name: str) -> None:
        BaseException.__init__(self, f"{signal_name}: stopped; all that was trained is saved")
        self.signal_name, self.stage, self.step = signal_name, "study", 0


@contextlib.contextmanager
def stopping_at_once() -> Iterator[None]:
    """Turns SIGTERM and Ctrl-C into `StoppedBetween`.

    While a stage trains, `preemption.GracefulStop` takes their place and saves first. A run of
    several processes is left to it alone; so is a thread, where Python allows no handlers.
    """
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise StoppedBetween(signal.Signals(number).name)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
