"""The one teacher of a study, trained by whichever process comes first."""

import time
from functools import partial
from pathlib import Path

import ml_collections
from absl import logging

from dgnet_jax.config_fields import older_config
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.inference import load_teacher
from dgnet_jax.models import Variables
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import Placement, from_first_process, on_first_process
from dgnet_jax.runtime.workdir import TEACHER_STAGE, InUseError, stage_directory
from dgnet_jax.training.teacher import train_teacher

_SECONDS_BETWEEN_LOOKS = 5.0


def study_teacher(
    config: ml_collections.ConfigDict,
    data: ReidData,
    folder: Path,
    placement: Placement,
    may_differ: tuple[str, ...],
) -> Variables:
    """The teacher's variables, trained in `folder` unless that is done.

    While another process of the study trains it, this one waits; if that one ends early, this one
    continues from its last checkpoint.

    Args:
        config: the study's; its seed is the teacher's.
        data: the data set.
        folder: a work directory with the teacher's stage only.
        placement: of the variables.
        may_differ: fields that may differ from those of an earlier start.

    Raises:
        InputError: the folder holds another configuration's teacher.
        DivergedError, Stopped: as `trainer.train`.
    """
    refuse_other = work_directory.refuse_other
    on_first_process(partial(refuse_other, folder, config, may_differ, older_config()))
    waiting = False
    while not from_first_process(_is_finished(folder, config)):
        try:
            work_directory.prepare(folder, config, may_differ, older_config())
        except InUseError as error:
            if not waiting:
                logging.info("waiting for the teacher: %s", error)
            waiting = True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            continue
        try:
            variables, _ = train_teacher(config, data, folder, placement)
        finally:
            work_directory.unlock(folder)
        return variables
    return load_teacher(config, data.num_identities, folder, placement)


def _is_finished(folder: Path, config: ml_collections.ConfigDict) -> bool:
    directory = stage_directory(folder, TEACHER_STAGE)
    if not directory.is_dir():
        return False
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.latest_step()
    return step is not None and step >= config.teacher.total_steps
