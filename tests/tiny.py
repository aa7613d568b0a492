"""The real configuration shrunk until a step compiles in seconds, and what such a step needs."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import base
from dgnet_jax.models import Networks
from dgnet_jax.models.initialization import init_parameters
from dgnet_jax.training.state import Optimizers, TrainState, create_state

IDENTITIES = 5


def tiny_config(fields: dict[str, Any] | None = None) -> ml_collections.ConfigDict:
    """The published configuration with tiny networks on 32 x 16 images, its ramps from step 0 on.

    `fields` override, by dotted name: tiny_config({"teacher.decay": 0.5}).
    """
    config = base.get_config()
    config.total_steps = 8
    config.batch_size = 8
    config.data.height, config.data.width = 32, 16
    config.data.cache_height, config.data.cache_width = 32, 16
    config.augment.pad = 2
    config.structure_encoder.dim = 4
    config.structure_encoder.num_residual = 1
    config.structure_encoder.dilations = (2,)
    config.decoder.num_residual = 1
    config.decoder.mlp_width = 8
    config.discriminator.dim = 4
    config.discriminator.num_residual = 1
    config.discriminator.num_scales = 1
    for network in (config.appearance, config.teacher):
        network.bottleneck = False
        network.stem = "strided"
        network.stage_sizes = (1,)
        network.stage_widths = (4,)
        network.embedding = 8
    config.appearance.init = "teacher"
    config.teacher.batch_size = 8
    config.teacher.total_steps = 6
    config.ramp.start, config.ramp.scale = 0, 0.1
    config.evaluation.batch_size = 16
    config.evaluation.every_steps = 0
    config.log.every_steps = 1
    config.log.image_every_steps = 1000
    config.log.image_rows = 2
    config.log.checkpoint_every_steps = 2
    config.update_from_flattened_dict(fields or {})
    return config


def get_config() -> ml_collections.ConfigDict:
    """For `launch.py --config=tests/tiny.py`."""
    return tiny_config()


def _filled(shapes: Any, seed: int) -> Any:
    """Variables like those of a trained network, without compiling an initialisation."""
    rng = np.random.default_rng(seed)

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        values = rng.standard_normal(leaf.shape)
        name = path[-1].key
        if name == "kernel":
            values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif name in ("scale", "gamma", "var"):
            values = 0.5 + rng.random(leaf.shape)
        else:
            values *= 0.1
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def tiny_state(networks: Networks, optimizers: Optimizers, step: int, seed: int = 1) -> TrainState:
    """A state in the middle of training."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda key: init_parameters(networks, 32, 16, key), key)
    return create_state(*_filled(shapes, seed), optimizers).replace(step=jnp.int32(step))


def tiny_teacher(networks: Networks) -> dict[str, Any]:
    """The variables of a teacher."""
    images = jnp.zeros((2, 32, 16, 3))
    return _filled(jax.eval_shape(networks.teacher.init, jax.random.key(0), images), 2)
