"""The loop that both stages share: step, log, draw, evaluate, save, stop, go on.

Step N is dispatched before the losses of step N - 1 are read, so the device never waits for the
host. A checkpoint is written only of a state whose numbers are all finite.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from dgnet_jax.data.pipeline import Prefetch
from dgnet_jax.errors import DivergedError, InputError
from dgnet_jax.evaluation.variants import Metrics
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import from_first_process, to_host
from dgnet_jax.runtime.preemption import GracefulStop, Stopped
from dgnet_jax.runtime.workdir import stage_directory
from dgnet_jax.training.run_log import RunLog, check_finite


class Stage(NamedTuple):
    """What one stage of training does; the loop does the rest.

    Attributes:
        name: "teacher" or "dgnet": the folder of its checkpoints and its rows in the log.
        total_steps: where it ends.
        images_per_step: for the throughput.
        abstract: shapes, types and shardings of the state, to restore a checkpoint.
        initial: makes the state of step 0; not called where there is a checkpoint.
        step: the compiled (step, state, batch) -> (state, losses) of a 0-based step; the state is
            donated.
        batch: 0-based step to a batch on the device.
        evaluate: state to ranking metrics, and others beside them.
        draw: (state, step, log) draws pictures; None for none.
        inactive: step -> {loss: "until step N"} of the losses that do not act yet.
        shown: losses of the progress line.
        evaluate_every: steps; 0 evaluates only the first and the last state, -1 none.
        measure: state to the metrics that the first and the last state have with -1 as well.
        progress: gets the number of finished steps, at the start and after each step.
        evaluated: gets (step, metrics) of each evaluation, of the one that a run goes on from once
            more. What it raises ends the run, whose checkpoints are whole.
        followed: whether the run goes on with another stage, so that it has to stop at the end of
            this one too if it is asked to.
    """

    name: str
    total_steps: int
    images_per_step: int
    abstract: Any
    initial: Callable[[], Any]
    step: Callable[[int, Any, Any], tuple[Any, Any]]
    batch: Callable[[int], Any]
    evaluate: Callable[[Any], Metrics]
    draw: Callable[[Any, int, RunLog], None] | None
    inactive: Callable[[int], dict[str, str]]
    shown: tuple[str, ...]
    evaluate_every: int
    measure: Callable[[Any], Metrics] = lambda state: {}
    progress: Callable[[int], None] = lambda done: None
    evaluated: Callable[[int, Metrics], None] = lambda done, metrics: None
    followed: bool = False


def _all_finite(state: Any) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if jax.default_backend() == "cpu":
        # The host reads these where they are; a program of all leaves compiles for seconds.
        return all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)
    return bool(_finite_on_device(leaves))


@jax.jit
def _finite_on_device(leaves: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _scalars(losses: Mapping[str, Any]) -> dict[str, float]:
    """Losses on the host; a term's two directions are added."""
    return {name: float(np.sum(value)) for name, value in to_host(dict(losses)).items()}


def run_stage(
    stage: Stage, workdir: Path, config: ml_collections.ConfigDict
) -> tuple[Any, Metrics]:
    """Trains a stage from its last checkpoint, or from its initial state, to its end.

    Returns:
        The last state and its evaluation.

    Raises:
        InputError: a setting of `config.log` is out of range.
        DivergedError: a loss or a parameter is NaN or infinite.
        Stopped: SIGTERM or Ctrl-C, after saving.
    """
    settings = config.log
    for name in ("every_steps", "image_every_steps", "checkpoint_every_steps"):
        if settings[name] < 1:
            raise InputError(
                f"--config.log.{name}: found {settings[name]}. Give 1 or more; what is above the "
                "number of steps happens at the end only"
            )
    if settings.image_rows < 1:
        raise InputError(f"--config.log.image_rows: found {settings.image_rows}. Give 1 or more")
    directory = stage_directory(workdir, stage.name)
    with Checkpoints(directory, config, keep=settings.keep_checkpoints) as checkpoints:
        start = checkpoints.latest_step()
        if start is None:
            state = stage.initial()
        else:
            state = checkpoints.restore(stage.abstract)
            logging.info("%s: continuing from step %d", stage.name, start)
        metrics: Metrics = (start is not None and checkpoints.metrics(start)) or {}
        with (
            RunLog(
                workdir, stage.total_steps, stage=stage.name, resume_step=start, shown=stage.shown
            ) as log,
            GracefulStop() as stop,
            Prefetch(stage.batch) as prefetch,
        ):
            return _run(stage, state, start or 0, metrics, checkpoints, log, stop, prefetch, config)


def _run(
    stage: Stage,
    state: Any,
    start: int,
    metrics: Metrics,
    checkpoints: Checkpoints,
    log: RunLog,
    stop: GracefulStop,
    prefetch: Prefetch,
    config: ml_collections.ConfigDict,
) -> tuple[Any, Metrics]:
    settings = config.log

    def evaluate(done: int) -> Metrics:
        ranked = stage.evaluate_every >= 0
        found = stage.evaluate(state) if ranked else stage.measure(state)
        # Measured again where no checkpoint holds it: one without a ranking, or after a kill.
        if found and not log.evaluated(done):
            log.evaluation(done, found)
        return found

    def check_state(done: int) -> None:
        if not _all_finite(state):
            last = checkpoints.latest_step()
            raise DivergedError(
                f"step {done}: a parameter of the {stage.name} stage is NaN or infinite; its last "
                f"good checkpoint is of step {last}. Lower the learning rate",
                done,
                "parameters",
                last,
            )

    def read_losses(step: int, losses: Any) -> dict[str, float]:
        values = _scalars(losses)
        check_finite(step + 1, values, checkpoints.latest_step)
        return values

    def due(done: int) -> bool:
        every = stage.evaluate_every
        return done in (0, stage.total_steps) or (every > 0 and done % every == 0)

    # A stop at a step that was due left its evaluation out; a finished stage has one to return.
    finished = start >= stage.total_steps
    # Only the first process has a log; the others would wait for each other in an evaluation.
    evaluated = bool(from_first_process(log.evaluated(start)))
    # Asked for while the run started or, with several processes, after the stage before.
    stopping = stop.should_stop() and (stage.followed or not finished)
    if start == 0:
        check_state(0)
    wanted = due(start) and (stage.evaluate_every >= 0 or not evaluated)
    if not stopping and not metrics and (finished or wanted):
        metrics = evaluate(start)
        # For a checkpoint that a stop left without.
        checkpoints.add_metrics(start, metrics)
    if start == 0:
        if stage.draw and not stopping:
            stage.draw(state, 0, log)
        checkpoints.save(0, state, metrics)
    if stopping:
        checkpoints.wait()
        raise Stopped(stop.signal_name or "signal", stage.name, start)

    stage.progress(start)
    if metrics:
        stage.evaluated(start, metrics)
    pending: tuple[int, Any] | None = None
    window_start, window_steps, waited = time.perf_counter(), 0, 0.0
    for step in range(start, stage.total_steps):
        asked = time.perf_counter()
        batch = prefetch.batch(step)
        waited += time.perf_counter() - asked
        state, losses = stage.step(step, state, batch)
        if pending is not None:
            read_losses(*pending)
        pending = step, losses
        done, last = step + 1, step + 1 == stage.total_steps
        window_steps += 1
        stage.progress(done)

        if step == start or done % settings.every_steps == 0 or last:
            values = read_losses(*pending)
            pending = None
        if done == 1 or done % settings.every_steps == 0 or last:
            seconds = time.perf_counter() - window_start
            log.train(
                done,
                values,
                stage.inactive(step),
                images_per_second=stage.images_per_step * window_steps / seconds,
                data_share=waited / seconds,
            )
        if pending is None:
            # The first step, which holds the compilation, is no part of a later row's throughput.
            window_start, window_steps, waited = time.perf_counter(), 0, 0.0

        drawing = stage.draw and (last or done % settings.image_every_steps == 0)
        stopping = stop.should_stop()
        saving = due(done) or stopping or done % settings.checkpoint_every_steps == 0
        if drawing or saving:
            paused = time.perf_counter()
            if pending is not None:
                read_losses(*pending)
                pending = None
            # Before pictures and rankings, which have errors of their own for what is not finite.
            check_state(done)
            if drawing and stage.draw:
                stage.draw(state, done, log)
            metrics = evaluate(done) if due(done) and not (stopping and not last) else {}
            if saving:
                checkpoints.save(done, state, metrics)
            if metrics:
                stage.evaluated(done, metrics)
            # Pauses are no part of the throughput.
            window_start += time.perf_counter() - paused
        if stopping and (stage.followed or not last):
            checkpoints.wait()
            raise Stopped(stop.signal_name or "signal", stage.name, done)
    return state, metrics
