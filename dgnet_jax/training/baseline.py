"""The re-ID baseline alone: the teacher's network, trained on real images, generated ones or both.

    python launch.py --config=configs/market.py:baseline --config.data.root=DIR \\
        --config.data.generated=GENERATED --workdir=runs/baseline

measures what a generated data set (`--mode=generate --task=dataset`) is worth. Evaluating on
another data set than the generator's (`--config.data.root`, with --config.data.real=False) measures
it across data sets.
"""

from pathlib import Path

import ml_collections

from configs import base
from dgnet_jax.data.generated import open_mixed_data
from dgnet_jax.data.pipeline import open_data
from dgnet_jax.errors import InputError
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.compilation import use_compilation_cache
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.loop import Metrics
from dgnet_jax.training.teacher import train_teacher

RESUMABLE = ("teacher.total_steps", "evaluation", "log", "report", "data.root", "parallel")


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
    use_compilation_cache()
    placement = place(config.get("parallel", "mesh"))
    placement.check_batch("teacher.batch_size", config.teacher.batch_size)
    data = open_data(config)
    targets = None
    if config.data.generated:
        mixed = open_mixed_data(config, data)
        data, targets = mixed, mixed.train_targets
    elif not config.data.real:
        raise InputError("--config.data.real=False needs --config.data.generated=DIR")
    workdir = work_directory.prepare(workdir, config, RESUMABLE, base.get_config())
    try:
        _, metrics = train_teacher(config, data, workdir, placement, targets, followed=False)
        return metrics
    finally:
        work_directory.unlock(workdir)
