"""E_s: the structure encoder (pose, body, hair, background), docs/method.md, section 2.2."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dgnet_jax.models.blocks import ConvNorm, ResidualBlock, instance_norm


class AtrousPyramid(nn.Module):
    """Parallel 1x1 and dilated 3x3 branches, concatenated and fused by a 1x1 block."""

    features: int
    dilations: tuple[int, ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w {self.features}"]:
        width = self.features // (len(self.dilations) + 1)

        def block(name: str, x: Array, size: int = 1, dilation: int = 1, activate=False):
            return ConvNorm(
                width, size, dilation=dilation, activate=activate, dtype=self.dtype, name=name
            )(x)

        branches = [block("point", x)]
        for dilation in self.dilations:
            reduced = block(f"reduce_{dilation}", x, activate=True)
            branches.append(block(f"dilated_{dilation}", reduced, 3, dilation))
        joined = jnp.concatenate(branches, axis=-1)
        return ConvNorm(self.features, 1, activate=False, dtype=self.dtype, name="fuse")(joined)


class StructureEncoder(nn.Module):
    """Gray image to structure code.

    Attributes:
        dim: channels after the first convolution (16); the code has 8 * dim.
        num_residual: residual blocks (4).
        dilations: of the atrous pyramid's branches (3, 6, 9).
    """

    dim: int = 16
    num_residual: int = 4
    dilations: tuple[int, ...] = (3, 6, 9)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch (height+3)//4 (width+3)//4 8*{self.dim}"]:
        x = images.mean(-1, keepdims=True)
        plan = ((self.dim, 2), (2 * self.dim, 1), (2 * self.dim, 1), (4 * self.dim, 2))
        for index, (features, stride) in enumerate(plan):
            x = ConvNorm(features, 3, stride, dtype=self.dtype, name=f"conv_{index}")(x)
        norms = (instance_norm, instance_norm)
        for index in range(self.num_residual):
            x = ResidualBlock(norms, dtype=self.dtype, name=f"residual_{index}")(x)
        return AtrousPyramid(8 * self.dim, self.dilations, dtype=self.dtype, name="pyramid")(x)
