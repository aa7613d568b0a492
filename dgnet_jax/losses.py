"""The reconstruction losses R(target, output) of the 2022 thesis on DG-Net, and their fusions.

Every loss is a pure function ``(target, output) -> scalar`` of two arrays of one shape: images or
codes. A value is computed per sample, over all n values of the sample; the loss is the mean over
the batch, so it does not depend on how a batch is split over devices. A rank-1 array is a batch of
samples of one value each (n = 1).

Arithmetic and result are float32 (bfloat16 and integers are widened first), or float64 where an
input is float64. The target carries no gradient. A NaN in either array gives a NaN loss.

Arrays of different shapes, without a batch axis, or empty raise a ValueError.
"""

import difflib
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Real

from dgnet_jax.errors import InputError

Values = Real[ArrayLike, " batch *values"]
Scalar = Float[Array, ""]
ReconstructionLoss = Callable[
    [Real[Array, " batch *values"], Real[Array, " batch *values"]], Scalar
]


def l1(target: Values, output: Values) -> Scalar:
    """Mean absolute error, mean |x - y|, as in the released DG-Net; gradient 0 where x = y."""
    target, output = _pair(target, output)
    return jnp.mean(_sample_mean(_distance(target, output)))


def huber(target: Values, output: Values, delta: float = 1.0) -> Scalar:
    """Huber loss, mean of 0.5 d^2 where |d| <= delta, else delta (|d| - 0.5 delta); d = x - y.

    Args:
        target: the values to reconstruct.
        output: the reconstruction.
        delta: where the parabola becomes a line, in the arrays' units; above 0.

    Raises:
        InputError: if delta is not a finite number above 0.
    """
    if not 0 < delta < math.inf:
        raise InputError(f"huber: delta is {delta}; it has to be a finite number above 0")
    target, output = _pair(target, output)
    distance = _distance(target, output)
    quadratic = jnp.minimum(distance, delta)
    return jnp.mean(_sample_mean(quadratic * (distance - 0.5 * quadratic)))


def mse(target: Values, output: Values) -> Scalar:
    """Mean squared error, mean (x - y)^2."""
    target, output = _pair(target, output)
    return jnp.mean(_sample_mean(jnp.square(output - target)))


def mrae(target: Values, output: Values) -> Scalar:
    """Mean root absolute error, mean sqrt(|x - y| + 1e-8); the gradient is 0 where x = y."""
    target, output = _pair(target, output)
    return jnp.mean(_sample_mean(jnp.sqrt(_distance(target, output) + 1e-8)))


def cos(target: Values, output: Values) -> Scalar:
    """Cosine distance over all values of a sample, 1 - x.y / (|x| |y|), between 0 and 2.

    A zero vector has no direction: its cosine counts as 0, so the sample's loss is 1 and its
    gradient 0, even where both are zero.
    """
    target, output = _pair(target, output)
    target_direction, target_length = _direction(target)
    output_direction, output_length = _direction(output)
    # |u - v|^2 / 2 = 1 - u.v for unit vectors, without the cancellation near u = v.
    distance = 0.5 * jnp.sum(
        jnp.square(output_direction - target_direction), axis=_sample_axes(output), keepdims=True
    )
    # jnp.minimum hands a NaN on, so a zero vector does not hide the NaN of the other one.
    undefined = jnp.minimum(target_length, output_length) == 0
    return jnp.mean(jnp.where(undefined, 1.0, distance))


def rmse(target: Values, output: Values) -> Scalar:
    """Root mean squared error, sqrt(mean (x - y)^2); the gradient is 0 where x = y.

    The thesis prints an inner root by mistake.
    """
    target, output = _pair(target, output)
    difference = output - target
    scale = _magnitude(difference)
    root = _sqrt(_sample_mean(jnp.square(difference / scale), keepdims=True))
    return jnp.mean(scale * root)


def ml(target: Values, output: Values) -> Scalar:
    """Multiplicative loss, mean (x y)^2.

    Its least value is at an output of 0 and not at the target: images collapse, and the thesis
    reports an FID of 319.82 for it.
    """
    target, output = _pair(target, output)
    return jnp.mean(_sample_mean(jnp.square(target * output)))


_FUNCTIONS: dict[str, ReconstructionLoss] = {
    "l1": l1,
    "huber": huber,
    "mse": mse,
    "mrae": mrae,
    "cos": cos,
    "rmse": rmse,
    "ml": ml,
}

LOSSES: tuple[str, ...] = tuple(_FUNCTIONS)
"""The seven losses, in the order of the thesis's table."""

FUSIONS: dict[str, str] = {
    "l1_cos_weighted": "0.4*l1+0.6*cos",
    "l1_mse": "l1+mse",
    "l1_mrae": "l1+mrae",
    "l1_rmse": "l1+rmse",
    "l1_cos": "l1+cos",
}
"""Name -> expression of the thesis's fusions, in the order of its table."""

_OTHER_NAMES = {"mae": "l1", "l2": "mse"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# The + of an exponent, as in 1e+2*l1, does not separate terms.
_PLUS = re.compile(r"(?<![0-9.][eE])\+")


def register(name: str, function: ReconstructionLoss) -> None:
    """Gives a loss of your own a name, which then stands wherever a loss's name does.

    A configuration and a checkpoint hold the name alone: a program that goes on with such a run
    registers the function first. Another function under the same name replaces the first.

    Args:
        name: letters, digits and underscores.
        function: a pure function ``(target, output) -> scalar`` of two arrays (batch, ...).

    Raises:
        InputError: the name is taken or no name, or the function does not give a scalar.
    """
    if name in LOSSES or name in FUSIONS or name in _OTHER_NAMES:
        raise InputError(f"a loss of your own: the name {name!r} is taken; {_known_names()}")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a loss of your own: {name!r} is no name; use letters, digits and underscores"
        )
    if not callable(function):
        raise InputError(f"the loss {name!r}: {function!r} is not a function")
    example = jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32)
    try:
        shape = jax.eval_shape(function, example, example)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"the loss {name!r}: fails on two arrays of shape {example.shape}: "
            f"{type(error).__name__}: {error}. It has to take (target, output), of any rank."
        ) from error
    if getattr(shape, "shape", None) != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise InputError(
            f"the loss {name!r}: has to return one real number, found {shape}; take the mean"
        )
    _FUNCTIONS[name] = function


def reconstruction_loss(spec: str | ReconstructionLoss) -> ReconstructionLoss:
    """Makes a loss function of a name, a fusion's name or an expression.

    Args:
        spec: one of `LOSSES` or `FUSIONS`; a sum of such names with optional weights, as in
            "0.5*l1 + 2*rmse", registered ones included; or a function
            ``(target, output) -> scalar``, returned as it is.

    Returns:
        A pure function ``(target, output) -> scalar``.

    Raises:
        InputError: for an unknown name or a malformed expression.
    """
    if callable(spec):
        return spec
    weights = _parse(spec)
    if list(weights.values()) == [1.0]:
        return _FUNCTIONS[next(iter(weights))]

    def weighted_sum(
        target: Real[Any, " batch *values"], output: Real[Any, " batch *values"]
    ) -> Scalar:
        terms = [weight * _FUNCTIONS[name](target, output) for name, weight in weights.items()]
        return sum(terms[1:], start=terms[0])

    return weighted_sum


def canonical_expression(spec: str) -> str:
    """Writes a loss as a sum of weighted names in the order of `LOSSES`, each name once.

    Two spellings of one loss give one string: "l1_rmse" and "rmse + l1" both give "l1+rmse".

    Raises:
        InputError: for an unknown name or a malformed expression.
    """
    return "+".join(
        name if weight == 1 else f"{repr(weight).removesuffix('.0')}*{name}"
        for name, weight in _parse(spec).items()
    )


def _parse(spec: str) -> dict[str, float]:
    """The weight of each loss in the expression: in the order of `LOSSES`, then by name."""
    if not isinstance(spec, str) or not spec.strip():
        raise InputError(f"reconstruction loss: found {spec!r}, not a loss; {_known_names()}")
    weights: dict[str, float] = {}
    for term in _PLUS.split(spec):
        weight_text, star, name = (part.strip() for part in term.rpartition("*"))
        if not name:
            raise InputError(
                f"reconstruction loss {spec!r}: a loss is missing in the term {term.strip()!r};"
                " write a sum such as 0.5*l1+2*rmse"
            )
        weight = _parse_weight(spec, weight_text) if star else 1.0
        if name in FUSIONS:
            members = _parse(FUSIONS[name])
        elif name in _FUNCTIONS:
            members = {name: 1.0}
        else:
            raise InputError(
                f"reconstruction loss {spec!r}: unknown loss {name!r};"
                f" the nearest is {_nearest_name(name)!r}; {_known_names()}"
            )
        for member, share in members.items():
            weights[member] = weights.get(member, 0.0) + weight * share
    names = [*LOSSES, *sorted(weights.keys() - set(LOSSES))]
    return {name: weights[name] for name in names if name in weights}


def _parse_weight(spec: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise InputError(
            f"reconstruction loss {spec!r}: the weight {text!r} is not a decimal number;"
            " write the weight before the loss, as in 0.5*l1+2*rmse"
        )
    weight = float(text)
    float32 = jnp.finfo(jnp.float32)
    if not float(float32.tiny) <= weight <= float(float32.max):
        if weight < 0:
            reason = "negative"
        elif weight == 0:
            reason = "zero; leave the term out"
        else:
            reason = "outside the range of float32"
        raise InputError(
            f"reconstruction loss {spec!r}: the weight {text!r} is {reason};"
            " weights are finite and above 0"
        )
    return weight


def _known_names() -> str:
    fusions = ", ".join(f"{name} ({expression})" for name, expression in FUSIONS.items())
    return (
        f"known losses: {', '.join(_FUNCTIONS)}; known fusions: {fusions};"
        " or a weighted sum such as 0.5*l1+2*rmse"
    )


def _nearest_name(name: str) -> str:
    candidates = [*_FUNCTIONS, *FUSIONS, *_OTHER_NAMES]
    nearest = difflib.get_close_matches(name.lower(), candidates, n=1, cutoff=0.0)[0]
    return _OTHER_NAMES.get(nearest, nearest)


def _pair(target: ArrayLike, output: ArrayLike) -> tuple[Array, Array]:
    """Both arrays in the dtype of the loss, the target cut from the gradient."""
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


def _distance(target: Array, output: Array) -> Array:
    """|x - y| with gradient 0 where they are equal; the gradient of jnp.abs at 0 is 1."""
    difference = output - target
    return difference * jax.lax.stop_gradient(jnp.sign(difference))


def _sample_axes(values: Array) -> tuple[int, ...]:
    return tuple(range(1, values.ndim))


def _sample_mean(values: Array, keepdims: bool = False) -> Array:
    return jnp.mean(values, axis=_sample_axes(values), keepdims=keepdims)


def _magnitude(values: Float[Array, " batch *values"]) -> Float[Array, " batch *ones"]:
    """Largest absolute value of each sample, or 1 for a sample of zeros.

    Values divided by it can be squared and summed without overflow or underflow. It is a constant
    for the gradient: the losses that use it do not depend on the scale they choose.
    """
    largest = jnp.max(jnp.abs(values), axis=_sample_axes(values), keepdims=True)
    return jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))


def _direction(values: Array) -> tuple[Array, Array]:
    """Unit vector of each sample (a zero vector stays zero), and its length in `_magnitude`s."""
    scaled = values / _magnitude(values)
    length = _sqrt(jnp.sum(jnp.square(scaled), axis=_sample_axes(values), keepdims=True))
    return scaled / jnp.where(length == 0, 1.0, length), length


def _sqrt(values: Array) -> Array:
    """Square root with gradient 0 at 0, where the root's own is infinite."""
    is_zero = values == 0
    # The inner where keeps the infinity out of the backward pass, where 0 * inf would be NaN.
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, values)))
