"""The trials of a search in Optuna's journal, a file that several processes share.

A trial is claimed under the search's lock, and its own lock is held from then on until it is told:
a running trial without a lock is one of a process that has died, and is taken up again.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from absl import logging

from dgnet_jax.ablation.results import RUNS
from dgnet_jax.ablation.search.space import Space
from dgnet_jax.ablation.summary import Metric
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.workdir import InUseError, lock_here, unlock

if TYPE_CHECKING:
    import optuna

JOURNAL_FILE = "journal.log"
SAMPLERS = ("tpe", "random")
_STUDY = "search"
# User attributes of a trial. A point of the thesis that the space does not hold is OUTSIDE.
_LABEL, _EXPRESSION, _OUTSIDE, _OUTCOME = "label", "expression", "outside", "outcome"
_EVALUATED = "evaluated"
# How often a point that there was before is given back for another one.
_ATTEMPTS = 50
_SECONDS_BETWEEN_LOOKS = 0.1

Outcome = Literal["waiting", "running", "finished", "pruned", "diverged"]


class Claim(NamedTuple):
    """A trial that this process holds until it is told: number, label in folders, expression."""

    number: int
    label: str
    expression: str


class Trial(NamedTuple):
    """A trial as the journal has it.

    Attributes:
        number, label, expression: expression is "" before it is chosen.
        outcome: what has become of it.
        values: of the objectives if it is finished, else empty.
    """

    number: int
    label: str
    expression: str
    outcome: Outcome
    values: tuple[float, ...]


def load_optuna() -> Any:
    """The package, quiet below warnings.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "--mode=search: Optuna is not installed. Install the extra: pip install "
            "'dgnet-jax[search]', of a checkout pip install -r requirements-search.txt"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def read_study(workdir: Path) -> "optuna.Study | None":
    """Optuna's study of a search's folder, to look at; None if there is none.

    A process that died, or is about to write the first line of the journal, leaves none either.

    Raises:
        InputError: Optuna is not installed, or the journal cannot be read.
    """
    file = workdir / JOURNAL_FILE
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        if not stream.readline().endswith(b"\n"):
            return None
    optuna = load_optuna()
    with _naming(workdir / JOURNAL_FILE):
        return optuna.load_study(study_name=_STUDY, storage=_storage(workdir))


def trials_of(study: "optuna.Study") -> list[Trial]:
    """The trials by number, without points that came a second time."""
    states = load_optuna().trial.TrialState
    outcomes: dict[Any, Outcome] = {
        states.WAITING: "waiting",
        states.RUNNING: "running",
        states.COMPLETE: "finished",
        states.PRUNED: "pruned",
    }
    return [
        Trial(
            trial.number,
            _label(trial),
            trial.user_attrs.get(_EXPRESSION, ""),
            trial.user_attrs.get(_OUTCOME, outcomes[trial.state]),
            tuple(trial.values or ()) if trial.state == states.COMPLETE else (),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state != states.FAIL
    ]


class Journal:
    """The journal, opened to claim trials; of several processes of a run by the first one only."""

    def __init__(
        self,
        workdir: Path,
        space: Space,
        objectives: Sequence[Metric],
        first: Mapping[str, str],
        *,
        sampler: str = SAMPLERS[0],
        seed: int = 0,
    ) -> None:
        """Opens or makes it; a line that a killed process left unfinished is removed.

        Args:
            workdir: of the search; is there.
            space: what trials are chosen from.
            objectives: of the search.
            first: label to expression of the trials that come first, in this order.
            sampler: one of `SAMPLERS`.
            seed: of the sampler.

        Raises:
            InputError: Optuna is not installed, or the file is no journal of this search.
        """
        self._optuna = load_optuna()
        self._states = self._optuna.trial.TrialState
        self._workdir, self._space = workdir, space
        self._sampler, self._seed = sampler, seed
        self._held: dict[int, optuna.Trial] = {}
        with self._exclusively(), _naming(workdir / JOURNAL_FILE):
            storage = _storage(workdir)
            self._study = self._optuna.create_study(
                storage=storage,
                study_name=_STUDY,
                directions=["maximize" if one.better > 0 else "minimize" for one in objectives],
                pruner=self._optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
            there = {_label(trial) for trial in self._study.get_trials(deepcopy=False)}
            for label, expression in first.items():
                if label not in there:
                    self._enqueue(label, expression)

    def claim(
        self,
        total: int,
        announce: Callable[[Claim], None] = lambda claim: None,
        without: Collection[int] = (),
    ) -> Claim | None:
        """A trial for this process: one that a dead process left, or the next one.

        Args:
            total: how many trials the search is to have; None is returned once it has them.
            announce: called before another process can claim the next.
            without: numbers of trials to leave alone.
        """
        with self._exclusively():
            running = self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,))
            for trial in running:
                if trial.number not in without and trial.number not in self._held:
                    self._seed_sampler(trial.number)
                    claim = self._take(self._optuna.trial.Trial(self._study, trial._trial_id))
                    if claim is not None:
                        announce(claim)
                        return claim
            for _ in range(_ATTEMPTS):
                begun = [one for one in trials_of(self._study) if one.outcome != "waiting"]
                if len(begun) >= total:
                    return None
                every = self._study.get_trials(deepcopy=False)
                self._seed_sampler(sum(one.state != self._states.WAITING for one in every))
                claim = self._take(self._study.ask())
                if claim is not None:
                    announce(claim)
                    return claim
        logging.warning(
            "the search ends with %d of %d trials: %d suggestions one after another were points "
            "that it has had. Give wider ranges or more --terms",
            len(begun),
            total,
            _ATTEMPTS,
        )
        return None

    def record(self, number: int, seed: int, step: int, metrics: Mapping[str, float]) -> None:
        """Notes the evaluation of a run of a claimed trial."""
        found = {name: float(value) for name, value in metrics.items()}
        self._held[number].set_user_attr(f"{_EVALUATED}.{seed}.{step}", found)

    def evaluated(self, seed: int, step: int) -> list[dict[str, float]]:
        """The evaluations of the finished trials at a step with a seed."""
        finished = self._study.get_trials(deepcopy=False, states=(self._states.COMPLETE,))
        attributes = [trial.user_attrs.get(f"{_EVALUATED}.{seed}.{step}") for trial in finished]
        return [dict(found) for found in attributes if found]

    def finish(self, number: int, values: Sequence[float]) -> None:
        """Tells the objectives of a claimed trial."""
        self._study.tell(self._held.pop(number), list(values))

    def give_up(self, number: int, outcome: Literal["pruned", "diverged"]) -> None:
        """Tells that a claimed trial has no values.

        For the sampler both outcomes are pruned trials, which count as worse than finished ones:
        what diverges is not suggested again, as it would be if the trial had failed.
        """
        trial = self._held.pop(number)
        trial.set_user_attr(_OUTCOME, outcome)
        self._study.tell(trial, state=self._states.PRUNED)

    def release(self, claim: Claim) -> None:
        """Lets go of a trial; without having been told, it goes on in whichever process comes."""
        self._held.pop(claim.number, None)
        unlock(self._folder(claim.label))

    def trials(self) -> list[Trial]:
        """See `trials_of`."""
        return trials_of(self._study)

    def _take(self, trial: "optuna.Trial") -> Claim | None:
        """The claim to a running trial; None if it is another process's, or a point again."""
        label = _label(trial)
        folder = self._folder(label)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock_here(folder)
        except InUseError:
            return None
        # Its process may have told it between the look at the journal and the lock.
        state = self._study.get_trials(deepcopy=False)[trial.number].state
        if state != self._states.RUNNING:
            unlock(folder)
            return None
        try:
            if trial.user_attrs.get(_OUTSIDE):
                expression = trial.user_attrs[_EXPRESSION]
            else:
                expression = self._space.suggest(trial)
            for other in trials_of(self._study):
                if other.expression == expression and other.number != trial.number:
                    self._study.tell(trial, state=self._states.FAIL)
                    unlock(folder)
                    return None
            trial.set_user_attr(_EXPRESSION, expression)
        except BaseException:
            unlock(folder)
            raise
        self._held[trial.number] = trial
        return Claim(trial.number, label, expression)

    def _enqueue(self, label: str, expression: str) -> None:
        values = self._space.locate(expression)
        attributes = {_LABEL: label, _EXPRESSION: expression, _OUTSIDE: values is None}
        self._study.enqueue_trial(values or {}, user_attrs=attributes)

    def _seed_sampler(self, number: int) -> None:
        """A sampler for a trial, by its number: the same after a restart, and in each process."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._sampler == "random":
            self._study.sampler = self._optuna.samplers.RandomSampler(seed=seed)
        else:
            # Terms come and go, so a joint density of what all trials have would be of nothing.
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, multivariate=False)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        while True:
            try:
                lock_here(self._workdir)
                break
            except InUseError:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        try:
            yield
        finally:
            unlock(self._workdir)

    def _folder(self, label: str) -> Path:
        return self._workdir / RUNS / label


def _label(trial: Any) -> str:
    return trial.user_attrs.get(_LABEL) or f"trial_{trial.number:03d}"


def _storage(workdir: Path) -> Any:
    optuna, file = load_optuna(), workdir / JOURNAL_FILE

    # By exclusive creation, which NFS has had since version 3; a dead process's is broken.
    exclusive_creation: Any = optuna.storages.journal.JournalFileOpenLock

    class Lock(exclusive_creation):
        """Held by whoever appends; first removes what a process that died had not written whole."""

        def acquire(self) -> bool:
            try:
                acquired = super().acquire()
            except RuntimeError as error:
                # It hides what has come while it waited, such as the exception of a signal.
                raise (error.__context__ or error) from None
            _remove_torn_line(file)
            return acquired

    backend = optuna.storages.journal.JournalFileBackend(str(file), lock_obj=Lock(str(file)))
    return optuna.storages.JournalStorage(backend)


def _remove_torn_line(file: Path) -> None:
    """Cuts off what follows the last line end: another line behind it would make both unreadable.

    What it was to say is found again in the results of the runs.
    """
    with file.open("rb+") as stream:
        if not stream.seek(0, os.SEEK_END):
            return
        stream.seek(-1, os.SEEK_END)
        if stream.read() != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"{file}: no journal of this search ({type(error).__name__}: {error}). Restore it, or "
            "search in another --workdir"
        ) from error
