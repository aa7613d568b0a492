"""A training run's checkpoint for users of the released program."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save

from dgnet_jax.config import CONFIG_KEY, trained_config
from dgnet_jax.convert.names import state_dict
from dgnet_jax.convert.released import released_state_dicts, write_released
from dgnet_jax.errors import InputError
from dgnet_jax.inference import load_model
from dgnet_jax.runtime.atomic import replacing
from dgnet_jax.runtime.checkpoints import Checkpoints, Step
from dgnet_jax.runtime.devices import to_host
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.workdir import DGNET_STAGE, as_json, stage_directory


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
    workdir = user_path(workdir)
    config = trained_config(workdir)
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
    with Checkpoints(stage_directory(workdir, DGNET_STAGE), read_only=True) as checkpoints:
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
    return write_released(state_dicts, user_path(folder), run.step)


def to_safetensors(
    workdir: str | Path,
    file: str | Path,
    step: Step | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Path:
    """Writes E_s, decoder and E_a of a checkpoint, with the run's configuration, as one file.

    `--config.released` and `config.trained_config` read it: it takes the place of a work directory
    where nothing is trained. Names are the released program's. Paths of the machine are left out of
    the configuration.

    Args:
        workdir: of the run.
        file: ends in .safetensors; its folder is made.
        step: as `inference.load_model`'s.
        dtype: of the kernels; biases, norms and statistics stay in float32.

    Raises:
        InputError: no such work directory or checkpoint, or another ending.
    """
    file = user_path(file)
    if file.suffix != ".safetensors":
        raise InputError(f"{file}: the file to write comes last and ends in .safetensors")
    workdir = user_path(workdir)
    config = trained_config(workdir)
    config.released = ""
    model = load_model(config, workdir, step)
    config.data.root = config.data.poses = config.pretrained = config.inception = ""
    config.teacher.checkpoint = ""
    parts = {
        "gen": state_dict("gen", {"params": to_host(model.generator)}),
        "id": state_dict("id", to_host(model.appearance)),
    }
    narrow = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    tensors = {
        f"{part}.{name}": np.ascontiguousarray(tensor, narrow if tensor.ndim > 1 else None)
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    metadata = {
        "networks": " ".join(parts),
        CONFIG_KEY: json.dumps(as_json(config), sort_keys=True),
        "step": str(model.step),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        temporary.write_bytes(save(tensors, metadata))
    return file
