"""Trains and measures runs that differ in loss and seed: what studies and searches share.

Its folder, which is that of the study or the search:

    teacher/                the work directory of the teacher that all runs share (`shared_teacher`)
    real_features.npz       Inception features of real images, shared
    runs/LABEL/seed_N/      a run's work directory, with result.json once it is over
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_collections
from absl import logging

from dgnet_jax.ablation.plan import MAY_DIFFER, RUN_MAY_DIFFER
from dgnet_jax.ablation.points import Point
from dgnet_jax.ablation.progress import StudyProgress, WallTime
from dgnet_jax.ablation.results import (
    COUNTS,
    DIVERGED,
    FINISHED,
    IMAGES,
    PRUNED,
    RANKING,
    Row,
    read_result,
    run_directory,
    write_result,
)
from dgnet_jax.ablation.shared_teacher import study_teacher
from dgnet_jax.config_fields import USES, checked, older_config
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.evaluation.generated_images import FeatureFn, RealImages
from dgnet_jax.evaluation.image_metrics import measure_against, real_images
from dgnet_jax.evaluation.retrieval import rank_data
from dgnet_jax.evaluation.variants import Metrics, main_variant
from dgnet_jax.inference import TeacherModel, load_model, load_teacher
from dgnet_jax.losses import Expression
from dgnet_jax.models import Variables, build_teacher
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.checkpoints import last_saved
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.preemption import Stopped
from dgnet_jax.runtime.provenance import git_commit, provenance
from dgnet_jax.runtime.workdir import DGNET_STAGE, stage_directory
from dgnet_jax.training import trainer
from dgnet_jax.training.session import Session

TEACHER, FEATURES = "teacher", "real_features.npz"

# (step, metrics of its evaluation); see `trainer.train`.
Evaluated = Callable[[int, Metrics], None]


class Pruned(Exception):
    """Ends a run at an evaluation because others were better there.

    Attributes:
        step: the number of its finished training steps.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"pruned at step {step}")
        self.step = step


class Runner:
    """Runs of one configuration in one folder, by loss and seed.

    Attributes:
        config: of all runs, but for `seed`, `reconstruction_loss` and `teacher.checkpoint`; its
            seed is the teacher's, and that of the choice of images to measure.
        workdir: the folder, absolute.
        session: what the runs have in common; None before `begin`.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: Path,
        together: Expression | None = None,
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            config, workdir: the attributes.
            together: of `Session`: losses whose runs are to share one program.
        """
        self.config, self.workdir = config, workdir
        self._together = together
        self.session: Session | None = None
        self._real: RealImages | None = None
        self._commit = git_commit()

    def begin(self) -> None:
        """Opens what the runs share but for the teacher, and writes nothing but features.

        Raises:
            InputError: the data set, or what generated images are compared with, is not there.
        """
        self.session = Session(self.config, together=self._together)
        self._real = self._real_images(self.session)

    def check(self, point: Point, seed: int) -> None:
        """`trainer.check_run` of a run; after `begin`.

        Raises:
            InputError: what is wrong with the run.
        """
        assert self.session is not None
        point.register()
        config, saved = checked(self.config_of(point, seed)), self.saved(point, seed)
        trainer.check_run(config, self.session, saved=saved)

    def share_teacher(self) -> None:
        """Trains or reads the teacher; after `begin`.

        Raises:
            DivergedError, Stopped, InputError: as `shared_teacher.study_teacher`.
        """
        assert self.session is not None
        self.session.teacher = self._teacher(self.session)
        if self._real is not None:
            self._real.teacher = self._evaluator(self.session)

    def run(
        self,
        point: Point,
        seed: int,
        progress: StudyProgress,
        check: Callable[[], None],
        evaluated: Evaluated | None = None,
    ) -> None:
        """Trains and measures a run, and writes its result; after `share_teacher`.

        Args:
            point, seed: which one.
            progress: gets its finished steps.
            check: raises `Stopped` if a signal has come.
            evaluated: called in every process after each evaluation within training; may raise
                `Pruned`, which the result then says.

        Raises:
            InUseError: another process trains it.
            Stopped: SIGTERM or Ctrl-C came; the run is saved.
        """
        assert self.session is not None
        config, folder = self.config_of(point, seed), self.folder(point, seed)
        clock = WallTime(folder)

        def follow(done: int) -> None:
            progress.step(done)
            clock.save()

        hooks: dict[str, Any] = {} if evaluated is None else {"evaluated": evaluated}
        point.register()
        row: Row = {"loss": point.label, "expression": point.expression, "seed": seed}
        try:
            try:
                metrics = trainer.train(
                    config, folder, session=self.session, progress=follow, **hooks
                )
                # It has let go of the folder. From here on no other process measures this run.
                work_directory.lock(folder)
                if self.is_over(point, seed):
                    return
                clock.save(now=True)
                row |= {"status": FINISHED, "steps": config.total_steps}
                check()
                row |= measure(config, folder, self.session.data, metrics, self._real)
                check()
            except DivergedError as error:
                logging.warning("%s, seed %d: %s", point.label, seed, error)
                row |= {"status": DIVERGED, "steps": error.step}
                row |= {"diverged_step": error.step, "diverged_loss": error.loss_name}
            except Pruned as pruned:
                logging.info("%s, seed %d: %s", point.label, seed, pruned)
                row |= {"status": PRUNED, "steps": pruned.step}
            clock.save(now=True)
            row |= {"wall_seconds": round(clock.seconds, 1)} | provenance(self._commit)
            on_first_process(partial(write_result, folder, row))
        except Stopped:
            clock.save(now=True)
            raise
        finally:
            work_directory.unlock(folder)

    def folder(self, point: Point, seed: int) -> Path:
        """The work directory of a run."""
        return run_directory(self.workdir, point.label, seed)

    def saved(self, point: Point, seed: int) -> int | None:
        """The step that a run goes on from; None if it has saved nothing."""
        return last_saved(stage_directory(self.folder(point, seed), DGNET_STAGE))

    def config_of(self, point: Point, seed: int) -> ml_collections.ConfigDict:
        """The configuration of a run."""
        config = self.config.copy_and_resolve_references()
        with config.unlocked():
            config.seed = seed
            config.reconstruction_loss = point.spec
            config.teacher.checkpoint = config.teacher.checkpoint or str(self.workdir / TEACHER)
        return config

    def is_over(self, point: Point, seed: int) -> bool:
        """Whether the run has its result, the same answer in every process.

        A result without measures of generated images that can be measured now is not over.
        """
        row = on_first_process(partial(read_result, self.folder(point, seed)))
        if row and row["status"] == FINISHED and self.config.evaluation.generated_images:
            lacking = row.get("dims") is None and bool(self.config.inception)
            return row.get("generated") is not None and not lacking
        return row is not None

    def refuse_other(self, point: Point, seed: int) -> None:
        """Raises InputError if the folder of a run is of another configuration."""
        work_directory.refuse_other(
            self.folder(point, seed),
            self.config_of(point, seed),
            RUN_MAY_DIFFER,
            older_config(),
        )

    def _real_images(self, session: Session) -> RealImages | None:
        """What generated images are compared with; without the teacher, which may be to come."""
        if not self.config.evaluation.get("generated_images", True):
            _ = session.data
            return None
        return real_images(self.config, session.data, None, cache=self.workdir / FEATURES)

    def _evaluator(self, session: Session) -> FeatureFn:
        """The embeddings of the shared teacher."""
        network = build_teacher(self.config, session.data.num_identities)
        source = self.config.teacher.checkpoint or str(self.workdir / TEACHER)
        assert session.teacher is not None
        model = TeacherModel(self.config, network, session.teacher, source, session.placement)
        return model.embeddings

    def _teacher(self, session: Session) -> Variables:
        given = self.config.teacher.checkpoint
        if given:
            identities = session.data.num_identities
            return load_teacher(self.config, identities, Path(given), session.placement)
        return study_teacher(
            self.config, session.data, self.workdir / TEACHER, session.placement, MAY_DIFFER
        )


def check_trains_dgnet(config: ml_collections.ConfigDict, mode: str) -> None:
    """Raises InputError for a configuration that trains no DG-Net on real images."""
    if config.baseline or config.data.generated:
        raise InputError(f"--mode={mode} trains DG-Net on real images, not the re-ID baseline")
    if config.released:
        raise InputError("--config.released: a study measures what it trains; leave it empty")
    trained = [
        use for use in USES if use != "appearance_code" or not config.appearance.cut_gradient
    ]
    if all(config.reconstruction[use] for use in trained):
        raise InputError(
            f"--config.reconstruction: {', '.join(trained)} have losses of their own, so that "
            f"--mode={mode} would train the same under every name. Leave out the ones to study"
        )


def measure(
    config: ml_collections.ConfigDict,
    workdir: Path,
    data: ReidData,
    metrics: Metrics,
    real: RealImages | None,
) -> dict[str, Any]:
    """The ranking of the main row, and the measures of generated images.

    Args:
        config: of the run.
        workdir: of the run.
        data: the data set.
        metrics: of the end of training; without mAP if there was no ranking.
        real: what generated images are compared with, the same for all runs of a study; None leaves
            their measures out.

    Returns:
        Fields of `results.FIELDS`.
    """
    ranked = "mAP" in metrics
    model = load_model(config, workdir) if real is not None or not ranked else None
    if model is not None and not ranked:
        metrics = rank_data(model.embeddings, data, main_variant(config)).metrics
    found: dict[str, Any] = {name: metrics.get(name) for name in RANKING}
    found |= {name: int(metrics[name]) for name in COUNTS if name in metrics}
    if model is not None and real is not None:
        images = measure_against(real, model)
        found |= {name: images[name] for name in IMAGES if name in images}
    return found
