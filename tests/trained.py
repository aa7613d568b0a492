"""A work directory as a run leaves it, with tiny networks that were never trained."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections
from tiny import IDENTITIES, tiny_config, tiny_state, tiny_teacher

from dgnet_jax.models import build_networks
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.workdir import DGNET_STAGE, TEACHER_STAGE, stage_directory
from dgnet_jax.training.state import TrainState, make_optimizers
from dgnet_jax.training.teacher import TeacherState, make_optimizer

STEP = 3
BEST = STEP + 1


def save_run(
    workdir: Path, fields: dict[str, Any] | None = None, seed: int = 1
) -> tuple[ml_collections.ConfigDict, TrainState, dict[str, Any]]:
    """Writes config and checkpoints; returns the config, DG-Net's state and the teacher.

    seed: of DG-Net's weights.
    """
    config = tiny_config(fields)
    networks = build_networks(config, IDENTITIES)
    state = tiny_state(networks, make_optimizers(config), STEP, seed)
    teacher = tiny_teacher(networks)
    work_directory.unlock(work_directory.prepare(workdir, config))
    with Checkpoints(stage_directory(workdir, DGNET_STAGE), config) as checkpoints:
        checkpoints.save(STEP, state)
    steps = config.teacher.total_steps
    finished = TeacherState(
        step=jnp.int32(steps),
        params=teacher["params"],
        batch_stats=teacher["batch_stats"],
        optimizer=make_optimizer(config).init(teacher["params"]),
    )
    with Checkpoints(stage_directory(workdir, TEACHER_STAGE), config) as checkpoints:
        checkpoints.save(steps, finished)
    return config, state, teacher


def save_evaluated(
    workdir: Path, config: ml_collections.ConfigDict, states: tuple[TrainState, TrainState]
) -> None:
    """Adds two evaluated checkpoints: the first, of step BEST, is the best, the other the last."""
    with Checkpoints(stage_directory(workdir, DGNET_STAGE), config) as checkpoints:
        for step, state, accuracy in zip((BEST, BEST + 1), states, (0.5, 0.25), strict=True):
            state = state.replace(step=jnp.int32(step))
            checkpoints.save(step, state, {"mAP": accuracy})
