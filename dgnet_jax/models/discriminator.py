"""D: PatchGAN at several scales with separate parameters (docs/method.md, section 2.5)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dgnet_jax.models.blocks import Conv, ResidualBlock, leaky_relu

_normal_init = nn.initializers.normal(0.02)


def _pool_axis(x: Array, axis: int) -> Array:
    """Mean over windows of 3, stride 2, along one axis; padding of 1 is not counted."""
    size = x.shape[axis]
    outputs = (size - 1) // 2 + 1
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    padded = jnp.pad(x, pad)
    total = sum(
        jax.lax.slice_in_dim(padded, offset, offset + 2 * outputs - 1, 2, axis)
        for offset in range(3)
    )
    position = 2 * jnp.arange(outputs)
    counted = 3 - (position == 0).astype(x.dtype) - (position == size - 1).astype(x.dtype)
    shape = [1] * x.ndim
    shape[axis] = outputs
    return total / counted.reshape(shape)


def average_pool(
    images: Float[Array, "batch h w c"],
) -> Float[Array, "batch (h+1)//2 (w+1)//2 c"]:
    """3x3 average pooling, stride 2, padding 1 that is not counted."""
    return _pool_axis(_pool_axis(images, 1), 2)


class PatchDiscriminator(nn.Module):
    """One scale: images to a map of real-or-fake scores, a quarter as high and wide."""

    dim: int = 32
    num_residual: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"]) -> Float[Array, "batch h w 1"]:
        plan = ((1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 1), (3, 2, 2))
        for index, (size, stride, widen) in enumerate(plan):
            conv = Conv(
                widen * self.dim,
                size,
                stride,
                padding=size // 2,
                forward_mode=True,
                kernel_init=_normal_init,
                dtype=self.dtype,
                name=f"conv_{index}",
            )
            x = leaky_relu(conv(x))
        identity = (lambda y: y, lambda y: y)
        for index in range(self.num_residual):
            x = ResidualBlock(
                identity,
                forward_mode=True,
                kernel_init=_normal_init,
                dtype=self.dtype,
                name=f"residual_{index}",
            )(x)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return Conv(1, 1, kernel_init=_normal_init, dtype=wide, name="scores")(x)


class Discriminator(nn.Module):
    """The patch discriminators of all scales, the first on the full image."""

    dim: int = 32
    num_residual: int = 4
    num_scales: int = 3
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.scales = [
            PatchDiscriminator(self.dim, self.num_residual, dtype=self.dtype)
            for _ in range(self.num_scales)
        ]

    def at_scale(
        self, images: Float[Array, "batch height width 3"], index: int
    ) -> Float[Array, "batch h w 1"]:
        """Scores of scale `index` alone, for full-size images."""
        for _ in range(index):
            images = average_pool(images)
        return self.scales[index](images)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> list[Float[Array, "batch _h _w 1"]]:
        """One map of scores a scale."""
        scores = []
        for index in range(self.num_scales):
            scores.append(self.scales[index](images))
            if index + 1 < self.num_scales:
                images = average_pool(images)
        return scores
