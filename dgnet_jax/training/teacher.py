"""The teacher stage: a re-ID baseline, trained with cross-entropy, then frozen.

docs/method.md, sections 2.6 and 5.4.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from jax import lax

from dgnet_jax.config_fields import checked, older_config
from dgnet_jax.convert import load_backbone
from dgnet_jax.data.augment import augment, random_erasing
from dgnet_jax.data.generated import open_mixed_data
from dgnet_jax.data.pipeline import ReidData, gather_labelled
from dgnet_jax.data.randomness import share_of
from dgnet_jax.data.sampling import ClassificationSampler
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.retrieval import evaluate_retrieval
from dgnet_jax.evaluation.variants import Metrics
from dgnet_jax.models import Params, Variables, apply, build_teacher
from dgnet_jax.models.embedding import Embeddings
from dgnet_jax.models.forward import TeacherForward
from dgnet_jax.models.reid import Teacher
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.dataset import open_data
from dgnet_jax.runtime.devices import Placement, place, to_host, use_compilation_cache
from dgnet_jax.runtime.workdir import TEACHER_STAGE
from dgnet_jax.training.loop import Stage, run_stage
from dgnet_jax.training.schedules import step_decay
from dgnet_jax.training.state import reid_sgd


@flax.struct.dataclass
class TeacherState:
    """Parameters, running statistics and optimiser of the teacher; step: int32."""

    step: jax.Array
    params: Params
    batch_stats: Params
    optimizer: optax.OptState


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """SGD with Nesterov momentum and step decay; the backbone at a share of the head's rate."""
    settings = config.teacher

    def rate(value: float) -> optax.Schedule:
        return step_decay(value, tuple(settings.milestones), settings.decay, settings.warmup_steps)

    return reid_sgd(
        rate(settings.learning_rate * settings.backbone_factor),
        rate(settings.learning_rate),
        settings.momentum,
        settings.weight_decay,
    )


def blank_teacher(
    config: ml_collections.ConfigDict,
    teacher: Teacher,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
) -> TeacherState:
    """A teacher at step 0 as initialised. Pure."""
    images = jnp.zeros((2, config.data.height, config.data.width, 3))
    variables = teacher.init(key, images)
    return TeacherState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        optimizer=optimizer.init(variables["params"]),
    )


def init_teacher(
    config: ml_collections.ConfigDict,
    teacher: Teacher,
    optimizer: optax.GradientTransformation,
    placement: Placement,
) -> TeacherState:
    """A fresh teacher on all devices, its backbone from `config.pretrained` if that is given."""
    init = placement.compile_init(partial(blank_teacher, config, teacher, optimizer))
    state = init(jax.random.key(config.seed))
    if not config.pretrained:
        return state
    variables = to_host({"params": state.params, "batch_stats": state.batch_stats})
    loaded = load_backbone(config.pretrained, variables)
    log_start("the teacher", config.pretrained, loaded.missing)
    # The optimiser's state is zeros, whatever the parameters are.
    return replace(state, **placement.put_state(loaded.variables))


def log_start(network: str, path: str, missing: list[str]) -> None:
    """Says which layers of a backbone the pretrained file did not hold."""
    if not missing:
        logging.info("%s starts from %s", network, path)
        return
    logging.warning(
        "%s starts from %s, except for %d tensors that the file lacks, which start from their "
        "initialisation: %s",
        network,
        path,
        len(missing),
        ", ".join(missing),
    )


def make_step(
    config: ml_collections.ConfigDict,
    teacher: Teacher,
    optimizer: optax.GradientTransformation,
    axis: str | None = None,
) -> Callable[[TeacherState, Any], tuple[TeacherState, dict[str, jax.Array]]]:
    """Builds the pure step (state, {"images" uint8, "labels"}) -> (state, losses).

    With "targets" in the batch, (batch, identities) distributions, these are learnt. `axis` is as
    of `train_step.make_update`.
    """
    average = partial(lax.pmean, axis_name=axis) if axis else lambda tree: tree

    def step(state: TeacherState, batch: Any) -> tuple[TeacherState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, erase_key, dropout_key = jax.random.split(key, 3)
        images = augment(
            augment_key,
            batch["images"],
            height=config.data.height,
            width=config.data.width,
            pad=config.augment.pad,
            mirror_probability=config.augment.mirror_probability,
            share=share_of(axis),
        )
        if config.teacher.erasing_probability:
            images = random_erasing(
                erase_key,
                images,
                probability=config.teacher.erasing_probability,
                area=tuple(config.augment.erasing_area),
                aspect=config.augment.erasing_aspect,
                attempts=config.augment.erasing_attempts,
                share=share_of(axis),
            )

        def loss_of(params: Params) -> tuple[jax.Array, Any]:
            output, updated = apply(
                teacher,
                {"params": params, "batch_stats": state.batch_stats},
                images,
                use_running_average=False,
                drop=share_of(axis),
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            if "targets" in batch:
                loss = optax.softmax_cross_entropy(output.logits, batch["targets"])
            else:
                loss = optax.softmax_cross_entropy_with_integer_labels(
                    output.logits, batch["labels"]
                )
            correct = output.logits.argmax(-1) == batch["labels"]
            return loss.mean(), (updated["batch_stats"], correct.mean())

        (loss, (stats, accuracy)), gradient = average(
            jax.value_and_grad(loss_of, has_aux=True)(state.params)
        )
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        new_state = TeacherState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=stats,
            optimizer=optimizer_state,
        )
        return new_state, {"cross_entropy": loss, "accuracy": accuracy}

    return step


def train_teacher(
    config: ml_collections.ConfigDict,
    data: ReidData,
    workdir: Path,
    placement: Placement,
    targets: Callable[[np.ndarray], np.ndarray] | None = None,
    followed: bool = True,
) -> tuple[Variables, Metrics]:
    """Trains the teacher in `workdir`, or goes on, or finds it finished.

    Args:
        placement: on devices over which `config.teacher.batch_size` divides (`check_batch`).
        targets: indices of training images to the distributions to learn, (n, identities); the
            labels by default.
        followed: see `loop.Stage`.

    Returns:
        Its variables {"params", "batch_stats"}, on all devices, and its evaluation.
    """
    settings = config.teacher
    teacher = build_teacher(config, data.num_identities)
    optimizer = make_optimizer(config)
    sampler = ClassificationSampler(data.train_labels, settings.batch_size, config.seed)

    def batch(step: int) -> Any:
        chosen = sampler.batch(step)

        def gather(rows: slice) -> dict[str, np.ndarray]:
            arrays = gather_labelled(data.train_images, chosen[rows])
            if targets is not None:
                arrays["targets"] = targets(chosen[rows].image)
            return arrays

        return placement.put_batch(settings.batch_size, gather)

    step = placement.compile_step(
        partial(make_step, config, teacher, optimizer), arguments=2, batch_argument=1
    )
    blank = partial(blank_teacher, config, teacher, optimizer)

    forward = TeacherForward(teacher, config.data.height, config.data.width)

    @jax.jit
    def features(variables: Variables, images: jax.Array) -> Embeddings:
        embedding = forward.embeddings(variables, images)
        return embedding, embedding

    def evaluate(state: TeacherState) -> Metrics:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return evaluate_retrieval(partial(features, variables), data, config, placement, alpha=0.0)

    stage = Stage(
        name=TEACHER_STAGE,
        total_steps=settings.total_steps,
        images_per_step=settings.batch_size,
        abstract=placement.abstract(jax.eval_shape(blank, jax.random.key(config.seed))),
        initial=partial(init_teacher, config, teacher, optimizer, placement),
        step=lambda _, state, batch: step(state, batch),
        batch=batch,
        evaluate=evaluate,
        draw=None,
        inactive=lambda step: {},
        shown=("cross_entropy", "accuracy"),
        evaluate_every=min(config.evaluation.every_steps, 0),
        followed=followed,
    )
    state, metrics = run_stage(stage, workdir, config)
    return {"params": state.params, "batch_stats": state.batch_stats}, metrics


# Fields of a baseline that may change between a run and its continuation.
BASELINE_RESUMABLE = (
    *("teacher.total_steps", "evaluation", "log", "report", "parallel"),
    *("data.root", "data.cameras", "data.poses", "inception"),
    "teacher.label_dropout",
)


def train_baseline(config: ml_collections.ConfigDict, workdir: str | Path) -> Metrics:
    """Trains the baseline of `config.teacher`; goes on where an earlier call stopped.

    Args:
        config: `data.generated` names a generated data set, or is empty.
        workdir: gets the checkpoints, and can be another run's `teacher.checkpoint`.

    Returns:
        The ranking metrics of its end, in shares of 1.

    Raises:
        InputError, DivergedError, Stopped: as `trainer.train`.
    """
    config = checked(config)
    use_compilation_cache()
    placement = place(config.parallel)
    placement.check_batch("teacher.batch_size", config.teacher.batch_size)
    data = open_data(config)
    targets = None
    if config.data.generated:
        mixed = open_mixed_data(config, data)
        data, targets = mixed, mixed.train_targets
    elif not config.data.real:
        raise InputError("--config.data.real=False needs --config.data.generated=DIR")
    workdir = work_directory.prepare(workdir, config, BASELINE_RESUMABLE, older_config())
    try:
        _, metrics = train_teacher(config, data, workdir, placement, targets, followed=False)
        return metrics
    finally:
        work_directory.unlock(workdir)
