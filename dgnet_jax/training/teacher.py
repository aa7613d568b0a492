"""The teacher stage: a re-ID baseline, trained with cross-entropy, then frozen (dgnet.md, 1)."""

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

from dgnet_jax.convert import load_backbone, load_teacher_weights
from dgnet_jax.data.augment import augment, preprocess, random_erasing
from dgnet_jax.data.pipeline import ReidData, gather_labelled
from dgnet_jax.data.randomness import share_of
from dgnet_jax.data.sampling import ClassificationSampler
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.features import Embeddings, embed_two_views
from dgnet_jax.evaluation.retrieval import evaluate_retrieval
from dgnet_jax.models import apply, build_teacher
from dgnet_jax.models.reid import Teacher
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import Placement, to_host
from dgnet_jax.runtime.workdir import load_config
from dgnet_jax.training.loop import TEACHER_STAGE, Metrics, Stage, run_stage, stage_directory
from dgnet_jax.training.schedules import step_decay
from dgnet_jax.training.state import Params, reid_sgd

STAGE = TEACHER_STAGE
# What decides what the teacher computes, its number of identities aside.
_NETWORK_FIELDS = (
    "bottleneck",
    "stage_sizes",
    "stage_widths",
    "stem",
    "last_stride",
    "pooling",
    "embedding",
)


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
) -> tuple[Params, Metrics]:
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

    @jax.jit
    def features(variables: Params, images: jax.Array) -> Embeddings:
        def embed_view(view: jax.Array) -> Embeddings:
            view = preprocess(view, config.data.height, config.data.width)
            embedding = apply(teacher, variables, view).embedding
            return embedding, embedding

        return embed_two_views(embed_view, images)

    def evaluate(state: TeacherState) -> Metrics:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return evaluate_retrieval(partial(features, variables), data, config, placement, alpha=0.0)

    stage = Stage(
        name=STAGE,
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


def load_teacher(
    config: ml_collections.ConfigDict, num_identities: int, workdir: Path, placement: Placement
) -> Params:
    """The variables of a teacher that is trained already.

    Args:
        config: of the run that needs it.
        num_identities: of the run's data set.
        workdir: another run's work directory; or a .safetensors file, the teacher of the released
            program (`net_last.pth`) as `python -m dgnet_jax.convert` writes it. What such a file
            does not tell, the pooling and the strides, is `config.teacher`'s.

    Raises:
        InputError: there is none, it is unfinished, or of another network than `config.teacher`.
    """
    if workdir.is_file() or workdir.suffix in (".safetensors", ".pth"):
        return placement.put_state(_load_converted(config, num_identities, workdir))
    directory = stage_directory(workdir, STAGE)
    if not directory.is_dir():
        raise InputError(
            f"--config.teacher.checkpoint: no trained teacher in {workdir} (no {directory}); give "
            "the work directory of a run whose teacher stage is finished, or leave it empty to "
            "train one"
        )
    saved = load_config(workdir)
    refuse_other_network(config, saved, workdir)
    teacher = build_teacher(config, num_identities)
    optimizer = make_optimizer(config)
    blank = partial(blank_teacher, config, teacher, optimizer)
    abstract = placement.abstract(jax.eval_shape(blank, jax.random.key(config.seed)))
    with Checkpoints(directory, read_only=True) as checkpoints:
        state = checkpoints.restore(abstract)
    done, planned = int(state.step), saved.teacher.total_steps
    if done < planned:
        raise InputError(
            f"--config.teacher.checkpoint: the teacher in {workdir} is unfinished, at step {done} "
            f"of {planned}; run its training to the end first"
        )
    return {"params": state.params, "batch_stats": state.batch_stats}


def refuse_other_network(
    config: ml_collections.ConfigDict,
    saved: ml_collections.ConfigDict,
    workdir: Path,
    flag: str = "--config.teacher.checkpoint",
) -> None:
    """Raises InputError if the teacher in a work directory, named by `flag`, is of other fields.

    Its strides, pooling and stem leave no trace in the shapes of its parameters.
    """
    differences = [
        f"teacher.{field} is {saved.teacher[field]} there, {config.teacher[field]} now"
        for field in _NETWORK_FIELDS
        if saved.teacher[field] != config.teacher[field]
    ]
    if differences:
        raise InputError(
            f"{flag}: the teacher in {workdir} is another network: {'; '.join(differences)}. Set "
            "these fields to its values, or train another one"
        )


def _load_converted(config: ml_collections.ConfigDict, num_identities: int, path: Path) -> Params:
    variables = load_teacher_weights(path, build_teacher(config, num_identities))
    found = variables["params"]["head"]["classifier"]["kernel"].shape[-1]
    if found != num_identities:
        raise InputError(
            f"--config.teacher.checkpoint: the teacher in {path} knows {found} identities, the "
            f"data set has {num_identities}; it must have been trained on the same ones"
        )
    return variables
