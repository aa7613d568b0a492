"""A study: every chosen loss with every seed, trained and measured in one folder.

    study = Study(config, losses=["l1", "l1_rmse"], seeds=[0, 1], workdir="runs/study")
    study.run()
    print(study.text())
    study.report()

What is finished is never done again, so that a study which was stopped, killed or split over
machines comes to the results of one that was not. Its folder:

    study.json              losses, seeds and the configuration
    teacher/                the work directory of the teacher that all runs share (`shared_teacher`)
    real_features.npz       Inception features of real images, shared
    runs/LABEL/seed_N/      a run's work directory, with result.json once it is over
    results.csv, .json      all runs that are over
    tables/                 of losses, as Markdown and LaTeX
    report/                 the HTML page and its pictures
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import ml_collections
import numpy as np
from absl import logging

from dgnet_jax.ablation.claims import claims_to_markdown, thesis_claims
from dgnet_jax.ablation.loss_tables import own_losses_notes
from dgnet_jax.ablation.plan import STUDY_FILE, read_plan, refuse_other_plan, save_plan
from dgnet_jax.ablation.points import (
    ALL,
    LossSpec,
    Point,
    assign,
    check_shard,
    choose_losses,
    choose_seeds,
    known_points,
)
from dgnet_jax.ablation.progress import StudyProgress
from dgnet_jax.ablation.rendering import to_markdown, write_tables
from dgnet_jax.ablation.results import Row, ended_early, read_results, write_results
from dgnet_jax.ablation.runner import Runner, check_trains_dgnet
from dgnet_jax.ablation.search.definition import is_search
from dgnet_jax.ablation.summary import summarise
from dgnet_jax.ablation.tables import study_tables
from dgnet_jax.config import stored_config
from dgnet_jax.config_fields import checked
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.errors import InputError
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.devices import on_first_process, use_compilation_cache
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.preemption import stopping_at_once
from dgnet_jax.runtime.workdir import InUseError


class Study:
    """Losses times seeds of one configuration, in one folder.

    Attributes:
        config: of all runs, but for `seed`, `reconstruction_loss` and `teacher.checkpoint`; its
            seed is the teacher's, and that of the choice of images to measure.
        points: the losses.
        seeds: of the runs.
        workdir: the folder, absolute.
        shard: (i, n), from 0: this process runs the i-th of n parts.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        losses: LossSpec | Sequence[LossSpec] | Mapping[str, LossSpec] = ALL,
        seeds: int | Sequence[int] = (0,),
        *,
        workdir: str | Path,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Takes the plan; nothing is read or written yet.

        Args:
            config: from `configs/`.
            losses: "all" (the thesis's twelve); names, expressions and functions
                ``(target, output) -> scalar``; or a mapping of labels to these, {"mine": fn}. A
                folder remembers a function by its label alone: give another label to another one.
            seeds: integers from 0 on.
            workdir: of the study.
            shard: which part of the study this process runs.

        Raises:
            InputError: an unknown loss, a wrong seed, or a configuration that trains no DG-Net.
        """
        config = checked(config)
        check_trains_dgnet(config, "ablate")
        self.config = config
        self.points = choose_losses(losses)
        self.seeds = choose_seeds(seeds)
        self.workdir = user_path(workdir).absolute()
        self.shard = check_shard(shard)
        self._runner = Runner(config, self.workdir)

    @classmethod
    def load(cls, workdir: str | Path) -> "Study":
        """The study of a folder, to read its results or to write its report.

        Losses of the user's own that this process does not know are left out of `points`, for a
        file cannot hold them; their results are there like those of the others.

        Raises:
            InputError: there is no study in the folder.
        """
        folder = user_path(workdir).absolute()
        saved = read_plan(folder)
        if saved is None:
            raise InputError(f"--workdir={folder}: no study in it (no {STUDY_FILE}); run one first")
        file = folder / STUDY_FILE
        try:
            present = work_directory.from_json(saved["config"])
        except ValueError as error:
            raise InputError(f"{file}: {error}. {work_directory.REMEDY}") from error
        config = stored_config(present, file, work_directory.REMEDY)
        study = cls(config, seeds=saved["seeds"], workdir=folder)
        study.points = known_points(saved["losses"])
        return study

    def run(self) -> list[Row]:
        """Trains and measures all runs of this shard that are not over yet.

        Returns:
            The results of all runs in the folder that are over, see `results.FIELDS`.

        Raises:
            InputError: the folder holds a study of another configuration, or a field is wrong.
            Stopped: SIGTERM or Ctrl-C came; the present run is saved.
        """
        use_compilation_cache()
        on_first_process(self._refuse_other)
        pairs = assign(self.points, self.seeds, self.shard)
        waiting = [pair for pair in pairs if not self._runner.is_over(*pair)]
        with stopping_at_once() as check:
            if waiting:
                self._run(waiting, len(pairs), check)
            else:
                self._save_plan()
            return self.save_results()

    def rows(self) -> list[Row]:
        """The results of all runs in the folder that are over, without damaged ones."""
        return read_results(self.workdir).rows

    def table(self) -> list[Row]:
        """A row a loss: mean, sd and n over seeds of each metric, see `summary.Summary.as_row`."""
        return [summary.as_row() for summary in summarise(self.rows())]

    def text(self) -> str:
        """Tables and the thesis's claims in Markdown, and what is damaged or not over yet."""
        rows, damaged = read_results(self.workdir)
        dataset, notes = self.config.data.name, own_losses_notes(self.config)
        parts = [to_markdown(table) for table in study_tables(rows, dataset, notes)]
        claims = thesis_claims(summarise(rows), dataset)
        if claims:
            parts.append(claims_to_markdown(claims, dataset, notes))
        parts += [f"Left out: {fault}" for fault in damaged]
        missing = [f"{label} seed {seed}" for label, seed in self.missing()]
        if missing:
            parts.append(f"Not over yet: {', '.join(missing)}.")
        return "\n\n".join(parts)

    def missing(self) -> list[tuple[str, int]]:
        """Label and seed of the runs that are still to come, those of other shards included."""
        rows = self.rows()
        over = {(row["loss"], row["seed"]) for row in rows}
        ended = ended_early(rows, is_search(self.workdir))
        pairs = [(point.label, seed) for point, seed in assign(self.points, self.seeds)]
        return [pair for pair in pairs if pair not in over and pair[0] not in ended]

    def save_results(self) -> list[Row]:
        """Writes results.csv, results.json and the tables; returns the rows.

        A damaged result is left out and named in a warning.
        """

        return save_results(self.workdir, self.config)

    def report(
        self, *, train_images: np.ndarray | None = None, dataset: ReidDataset | None = None
    ) -> Path:
        """Writes results, tables and the report page from the runs that are over; returns the page.

        A damaged result is left out, and named in a warning and in the page.

        Args:
            train_images, dataset: as `report.write_report`'s; those of `run`, if it has run here.

        Raises:
            InputError: no run is over yet.
        """
        from dgnet_jax.ablation.report import write_report

        rows = self.save_results()
        damaged = read_results(self.workdir).damaged
        if self._runner.session is not None:
            data = self._runner.session.data
            train_images, dataset = data.train_images, data.dataset
        return write_report(
            *(self.workdir, rows, self.config, damaged), train_images=train_images, dataset=dataset
        )

    def _run(
        self, waiting: Sequence[tuple[Point, int]], planned: int, check: Callable[[], None]
    ) -> None:
        # Before anything is written: what is wrong with a run comes before the teacher is trained.
        self._runner.begin()

        def done(run: tuple[Point, int]) -> int:
            saved = self._runner.saved(*run)
            return -1 if saved is None else saved

        # One run a loss, the one with the most steps left: it has those of the others too.
        last_first = sorted(waiting, key=done, reverse=True)
        for point, seed in {point.label: (point, seed) for point, seed in last_first}.values():
            self._runner.check(point, seed)
            check()
        self._save_plan()
        check()
        self._runner.share_teacher()
        with StudyProgress(
            planned,
            self.config.total_steps,
            finished=planned - len(waiting),
            silent=jax.process_index() != 0,
        ) as progress:
            for point, seed in waiting:
                check()
                if self._runner.is_over(point, seed):  # another process has run it meanwhile
                    progress.skip()
                    continue
                progress.begin(point.label, seed)
                try:
                    self._runner.run(point, seed, progress, check)
                except InUseError as error:
                    logging.warning("%s, seed %d is left out: %s", point.label, seed, error)
                    progress.skip()
                else:
                    progress.end()
                    self.save_results()

    def _save_plan(self) -> None:
        on_first_process(partial(save_plan, self.workdir, self.config, self.points, self.seeds))

    def _refuse_other(self) -> None:
        """Raises InputError if the folder, or a run of this study in it, is of another plan."""
        refuse_other_plan(self.workdir, self.config, self.points)
        for point, seed in assign(self.points, self.seeds):
            self._runner.refuse_other(point, seed)


def save_results(workdir: Path, config: ml_collections.ConfigDict) -> list[Row]:
    """`Study.save_results` of the runs in a folder, whose configuration this is."""

    def write() -> list[Row]:
        rows, damaged = read_results(workdir)
        for fault in damaged:
            logging.warning("left out: %s", fault)
        if rows:
            write_results(workdir, rows)
            tables = study_tables(rows, config.data.name, own_losses_notes(config))
            write_tables(workdir / "tables", tables)
        return rows

    return on_first_process(write)
