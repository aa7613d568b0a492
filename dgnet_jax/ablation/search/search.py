"""A search: trials of losses, each trained and measured as a run of a study.

    search = Search(config, ["l1", "0.1:4*rmse"], ["fid", "mAP"], trials=30, workdir="runs/search")
    search.run()
    search.report()

Its folder is a study's (`ablation.study`), and beside that

    search.json             terms, objectives, seeds
    journal.log             all trials, in Optuna's format
    runs/LABEL/             a trial: the thesis's losses by their names, then trial_012 and so on

Stopped, killed or split over processes it goes on with what has begun; a trial is run by one
process, and what is finished is never done again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import ml_collections
from absl import logging

from dgnet_jax.ablation.plan import refuse_other_plan, save_plan
from dgnet_jax.ablation.points import ALL, Point, check_shard, choose_losses, choose_seeds
from dgnet_jax.ablation.progress import StudyProgress
from dgnet_jax.ablation.results import DIVERGED, PRUNED, Row, read_result
from dgnet_jax.ablation.runner import Pruned, Runner, check_trains_dgnet
from dgnet_jax.ablation.search.definition import (
    define,
    refuse_other_search,
    save_definition,
)
from dgnet_jax.ablation.search.journal import SAMPLERS, Claim, Journal, load_optuna
from dgnet_jax.ablation.search.objectives import (
    DEFAULT_OBJECTIVES,
    check_drawn,
    check_measured,
    values_of,
)
from dgnet_jax.ablation.search.outcome import read_outcome, search_text
from dgnet_jax.ablation.search.pruning import is_hopeless
from dgnet_jax.ablation.study import Study, save_results
from dgnet_jax.config_fields import checked
from dgnet_jax.data.synthetic import drawn_settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.variants import Metrics
from dgnet_jax.losses import LOSSES, Expression, parse
from dgnet_jax.runtime.devices import on_first_process, use_compilation_cache
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.preemption import stopping_at_once
from dgnet_jax.runtime.workdir import InUseError

DEFAULT_TRIALS = 30


class Search:
    """A search over weights and parameters of losses, in one folder.

    Attributes:
        config: of all runs, but for `seed`, `reconstruction_loss` and `teacher.checkpoint`; its
            seed is the teacher's and the sampler's.
        definition: terms, objectives and seeds.
        trials: how many there are to be, those of the thesis included.
        workdir: the folder, absolute.
        shard: (i, n); the parts of a search share its trials, so that i only tells them apart.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        terms: Sequence[str],
        objectives: Sequence[str] = DEFAULT_OBJECTIVES,
        *,
        workdir: str | Path,
        trials: int = DEFAULT_TRIALS,
        seeds: int | Sequence[int] = (0,),
        sampler: str = SAMPLERS[0],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Takes the plan; nothing is read or written yet.

        Args:
            config: from `configs/`.
            terms: see `space.parse_terms`.
            objectives: names of `summary.METRICS`; several are a Pareto search.
            workdir: of the search.
            trials: in total; a later start may give more.
            seeds: each trial is run with all of them, and its objectives are means.
            sampler: "tpe", the tree-structured Parzen estimator, or "random".
            shard: which of several processes this is.

        Raises:
            InputError: Optuna is not installed, or an argument is wrong.
        """
        load_optuna()
        config = checked(config)
        check_trains_dgnet(config, "search")
        if trials < 1:
            raise InputError(f"--trials={trials}: give 1 or more")
        if sampler not in SAMPLERS:
            raise InputError(f"--sampler={sampler}: give {' or '.join(SAMPLERS)}")
        self.config = config
        self.definition = define(terms, objectives, choose_seeds(seeds))
        check_measured(self.definition.objectives, config)
        self.trials = trials
        self.workdir = user_path(workdir).absolute()
        self.shard = check_shard(shard)
        self._sampler = sampler
        self._thesis = {point.label: point for point in choose_losses(ALL)}
        self._runner = Runner(config, self.workdir, self._together())
        # Of the first process alone.
        self._journal: Journal | None = None
        self._better = {one.field: one.better for one in self.definition.objectives}

    def run(self) -> None:
        """Runs trials until there are as many as asked for, or other processes run the last.

        Raises:
            InputError: the folder holds another search or a study of another configuration.
            Stopped: SIGTERM or Ctrl-C came; the present run is saved.
        """
        use_compilation_cache()
        on_first_process(self._refuse_other)
        if on_first_process(self.count_over) >= self.trials:
            return
        with stopping_at_once() as check:
            # Before anything is written, as in a study.
            self._runner.begin()
            on_first_process(self._check_drawn)
            # All trials share a program; this one also has what is refused on codes.
            (everything,) = choose_losses(self.definition.space.everything)
            self._runner.check(everything, self.definition.seeds[0])
            check()
            on_first_process(self._prepare)
            self._runner.share_teacher()
            on_first_process(self._open)
            self._run_trials(check)
            save_results(self.workdir, self.config)

    def count_over(self) -> int:
        """How many trials are over, those of other processes included."""
        outcome = read_outcome(self.workdir)
        trials = [] if outcome is None else outcome.trials
        return sum(trial.outcome not in ("waiting", "running") for trial in trials)

    def is_under_way(self) -> bool:
        """Whether a trial is in another process's hands, or is to be taken up again."""
        outcome = read_outcome(self.workdir)
        return outcome is not None and any(one.outcome == "running" for one in outcome.trials)

    def study(self) -> Study:
        """The study that the folder is too: its results and tables."""
        return Study.load(self.workdir)

    def text(self) -> str:
        """See `outcome.search_text`."""
        return search_text(self.workdir)

    def report(self) -> Path:
        """Writes results, tables and the report page; returns the page.

        Raises:
            InputError: no run is over yet.
        """
        if self._runner.session is None:
            return self.study().report()
        data = self._runner.session.data
        return self.study().report(train_images=data.train_images, dataset=data.dataset)

    def _run_trials(self, check: Callable[[], None]) -> None:
        seeds = len(self.definition.seeds)
        left: set[int] = set()
        with StudyProgress(
            self.trials * seeds,
            self.config.total_steps,
            finished=on_first_process(self.count_over) * seeds,
            silent=jax.process_index() != 0,
            name="search",
        ) as progress:
            while True:
                check()
                claim = on_first_process(partial(self._claim, left))
                if claim is None:
                    return
                try:
                    self._run_trial(claim, progress, check)
                except InUseError as error:
                    logging.warning("%s is left out: %s", claim.label, error)
                    left.add(claim.number)
                    progress.skip()
                finally:
                    if self._journal is not None:
                        self._journal.release(claim)

    def _run_trial(
        self,
        claim: Claim,
        progress: StudyProgress,
        check: Callable[[], None],
    ) -> None:
        """All runs of a trial, and what it has come to."""
        logging.info("trial %d, %s: %s", claim.number, claim.label, claim.expression)
        point, rows = self._point(claim), list[Row]()
        for seed in self.definition.seeds:
            progress.begin(claim.label, seed)
            if not self._runner.is_over(point, seed):
                follow = partial(self._evaluated, claim, seed)
                self._runner.run(point, seed, progress, check, follow)
            progress.end()
            row = on_first_process(partial(read_result, self._runner.folder(point, seed)))
            assert row is not None
            rows.append(row)
            if row["status"] in (PRUNED, DIVERGED):
                for _ in self.definition.seeds[len(rows) :]:
                    progress.skip()
                break
        on_first_process(partial(self._tell, claim, rows))
        save_results(self.workdir, self.config)

    def _tell(self, claim: Claim, rows: Sequence[Row]) -> None:
        assert self._journal is not None
        for row in rows:
            if row["status"] in (PRUNED, DIVERGED):
                self._journal.give_up(claim.number, row["status"])
                return
        self._journal.finish(claim.number, values_of(self.definition.objectives, rows))

    def _evaluated(self, claim: Claim, seed: int, step: int, metrics: Metrics) -> None:
        """Notes an evaluation within training; raises `Pruned` if the run is hopeless."""

        def hopeless() -> bool:
            assert self._journal is not None
            # The first state is the same for all losses, and the last is measured in full.
            if not 0 < step < self.config.total_steps:
                return False
            self._journal.record(claim.number, seed, step, metrics)
            if claim.label in self._thesis:
                return False
            return is_hopeless(metrics, self._journal.evaluated(seed, step), self._better)

        if on_first_process(hopeless):
            raise Pruned(step)

    def _claim(self, left: set[int]) -> Claim | None:
        assert self._journal is not None
        return self._journal.claim(self.trials, self._save_plan, left)

    def _save_plan(self, claim: Claim) -> None:
        point = self._point(claim)
        # Of a journal that is not that of the runs in the folder.
        refuse_other_plan(self.workdir, self.config, [point])
        save_plan(self.workdir, self.config, [point], self.definition.seeds)

    def _open(self) -> None:
        self._journal = Journal(
            self.workdir,
            self.definition.space,
            self.definition.objectives,
            {label: point.expression for label, point in self._thesis.items()},
            sampler=self._sampler,
            seed=self.config.seed,
        )

    def _together(self) -> Expression:
        """The losses of all trials, each once: what makes their programs one.

        The thesis's are among them, whatever the terms: a step costs little more for a loss of
        weight 0, and another program takes as long to compile as many steps.
        """
        space = self.definition.space
        names = {term.name for term in space.terms}
        return parse("+".join([space.everything, *(one for one in LOSSES if one not in names)]))

    def _point(self, claim: Claim) -> Point:
        own = Point(claim.label, claim.expression, claim.expression)
        return self._thesis.get(claim.label, own)

    def _check_drawn(self) -> None:
        drawn = drawn_settings(self.config.data.root) is not None
        check_drawn(self.definition.objectives, drawn)

    def _refuse_other(self) -> None:
        refuse_other_plan(self.workdir, self.config, list(self._thesis.values()))
        refuse_other_search(self.workdir, self.definition)

    def _prepare(self) -> None:
        save_plan(self.workdir, self.config, [], self.definition.seeds)
        save_definition(self.workdir, self.definition)
