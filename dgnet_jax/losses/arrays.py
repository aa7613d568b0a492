"""What losses have in common: pairs of arrays, means of samples, roots with finite gradients."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

Values = Real[ArrayLike, " batch *values"]
Images = Real[ArrayLike, "batch height width channels"]
RgbImages = Real[ArrayLike, "batch height width 3"]
Scalar = Float[Array, ""]


def pair(target: ArrayLike, output: ArrayLike) -> tuple[Array, Array]:
    """Both arrays in the dtype of the loss, the target cut from the gradient.

    Raises:
        ValueError: they have other shapes than each other, no batch axis, or no value.
    """
    target, output = jnp.asarray(target), jnp.asarray(output)
    if target.shape != output.shape:
        raise ValueError(
            f"target has shape {target.shape} and output {output.shape}; a reconstruction loss"
            " compares arrays of one shape and does not broadcast"
        )
    if target.ndim == 0 or target.size == 0:
        raise ValueError(
            f"target and output have shape {target.shape}; a reconstruction loss takes"
            " (batch, ...) with at least one value"
        )
    dtype = jnp.promote_types(jnp.promote_types(target.dtype, output.dtype), jnp.float32)
    return jax.lax.stop_gradient(target.astype(dtype)), output.astype(dtype)


def distance(target: Array, output: Array) -> Array:
    """|x - y| with gradient 0 where they are equal; the gradient of jnp.abs at 0 is 1."""
    difference = output - target
    return difference * jax.lax.stop_gradient(jnp.sign(difference))


def sample_axes(values: Array) -> tuple[int, ...]:
    """All axes but the batch's."""
    return tuple(range(1, values.ndim))


def sample_mean(values: Array, keepdims: bool = False) -> Array:
    """The mean of each sample."""
    return jnp.mean(values, axis=sample_axes(values), keepdims=keepdims)


def magnitude(values: Array, axes: tuple[int, ...] | None = None) -> Array:
    """Largest absolute value over the axes (of each sample), or 1 where all are 0; axes are kept.

    Values divided by it can be squared and summed without overflow or underflow. It is a constant
    for the gradient: the losses that use it do not depend on the scale they choose.
    """
    axes = sample_axes(values) if axes is None else axes
    largest = jnp.max(jnp.abs(values), axis=axes, keepdims=True)
    return jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))


def direction(values: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Unit vectors along the axes (a zero vector stays zero), and their lengths in `magnitude`s."""
    scaled = values / magnitude(values, axes)
    length = sqrt(jnp.sum(jnp.square(scaled), axis=axes, keepdims=True))
    return scaled / jnp.where(length == 0, 1.0, length), length


def sqrt(values: Array) -> Array:
    """Square root with gradient 0 at 0, where the root's own is infinite."""
    is_zero = values == 0
    # The inner where keeps the infinity out of the backward pass, where 0 * inf would be NaN.
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, values)))
