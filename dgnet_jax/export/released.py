"""A training run's checkpoint for users of the released program."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from dgnet_jax.config import trained_config
from dgnet_jax.convert.released import released_state_dicts, write_released
from dgnet_jax.inference import load_model
from dgnet_jax.runtime.checkpoints import Checkpoints, Step
from dgnet_jax.runtime.devices import to_host
from dgnet_jax.runtime.workdir import DGNET_STAGE, stage_directory


class Run(NamedTuple):
    """generator, discriminator: parameters; appearance: variables; NumPy arrays. step: done."""

    generator: dict[str, Any]
    appearance: dict[str, Any]
    discriminator: dict[str, Any]
    step: int


def read_run(workdir: str | Path, step: Step | None = None) -> Run:
    """Reads a checkpoint of DG-Net; no data set is needed.

    Args:
        workdir: of the run.
        step: as `inference.load_model`'s.

    Raises:
        InputError: no such work directory or checkpoint.
    """
    config = trained_config(str(workdir))
    # A run that only evaluates released weights has none of its own.
    config.released = ""
    model = load_model(config, workdir, step)
    images = jax.ShapeDtypeStruct((2, config.data.height, config.data.width, 3), "float32")
    module = model.networks.discriminator
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=model.placement.replicated
        ),
        {"discriminator": variables["params"]},
    )
    with Checkpoints(stage_directory(Path(workdir), DGNET_STAGE), read_only=True) as checkpoints:
        found = checkpoints.restore_part(wanted, model.step)
    return Run(
        to_host(model.generator),
        to_host(model.appearance),
        to_host(found["discriminator"]),
        model.step,
    )


def to_released(workdir: str | Path, folder: str | Path, step: Step | None = None) -> list[Path]:
    """Writes a checkpoint of a work directory as the released program's three files.

    Args:
        workdir: of the run.
        folder: gets gen_########.pt, id_########.pt and dis_########.pt; PyTorch has to be there.
        step: as `inference.load_model`'s.

    Returns:
        The files.

    Raises:
        InputError: no such work directory or checkpoint, or the folder cannot be written to.
    """
    run = read_run(workdir, step)
    state_dicts = released_state_dicts(run.generator, run.appearance, run.discriminator, run.step)
    return write_released(state_dicts, Path(folder), run.step)
