"""Layers that the paper's networks share: convolution, padding, norms, residual blocks, MLP.

All feature maps are (batch, height, width, channels). `dtype` is the type of convolutions and
matmuls; statistics of norms are computed in at least float32.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Initializer = jax.nn.initializers.Initializer

LEAKY_SLOPE = 0.2
NORM_EPSILON = 1e-5

# Encoder, decoder and MLPs: kaiming normal, fan-in, gain sqrt 2.
kaiming_fan_in = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU of slope 0.2."""
    return jnp.where(x >= 0, x, LEAKY_SLOPE * x)


def statistics_dtype(x: Array) -> jnp.dtype:
    """The type in which statistics of `x` are computed: float32, or float64 for float64 input."""
    return jnp.promote_types(x.dtype, jnp.float32)


def reflect_pad(x: Array, padding: int) -> Array:
    """Pads rows and columns by reflection, the border row or column itself not repeated."""
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")


class Conv(nn.Module):
    """A convolution with the padding of the released networks.

    Attributes:
        features: output channels.
        kernel_size: rows and columns of the kernel.
        padding: rows and columns added on each side.
        reflect: pad by reflection (the DG-Net blocks) rather than with zeros (ResNets).
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    reflect: bool = True
    use_bias: bool = True
    kernel_init: Initializer = kaiming_fan_in
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        if size == 1 and not self.padding:
            # XLA's CPU convolution computes 1 x 1 weight gradients several times slower than a matmul.
            x = x[:, :: self.stride, :: self.stride] if self.stride > 1 else x
            y = lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
        else:
            zeros = 0 if self.reflect else self.padding
            if self.reflect and self.padding:
                x = reflect_pad(x, self.padding)
            y = lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.stride, self.stride),
                padding=((zeros, zeros), (zeros, zeros)),
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def instance_norm(x: Array) -> Array:
    """Instance norm without affine parameters: per image and channel, biased variance."""
    wide = x.astype(statistics_dtype(x))
    mean = wide.mean((1, 2), keepdims=True)
    variance = jnp.square(wide - mean).mean((1, 2), keepdims=True)
    return ((wide - mean) * lax.rsqrt(variance + NORM_EPSILON)).astype(x.dtype)


def adaptive_instance_norm(x: Array, scale: Array, shift: Array) -> Array:
    """AdaIN: instance norm, times `scale`, plus `shift` (both (batch, channels)); no "1 +"."""
    scale, shift = scale[:, None, None, :], shift[:, None, None, :]
    return instance_norm(x) * scale.astype(x.dtype) + shift.astype(x.dtype)


def _uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype)


class ImageLayerNorm(nn.Module):
    """Layer norm over rows, columns and channels of each image, with the unbiased deviation.

    (x - mean) / (std + 1e-5), times a per-channel gamma (drawn uniformly from [0, 1)) plus beta.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gamma = self.param("gamma", _uniform, (x.shape[-1],))
        beta = self.param("beta", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(statistics_dtype(x))
        count = x.shape[1] * x.shape[2] * x.shape[3]
        mean = wide.mean((1, 2, 3), keepdims=True)
        variance = jnp.square(wide - mean).sum((1, 2, 3), keepdims=True) / (count - 1)
        return ((wide - mean) / (jnp.sqrt(variance) + NORM_EPSILON) * gamma + beta).astype(x.dtype)


class ConvNorm(nn.Module):
    """A conv block of the structure encoder: reflection, convolution, instance norm, activation."""

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    activate: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            padding=self.dilation * (self.kernel_size // 2),
            dilation=self.dilation,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = instance_norm(x)
        return leaky_relu(x) if self.activate else x


class ResidualBlock(nn.Module):
    """x + norm(conv(act(norm(conv(x))))), 3x3, nothing after the sum.

    `norms` are the two norms, functions of the convolution's output (identity in the
    discriminator, instance norm in the encoder, AdaIN in the decoder).
    """

    norms: tuple[Callable[[Array], Array], Callable[[Array], Array]]
    kernel_init: Initializer = kaiming_fan_in
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def conv(name: str, x: Array) -> Array:
            return Conv(
                x.shape[-1],
                3,
                padding=1,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                name=name,
            )(x)

        y = leaky_relu(self.norms[0](conv("conv_0", x)))
        return x + self.norms[1](conv("conv_1", y))


class MLP(nn.Module):
    """Fully connected layers with leaky ReLU between them and nothing at the end."""

    features: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for index, width in enumerate(self.features):
            x = nn.Dense(
                width, kernel_init=kaiming_fan_in, dtype=self.dtype, name=f"dense_{index}"
            )(x)
            if index + 1 < len(self.features):
                x = leaky_relu(x)
        return x
