"""Initial parameters of the networks, as published."""

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from dgnet_jax.models import Networks, Params, Variables


def init_parameters(
    networks: Networks, height: int, width: int, key: PRNGKeyArray
) -> tuple[Params, Variables, Params]:
    """Initial generator parameters, E_a's variables and D's parameters, as published.

    The key is split by network, so that one network's shape does not move another's draw.
    """
    keys = jax.random.split(key, 4)
    images = jnp.zeros((2, height, width, 3))
    structure = networks.structure_encoder.init(keys[0], images)["params"]
    code = jnp.zeros((2, networks.appearance_encoder.code_size))
    structure_code = jnp.zeros((2, height // 4, width // 4, 8 * networks.structure_encoder.dim))
    decoder = networks.decoder.init(keys[1], structure_code, code)["params"]
    appearance = dict(networks.appearance_encoder.init(keys[2], images))
    discriminator = networks.discriminator.init(keys[3], images)["params"]
    return {"structure_encoder": structure, "decoder": decoder}, appearance, discriminator
