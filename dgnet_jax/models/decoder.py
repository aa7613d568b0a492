"""G: the decoder, which paints an appearance code onto a structure code.

docs/method.md, section 2.4.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dgnet_jax.models.blocks import (
    MLP,
    Conv,
    ImageLayerNorm,
    ResidualBlock,
    adaptive_instance_norm,
    leaky_relu,
)


class Decoder(nn.Module):
    """Structure and appearance codes to an ImageNet-normalised image.

    Attributes:
        num_residual: AdaIN residual blocks (4). Block i reads slice i of the appearance code.
        mlp_width: hidden width of the MLPs that make AdaIN's scales and shifts (512).
    """

    num_residual: int = 4
    mlp_width: int = 512
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        structure_code: Float[Array, "batch h w c"],
        appearance_code: Float[Array, "batch code"],
    ) -> Float[Array, "batch 4*h 4*w 3"]:
        x = structure_code
        channels = x.shape[-1]
        widths = (self.mlp_width, self.mlp_width, 2 * channels)
        slices = jnp.split(appearance_code, self.num_residual, axis=-1)
        for index, code in enumerate(slices):
            scale = MLP(widths, dtype=self.dtype, name=f"scale_mlp_{index}")(code)
            shift = MLP(widths, dtype=self.dtype, name=f"shift_mlp_{index}")(code)
            scales, shifts = jnp.split(scale, 2, axis=-1), jnp.split(shift, 2, axis=-1)
            norms = (
                partial(adaptive_instance_norm, scale=scales[0], shift=shifts[0]),
                partial(adaptive_instance_norm, scale=scales[1], shift=shifts[1]),
            )
            x = ResidualBlock(norms, dtype=self.dtype, name=f"residual_{index}")(x)
        for index in range(2):
            channels //= 2
            x = Conv(
                channels, 5, padding=2, upsample=True, dtype=self.dtype, name=f"upsample_{index}"
            )(x)
            x = leaky_relu(ImageLayerNorm(name=f"upsample_norm_{index}")(x))
        for index in range(2):
            conv = Conv(channels, 3, padding=1, dtype=self.dtype, name=f"refine_{index}")
            x = leaky_relu(conv(x))
        # Pixels are not rounded to bfloat16, whose steps are wider than those of 8 bits.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return Conv(3, 1, dtype=wide, name="to_image")(x)
