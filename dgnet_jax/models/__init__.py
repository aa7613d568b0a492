"""The networks of DG-Net as functional Flax modules."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jax.typing import DTypeLike

from dgnet_jax.errors import InputError
from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.discriminator import Discriminator
from dgnet_jax.models.reid import AppearanceEncoder, Teacher
from dgnet_jax.models.resnet import ResNet
from dgnet_jax.models.structure_encoder import StructureEncoder

# The parameters of a network; all its variables, {"params", "batch_stats"}.
Params = dict[str, Any]
Variables = dict[str, Params]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}


class Networks(NamedTuple):
    """The modules of DG-Net; their parameters live in `training.state.TrainState`."""

    structure_encoder: StructureEncoder
    decoder: Decoder
    appearance_encoder: AppearanceEncoder
    discriminator: Discriminator
    teacher: Teacher


def apply(module: nn.Module, variables: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
    """`module.apply`, whose declared type no type checker can narrow: it depends on `mutable`."""
    return module.apply(variables, *arguments, **options)


def compute_dtype(config: ml_collections.ConfigDict) -> DTypeLike:
    """The type of convolutions and matmuls.

    Raises:
        InputError: `config.dtype` is none of float32, bfloat16, float64, or is float64 while jax
            would compute in float32 in its place.
    """
    if config.dtype not in DTYPES:
        raise InputError(
            f"--config.dtype: {config.dtype!r} is not a known type; use one of {', '.join(DTYPES)}"
        )
    if config.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise InputError(
            "--config.dtype: 'float64' needs jax's 64-bit mode, which is off: without it "
            "everything would be computed in float32. Set the environment variable JAX_ENABLE_X64=1"
        )
    return DTYPES[config.dtype]


def build_resnet(config: ml_collections.ConfigDict, dtype: DTypeLike) -> ResNet:
    """The backbone of `config.appearance` or `config.teacher`."""
    return ResNet(
        stage_sizes=tuple(config.stage_sizes),
        stage_widths=tuple(config.stage_widths),
        bottleneck=config.bottleneck,
        last_stride=config.last_stride,
        stem=config.stem,
        dtype=dtype,
    )


def build_teacher(config: ml_collections.ConfigDict, num_identities: int) -> Teacher:
    """The teacher's module."""
    return Teacher(
        backbone=build_resnet(config.teacher, compute_dtype(config)),
        num_identities=num_identities,
        pooling=config.teacher.pooling,
        embedding=config.teacher.embedding,
        dropout=config.teacher.dropout,
    )


def build_networks(config: ml_collections.ConfigDict, num_identities: int) -> Networks:
    """All modules, from the config.

    Raises:
        InputError: fields that do not fit together.
    """
    dtype = compute_dtype(config)
    appearance_encoder = AppearanceEncoder(
        backbone=build_resnet(config.appearance, dtype),
        num_identities=num_identities,
        parts=config.appearance.parts,
        pooling=config.appearance.pooling,
        embedding=config.appearance.embedding,
        dropout_prime=config.appearance.dropout_prime,
        dropout_fine=config.appearance.dropout_fine,
    )
    if appearance_encoder.code_size % config.decoder.num_residual:
        raise InputError(
            f"--config.decoder.num_residual: {config.decoder.num_residual} blocks cannot share an "
            f"appearance code of {appearance_encoder.code_size} values (config.appearance.parts "
            "times the last stage's channels) evenly"
        )
    if config.data.height % 4 or config.data.width % 4:
        raise InputError(
            f"--config.data.height and width: {config.data.height} x {config.data.width} are not "
            "multiples of 4, the structure encoder's stride"
        )
    return Networks(
        structure_encoder=StructureEncoder(
            dim=config.structure_encoder.dim,
            num_residual=config.structure_encoder.num_residual,
            dilations=tuple(config.structure_encoder.dilations),
            dtype=dtype,
        ),
        decoder=Decoder(
            num_residual=config.decoder.num_residual,
            mlp_width=config.decoder.mlp_width,
            dtype=dtype,
        ),
        appearance_encoder=appearance_encoder,
        discriminator=Discriminator(
            dim=config.discriminator.dim,
            num_residual=config.discriminator.num_residual,
            num_scales=config.discriminator.num_scales,
            dtype=dtype,
        ),
        teacher=build_teacher(config, num_identities),
    )
