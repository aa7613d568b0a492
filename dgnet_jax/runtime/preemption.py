"""Stopping at a step's end when the system or the user asks for it."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, Self

import jax
from jax.experimental import multihost_utils


class Stopped(BaseException):
    """The run was asked to stop and has saved its state.

    As KeyboardInterrupt it is no `Exception`: what recovers from errors must not take it for one.

    Attributes:
        signal_name: such as "SIGTERM".
        stage, step: what ran, and its finished steps; "" and 0 between two stages.
    """

    def __init__(self, signal_name: str, stage: str = "", step: int = 0) -> None:
        saved = "; all that was trained is saved"
        if stage:
            saved = f" and saved at step {step} of the {stage} stage"
        super().__init__(f"{signal_name}: stopped{saved}")
        self.signal_name, self.stage, self.step = signal_name, stage, step


class _Agreement:
    """On which call of `reached` all processes of the run stop; one for the life of a process.

    jax decides once. From a SIGTERM on any process it takes the largest number that any process
    gave by then, plus one, and says yes where it gets that very number, once. So it gets how often
    it was asked: that goes on over stages and does not begin at the step that a run goes on from.
    A yes is remembered. No other code may ask jax: `checkpoints` keeps orbax from it.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._reached = False

    def reached(self) -> bool:
        """Whether to stop now, the same answer in every process; each has to call it as often.

        Raises:
            RuntimeError: `jax_enable_preemption_service` is off.
        """
        if not self._reached:
            self._asked += 1
            self._reached = multihost_utils.reached_preemption_sync_point(self._asked)
        return self._reached


_agreement = _Agreement()


class GracefulStop:
    """Turns SIGTERM and Ctrl-C into a flag that the training loop reads once a step.

    with GracefulStop() as stop:
        for step in range(...):
            ...
            if stop.should_stop():
                save, break

    A Ctrl-C after the first signal raises KeyboardInterrupt as usual. Outside the main thread,
    where Python allows no handlers, it silently never asks to stop.

    In a multi-process run all processes must stop at the same step. There jax itself watches for
    SIGTERM, from `jax.distributed.initialize` on, and agrees on a step with the other processes; a
    handler of our own would hide the signal from it, so that Ctrl-C is passed on as SIGTERM. A
    SIGTERM that came before the `with`, or too late in an earlier one, is found by the next
    `should_stop`.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._distributed = False
        self._passed_on = False

    @property
    def requested(self) -> bool:
        """Whether to stop now. In a multi-process run it is set by `should_stop`."""
        return self._received is not None

    @property
    def signal_name(self) -> str | None:
        """The signal that asked to stop, such as "SIGTERM"."""
        return None if self._received is None else self._received.name

    def should_stop(self) -> bool:
        """Whether to save and stop now; the same answer in every process.

        Every process calls it at the same places: before the first step and after every one.
        """
        if self._distributed and not self.requested:
            try:
                if _agreement.reached():
                    self._received = signal.SIGTERM
            except RuntimeError:  # `jax_enable_preemption_service` is off
                logging.warning(
                    "jax's preemption service is off: SIGTERM ends this run without saving."
                )
                self._distributed = False
        return self.requested

    def __enter__(self) -> Self:
        self._distributed = jax.process_count() > 1
        if threading.current_thread() is threading.main_thread():
            handled = [signal.SIGINT] if self._distributed else [signal.SIGTERM, signal.SIGINT]
            for number in handled:
                previous = self._previous[number] = signal.signal(number, self._handle)
                if isinstance(previous, _AtOnce) and previous.received:
                    self._received = previous.received
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        # Stopped nothing here, for it came too late or the run ended with an error: a program with
        # more to do, which has a handler of its own, gets the signal.
        standard = (None, signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
        unheeded = kind is None or issubclass(kind, Exception)
        if unheeded and self._received and previous.get(self._received) not in standard:
            signal.raise_signal(self._received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if received is signal.SIGINT and (self.requested or self._passed_on):
            raise KeyboardInterrupt
        if self.requested:
            return
        # Not print: a signal may arrive in the middle of one, which must not be entered twice.
        os.write(
            sys.__stderr__.fileno() if sys.__stderr__ else 2,
            f"\n{received.name}: saving after this step, then stopping; "
            "Ctrl-C again stops at once without saving.\n".encode(),
        )
        if self._distributed:
            self._passed_on = True
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._received = received


class _AtOnce:
    """A handler that raises `Stopped`, and remembers it for where the exception is lost.

    Python prints and forgets what a finaliser or a callback from C raises, a signal's exception
    included.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        self.received = signal.Signals(number)
        raise Stopped(self.received.name)

    def check(self) -> None:
        if self.received:
            raise Stopped(self.received.name)


@contextlib.contextmanager
def stopping_at_once() -> Iterator[Callable[[], None]]:
    """Turns SIGTERM and Ctrl-C into `Stopped`, where all that was trained is saved.

    Gives a function that raises `Stopped` if a signal came whose exception was lost. It is called
    between stages; entering another `stopping_at_once`, and the end of this one, do the same.
    While a stage trains, `GracefulStop` takes their place and saves first; it heeds such a signal
    too. A run of several processes is left to it alone; so is a thread, where Python allows no
    handlers.
    """
    handler = _AtOnce()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield handler.check
        return
    previous = {n: signal.signal(n, handler) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        for outer in previous.values():
            if isinstance(outer, _AtOnce):
                outer.check()
        yield handler.check
        handler.check()
    finally:
        for number, outer in previous.items():
            signal.signal(number, signal.SIG_DFL if outer is None else outer)
