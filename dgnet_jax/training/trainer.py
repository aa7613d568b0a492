"""Training of DG-Net in a work directory."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from dgnet_jax.config_fields import checked, older_config
from dgnet_jax.convert import load_backbone
from dgnet_jax.data.pipeline import ReidData, gather_pairs
from dgnet_jax.data.sampling import PairSampler
from dgnet_jax.data.synthetic import drawn_settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.variants import Metrics
from dgnet_jax.figures import save_png
from dgnet_jax.inference import load_teacher
from dgnet_jax.models import Networks, Variables
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.checkpoints import last_saved
from dgnet_jax.runtime.devices import (
    Placement,
    on_first_process,
    to_host,
    use_compilation_cache,
)
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.workdir import DGNET_STAGE, stage_directory
from dgnet_jax.training.loop import Stage, run_stage
from dgnet_jax.training.pictures import Painter
from dgnet_jax.training.run_log import RunLog
from dgnet_jax.training.schedules import first_active_step, ramp_start
from dgnet_jax.training.session import Session
from dgnet_jax.training.state import Optimizers, TrainState, blank_state
from dgnet_jax.training.teacher import log_start, train_baseline, train_teacher

# Parameters of the generator and E_a together; `small` has 2 million, ResNet-50 alone 23.
_FULL_SIZE = 10_000_000
# Fields that may change between a run and its continuation.
RESUMABLE = (
    "total_steps",
    "evaluation",
    "log",
    "report",
    "data.root",
    "data.cameras",
    "pretrained",
    "parallel",
    "released",
    "inception",
    "data.poses",
)
# What the progress line shows, most telling first.
SHOWN = (
    "self_reconstruction",
    "adversarial",
    "discriminator",
    "identity",
    "generated_identity",
    "cycle",
    "teacher",
)


def initial_state(
    config: ml_collections.ConfigDict,
    networks: Networks,
    optimizers: Optimizers,
    teacher: Variables | None,
    placement: Placement,
    init: Callable[[jax.Array], TrainState] | None = None,
) -> TrainState:
    """The state at step 0, on all devices: E_a's backbone from ImageNet, the teacher or scratch.

    `init` is `Session.blank_state`, where there is a session; it is compiled here otherwise.

    Raises:
        InputError: `appearance.init` is unknown, or the teacher's backbone has another shape.
    """
    start = config.appearance.init
    if start not in ("imagenet", "teacher"):
        raise InputError(f"--config.appearance.init: {start!r} is neither 'imagenet' nor 'teacher'")
    init = init or placement.compile_init(partial(blank_state, config, networks, optimizers))
    state = init(jax.random.key(config.seed))
    appearance = {"params": state.appearance, "batch_stats": state.appearance_stats}
    if start == "teacher":
        if teacher is not None:
            appearance = _with_backbone(appearance, teacher)
    elif config.pretrained:
        loaded = load_backbone(config.pretrained, to_host(appearance))
        log_start("the appearance encoder", config.pretrained, loaded.missing)
        appearance = placement.put_state(loaded.variables)
    else:
        logging.warning(
            "E_a starts from scratch: --config.pretrained is empty. The published results start "
            "from ImageNet weights; without them expect a far lower Rank@1 and mAP for the same "
            "number of steps. docs/training.md says how to convert torchvision's file."
        )
    # The optimisers' states are zeros, whatever the parameters are. Copied where they are the
    # teacher's own arrays, which the step must not take over with its state.
    own = placement.compile_init(partial(jax.tree.map, jnp.copy))(appearance)
    return replace(state, appearance=own["params"], appearance_stats=own["batch_stats"])


def check_pretrained(config: ml_collections.ConfigDict, state: TrainState) -> None:
    """Reads what E_a is to start from, before the teacher is trained.

    Args:
        config: of a run that starts afresh.
        state: shapes and types of its state.

    Raises:
        InputError: `config.pretrained` cannot be read, or is of another network.
    """
    if config.appearance.init != "imagenet" or not config.pretrained:
        return
    # Zeros that take no memory.
    blank = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
        {"params": state.appearance, "batch_stats": state.appearance_stats},
    )
    load_backbone(config.pretrained, blank)


def check_run(
    config: ml_collections.ConfigDict, session: Session, *, saved: int | None
) -> TrainState:
    """Finds out before the teacher is trained what a run would stumble over after it.

    Args:
        config: of the run, as `checked` returns it.
        session: that it will train in; keeps the steps that are traced here.
        saved: the step that it goes on from; None if it begins, and so reads what E_a starts from.

    Returns:
        The shapes and types of the run's state.

    Raises:
        InputError: a batch does not fit the devices or the data, or `config.pretrained` does not
            fit the network.
        Others: of a reconstruction loss of one's own that cannot be traced.
    """
    session.check_batches()
    abstract = jax.eval_shape(
        partial(blank_state, config, session.networks, session.optimizers),
        jax.random.key(config.seed),
    )
    session.check_steps(config, abstract, saved or 0)
    PairSampler(session.data.train_labels, config.batch_size, config.seed)
    if saved is None:
        check_pretrained(config, abstract)
    return abstract


def warn_of_a_cpu(state: Any) -> None:
    """Says what it means to train networks of full size where jax found CPUs only."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves((state.generator, state.appearance)))
    if jax.default_backend() == "cpu" and parameters > _FULL_SIZE and jax.process_index() == 0:
        logging.warning(
            "jax found CPUs only, and these are networks of full size (%d million parameters): a "
            "step takes most of a minute here, the published 100,000 steps months. Is a GPU or TPU "
            "missing, see BUILD.md under Troubleshooting; for a CPU there is the flag small: "
            "--config=configs/market.py:l1_rmse,small. --require_accelerator ends such a run.",
            round(parameters / 1e6),
        )


def _with_backbone(appearance: Variables, teacher: Variables) -> Variables:
    """E_a's variables with the teacher's backbone in them."""
    result = {}
    for collection, tree in appearance.items():
        own, trained = tree["backbone"], teacher[collection]["backbone"]
        if jax.tree.map(jnp.shape, own) != jax.tree.map(jnp.shape, trained):
            raise InputError(
                "--config.appearance.init: 'teacher' needs the same backbone in config.appearance "
                "and config.teacher (bottleneck, stem, stage_sizes, stage_widths); only their "
                "last_stride and pooling may differ"
            )
        result[collection] = {**tree, "backbone": trained}
    return result


def inactive_terms(config: ml_collections.ConfigDict, step: int) -> dict[str, str]:
    """The terms of rising weight that do not act at a 0-based step, and until when."""
    reasons = {}
    for name in ("structure_code", "appearance_code", "cycle", "teacher"):
        start = ramp_start(config.ramp, name)
        first = first_active_step(config.weights[name], start, config.ramp.scale)
        if first is None:
            reasons[name] = "in this run"
        elif step < first:
            reasons[name] = f"until step {first + 1}"
    start, steps = config.ramp.generated_identity_start, config.ramp.generated_identity_steps
    if steps and step <= start:
        reasons["generated_identity"] = f"until step {start + 2}"
    return reasons


def get_teacher(
    config: ml_collections.ConfigDict, data: ReidData, workdir: Path, placement: Placement
) -> Variables:
    """The teacher's variables: from `config.teacher.checkpoint`, or trained in `workdir`."""
    if config.teacher.checkpoint:
        return load_teacher(config, data.num_identities, Path(config.teacher.checkpoint), placement)
    variables, _ = train_teacher(config, data, workdir, placement)
    return variables


def train(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    *,
    session: Session | None = None,
    progress: Callable[[int], None] = lambda done: None,
    evaluated: Callable[[int, Metrics], None] = lambda done, metrics: None,
) -> Metrics:
    """Trains the teacher if there is none, then DG-Net; goes on where an earlier call stopped.

    With `config.baseline` it trains the teacher's network alone, see `teacher.train_baseline`.

    Args:
        config: from `configs/`; see `dgnet_jax.config` for every field.
        workdir: gets the config, checkpoints, `metrics.jsonl`, TensorBoard files and pictures.
        session: what other runs of this process have made already; with a teacher in it, which is
            `config.teacher.checkpoint`'s, none is trained or read.
        progress: gets the number of finished steps of DG-Net, at the start and after each.
        evaluated: gets (step, metrics) in every process once an evaluation of DG-Net and its
            checkpoint are made; a run that goes on begins with those of its checkpoint. It may
            raise, in all processes alike, to end the run, which can be continued as after a stop.

    Returns:
        The ranking metrics of the last state, in shares of 1: rank1, rank5, rank10, rank20,
        mAP (trapezoid, as DG-Net and the thesis report it), mAP_standard, mINP, and counts. Of a
        drawn data set also appearance_transfer and structure_kept, see `truth.measure_truth`.

    Raises:
        InputError: a field, file or work directory is wrong.
        DivergedError: a loss or parameter became NaN or infinite.
        Stopped: SIGTERM or Ctrl-C came; the state is saved.
    """
    config = checked(config)
    if config.baseline:
        return train_baseline(config, workdir)
    if config.data.get("generated"):
        raise InputError(
            "--config.data.generated is for the baseline, configs/market.py:baseline; DG-Net "
            "itself trains on real images"
        )
    use_compilation_cache()
    session = session or Session(config)
    session.check(config)
    placement = session.placement
    data, networks, optimizers = session.data, session.networks, session.optimizers
    saved = last_saved(stage_directory(user_path(workdir), DGNET_STAGE))
    abstract = check_run(config, session, saved=saved)
    may_differ = RESUMABLE if session.teacher is None else (*RESUMABLE, "teacher.checkpoint")
    workdir = work_directory.prepare(workdir, config, may_differ, older_config())
    try:
        warn_of_a_cpu(abstract)
        sampler = PairSampler(data.train_labels, config.batch_size, config.seed)
        drawn = on_first_process(partial(drawn_settings, config.data.root))
        painter = Painter(config, networks, data.train_images, drawn)
        teacher = session.teacher
        if teacher is None:
            teacher = get_teacher(config, data, workdir, placement)

        def batch(step: int) -> Any:
            chosen = sampler.batch(step)
            return placement.put_batch(
                config.batch_size, lambda rows: gather_pairs(data.train_images, chosen[rows])
            )

        inputs, reconstruction = session.inputs(config), session.reconstruction(config)

        def step(step: int, state: TrainState, batch: Any) -> tuple[TrainState, Any]:
            program = session.step(config, step, reconstruction)
            return program(state, teacher, batch, inputs)

        def evaluate(state: TrainState) -> Metrics:
            return session.evaluator(state.appearance_variables) | painter.measure(state)

        def draw(state: TrainState, step: int, log: RunLog) -> None:
            for name, picture in painter.pictures(state, step).items():
                if jax.process_index() == 0:
                    path = workdir / "pictures" / f"{name}_{step:07d}.png"
                    save_png(picture, path, {"step": str(step), "seed": str(config.seed)})
                    log.image(step, name, np.asarray(picture))

        stage = Stage(
            name=DGNET_STAGE,
            total_steps=config.total_steps,
            images_per_step=2 * config.batch_size,
            abstract=placement.abstract(abstract),
            initial=partial(
                initial_state,
                config,
                networks,
                optimizers,
                teacher,
                placement,
                session.blank_state,
            ),
            step=step,
            batch=batch,
            evaluate=evaluate,
            draw=draw,
            inactive=partial(inactive_terms, config),
            shown=SHOWN,
            evaluate_every=config.evaluation.every_steps,
            measure=painter.measure,
            progress=progress,
            evaluated=evaluated,
        )
        _, metrics = run_stage(stage, workdir, config)
        return metrics
    finally:
        work_directory.unlock(workdir)
