"""Losses that weigh large errors less than the square does."""

import math
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from dgnet_jax.losses.arrays import Scalar, Values, distance, pair, sample_mean
from dgnet_jax.losses.parameters import check


def charbonnier(target: Values, output: Values, epsilon: ArrayLike = 1e-3) -> Scalar:
    """Charbonnier loss, mean sqrt((x - y)^2 + epsilon^2): L1 with a round tip.

    Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution" (CVPR
    2017), equation 2, after Charbonnier et al. (ICIP 1994).

    Args:
        target: the values to reconstruct.
        output: the reconstruction.
        epsilon: half the width of the tip and the least value of the loss, in the arrays' units;
            1e-6 or more.

    Raises:
        InputError: if epsilon is out of its range.
    """
    check("charbonnier", epsilon=epsilon)
    target, output = pair(target, output)
    size = distance(target, output)
    epsilon = jnp.asarray(epsilon, size.dtype)
    # sqrt(d^2 + e^2) without squares that overflow or vanish.
    larger, smaller = jnp.maximum(size, epsilon), jnp.minimum(size, epsilon)
    return jnp.mean(sample_mean(larger * jnp.sqrt(1 + jnp.square(smaller / larger))))


def log_cosh(target: Values, output: Values) -> Scalar:
    """Mean log(cosh(x - y)): half the square of small errors, |x - y| - log 2 of large ones.

    Green (1990); as a loss of autoencoders Chen et al., "Log Hyperbolic Cosine Loss Improves
    Variational Auto-Encoder" (2018).
    """
    target, output = pair(target, output)
    size = distance(target, output)
    small = jnp.minimum(size, 1.0)
    # log cosh d = log(1 + 2 sinh(d / 2)^2) keeps the digits of small d, and overflows for large.
    near = jnp.log1p(2 * jnp.square(jnp.sinh(small / 2)))
    far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
    return jnp.mean(sample_mean(jnp.where(size < 1, near, far)))


def barron(target: Values, output: Values, alpha: ArrayLike = 0.0, c: ArrayLike = 0.5) -> Scalar:
    """The general robust loss: |alpha - 2| / alpha (((d/c)^2 / |alpha - 2| + 1)^(alpha/2) - 1).

    Barron, "A General and Adaptive Robust Loss Function" (CVPR 2019), equation 8, with its limits:
    alpha 2 is half the square, 1 Charbonnier's, 0 Cauchy's log(0.5 (d/c)^2 + 1), -2
    Geman-McClure's, -inf Welsch's 1 - exp(-0.5 (d/c)^2).

    Args:
        target: the values to reconstruct.
        output: the reconstruction.
        alpha: shape, at most 2; the lower, the less outliers weigh.
        c: scale, in the arrays' units, 1e-6 or more: errors below it are treated as by a square.

    Raises:
        InputError: if alpha or c is out of its range.
    """
    check("barron", alpha=alpha, c=c)
    target, output = pair(target, output)
    size = distance(target, output)
    alpha, c = (jnp.asarray(value, size.dtype) for value in (alpha, c))
    square = jnp.square(size / c)
    return jnp.mean(sample_mean(_barron(square, alpha)))


_TINY = 1e-30


def _barron(square: Any, alpha: Any) -> Any:
    """Of squared errors in units of c."""
    # Beyond these bounds the limit is exact to the last digit, and the general form is not.
    least = -1 / jnp.finfo(square.dtype).eps
    square_loss, cauchy, welsch = alpha == 2, jnp.abs(alpha) < _TINY, alpha < least
    limit = square_loss | cauchy | welsch
    # A value for the general form whose limits are taken apart: no division by 0 in the gradient.
    shape = jnp.where(limit, 1.0, alpha)
    bend = jnp.abs(shape - 2)
    # (t + 1)^(a/2) - 1 with the digits that it would lose for a near 0 and for small t.
    general = bend / shape * jnp.expm1(0.5 * shape * jnp.log1p(square / bend))
    return jnp.select(
        [square_loss, cauchy, welsch],
        [0.5 * square, jnp.log1p(0.5 * square), -jnp.expm1(-0.5 * square)],
        general,
    )
