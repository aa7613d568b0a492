"""The thesis's seven losses, and the forms that it prints where they are others."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from dgnet_jax.losses.arrays import (
    Scalar,
    Values,
    direction,
    distance,
    magnitude,
    pair,
    sample_axes,
    sample_mean,
    sqrt,
)
from dgnet_jax.losses.parameters import check


def l1(target: Values, output: Values) -> Scalar:
    """Mean absolute error, mean |x - y|, as in the released DG-Net; gradient 0 where x = y."""
    target, output = pair(target, output)
    return jnp.mean(sample_mean(distance(target, output)))


def huber(target: Values, output: Values, delta: ArrayLike = 1.0) -> Scalar:
    """Huber loss, mean of 0.5 d^2 where |d| <= delta, else delta (|d| - 0.5 delta); d = x - y.

    The thesis prints x y where d stands here (`huber_printed`) and, in its prose, swaps the limits;
    its text describes Huber's loss, which this is.

    Args:
        target: the values to reconstruct.
        output: the reconstruction.
        delta: where the parabola becomes a line, in the arrays' units; 1e-6 or more.

    Raises:
        InputError: if delta is out of its range.
    """
    check("huber", delta=delta)
    target, output = pair(target, output)
    return jnp.mean(sample_mean(_huber(distance(target, output), delta)))


def mse(target: Values, output: Values) -> Scalar:
    """Mean squared error, mean (x - y)^2."""
    target, output = pair(target, output)
    return jnp.mean(sample_mean(jnp.square(output - target)))


def mrae(target: Values, output: Values) -> Scalar:
    """Mean root absolute error, mean sqrt(|x - y| + 1e-8); the gradient is 0 where x = y.

    The thesis prints no 1e-8. It bounds the gradient near x = y, and an option of this form in the
    released DG-Net adds as much.
    """
    target, output = pair(target, output)
    return jnp.mean(sample_mean(jnp.sqrt(distance(target, output) + 1e-8)))


def cos(target: Values, output: Values) -> Scalar:
    """Cosine distance over all values of a sample, 1 - x.y / (|x| |y|), between 0 and 2.

    The thesis gives the similarity over all pixels (equation 4.9) and not what it minimises: one
    minus it is this project's reading. `cos_channels` is another one.

    A zero vector has no direction: its cosine counts as 0, so the sample's loss is 1 and its
    gradient 0, even where both are zero.
    """
    target, output = pair(target, output)
    return jnp.mean(_cosine_distance(target, output, sample_axes(output)))


def rmse(target: Values, output: Values) -> Scalar:
    """Root mean squared error, sqrt(mean (x - y)^2); the gradient is 0 where x = y.

    The thesis prints an inner root, sqrt(mean sqrt((x - y)^2)), which is `rmse_printed`; its name
    and its prose say root mean squared error, and no code of it was released.
    """
    target, output = pair(target, output)
    return jnp.mean(_root_mean_square(output - target))


def ml(target: Values, output: Values) -> Scalar:
    """Multiplicative loss, mean (x y)^2.

    Its least value is at an output of 0 and not at the target, so images collapse: the thesis
    trained it to the end and reports an FID of 319.82 and an mAP of 43.77.
    """
    target, output = pair(target, output)
    return jnp.mean(sample_mean(jnp.square(target * output)))


def rmse_printed(target: Values, output: Values) -> Scalar:
    """The thesis's RMSE as printed: sqrt(mean sqrt((x - y)^2)).

    That is the root of the mean absolute error. The gradient is 0 where x = y. `rmse` is what the
    name says.
    """
    target, output = pair(target, output)
    scale = magnitude(output - target)
    mean = sample_mean(distance(target, output) / scale, keepdims=True)
    return jnp.mean(jnp.sqrt(scale) * sqrt(mean))


def huber_printed(target: Values, output: Values, delta: ArrayLike = 1.0) -> Scalar:
    """The thesis's Huber loss as printed: with x y in the place of x - y.

    0.5 (x y)^2 where |x y| <= delta, else delta (|x y| - 0.5 delta). Like `ml` it is least at an
    output of 0. `huber` is Huber's own.

    Args:
        target: the values to reconstruct.
        output: the reconstruction.
        delta: where the parabola becomes a line, in the square of the arrays' units; 1e-6 or more.

    Raises:
        InputError: if delta is out of its range.
    """
    check("huber_printed", delta=delta)
    target, output = pair(target, output)
    product = distance(jnp.zeros_like(target), target * output)
    return jnp.mean(sample_mean(_huber(product, delta)))


def cos_channels(target: Values, output: Values) -> Scalar:
    """Cosine distance over the last axis, the channels of each place; mean over places.

    An unused option of the released DG-Net has this form. It is blind to brightness: an image of
    half the values costs nothing. Had the thesis trained it, this would explain its FID of 37.95.
    A place whose channels are all 0, on either side, counts as 1 and has gradient 0.
    """
    target, output = pair(target, output)
    if target.ndim == 1:  # samples of one value, and so of one channel
        target, output = target[:, None], output[:, None]
    return jnp.mean(sample_mean(_cosine_distance(target, output, (target.ndim - 1,))))


def _huber(size: Any, delta: ArrayLike) -> Any:
    """Of absolute values."""
    delta = jnp.asarray(delta, size.dtype)
    quadratic = jnp.minimum(size, delta)
    return quadratic * (size - 0.5 * quadratic)


def _root_mean_square(difference: Any) -> Any:
    scale = magnitude(difference)
    return scale * sqrt(sample_mean(jnp.square(difference / scale), keepdims=True))


def _cosine_distance(target: Any, output: Any, axes: tuple[int, ...]) -> Any:
    target_direction, target_length = direction(target, axes)
    output_direction, output_length = direction(output, axes)
    # |u - v|^2 / 2 = 1 - u.v for unit vectors, without the cancellation near u = v.
    found = 0.5 * jnp.sum(jnp.square(output_direction - target_direction), axis=axes, keepdims=True)
    # jnp.minimum hands a NaN on, so a zero vector does not hide the NaN of the other one.
    undefined = jnp.minimum(target_length, output_length) == 0
    return jnp.where(undefined, 1.0, found)
