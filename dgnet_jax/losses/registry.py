"""Which losses there are, by name, and how a user's own joins them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dgnet_jax.errors import InputError
from dgnet_jax.losses import perceptual, robust, structural, thesis
from dgnet_jax.losses.arrays import Scalar
from dgnet_jax.losses.parameters import PARAMETERS, Parameter

ReconstructionLoss = Callable[[Any, Any], Scalar]


@dataclass(frozen=True)
class Definition:
    """A loss.

    Attributes:
        function: (target, output, *parameters) -> scalar.
        parameters: in the order of the function's arguments.
        images_only: whether it needs rows and columns of an image, which codes do not have.
        needs_teacher: whether it takes the teacher's `features`, by this name.
    """

    function: Callable[..., Scalar]
    parameters: tuple[Parameter, ...] = ()
    images_only: bool = False
    needs_teacher: bool = False


def _definitions(*functions: Callable[..., Scalar], **kind: bool) -> dict[str, Definition]:
    return {
        function.__name__: Definition(function, PARAMETERS.get(function.__name__, ()), **kind)
        for function in functions
    }


_OF_THE_THESIS = _definitions(
    thesis.l1, thesis.huber, thesis.mse, thesis.mrae, thesis.cos, thesis.rmse, thesis.ml
)
_AS_PRINTED = _definitions(thesis.rmse_printed, thesis.huber_printed, thesis.cos_channels)
_BEYOND = {
    **_definitions(robust.charbonnier, robust.log_cosh, robust.barron),
    **_definitions(
        structural.ssim,
        structural.ms_ssim,
        structural.gradient_difference,
        structural.focal_frequency,
        images_only=True,
    ),
    **_definitions(perceptual.teacher_features, images_only=True, needs_teacher=True),
}

DEFINITIONS: dict[str, Definition] = _OF_THE_THESIS | _AS_PRINTED | _BEYOND
"""All losses by name; `register` adds to them."""

LOSSES: tuple[str, ...] = tuple(_OF_THE_THESIS)
"""The thesis's seven losses, in the order of its table."""

FUSIONS: dict[str, str] = {
    "l1_cos_weighted": "0.4*l1+0.6*cos",
    "l1_mse": "l1+mse",
    "l1_mrae": "l1+mrae",
    "l1_rmse": "l1+rmse",
    "l1_cos": "l1+cos",
}
"""Name -> expression of the thesis's fusions, in the order of its table."""

PRINTED: tuple[str, ...] = tuple(_AS_PRINTED)
"""Forms that the thesis prints, or may have meant, where this project reads it otherwise."""

BEYOND: tuple[str, ...] = tuple(_BEYOND)
"""Losses that the thesis did not study."""

BEYOND_FUSIONS: dict[str, str] = {
    **{f"l1_{name}": f"l1+{name}" for name in _BEYOND},
    "l1_ms_ssim_weighted": "0.16*l1+0.84*ms_ssim",
}
"""Name -> expression of their fusions with l1; the weighted one is Zhao et al.'s (TCI 2017)."""

NAMES: tuple[str, ...] = (*LOSSES, *FUSIONS, *PRINTED, *BEYOND, *BEYOND_FUSIONS)
"""All names of built-in losses and fusions, in the order of tables."""

OTHER_NAMES = {"mae": "l1", "l2": "mse"}
"""What people call a loss of the list; a hint, no name."""

BUILT_IN = frozenset((*NAMES, *OTHER_NAMES))

EXPONENT = re.compile(r"[0-9][eE]$")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def fusions() -> dict[str, str]:
    """Name -> expression of all fusions."""
    return FUSIONS | BEYOND_FUSIONS


def known_names() -> str:
    """All names, for the end of an error."""
    listed = ", ".join(f"{name} ({expression})" for name, expression in FUSIONS.items())
    return (
        f"known losses: {', '.join(DEFINITIONS)}; known fusions: {listed}, and l1_NAME for l1+NAME"
        f" of {', '.join(BEYOND)}; or a weighted sum such as 0.5*l1+2*rmse or l1+huber(0.5)"
    )


def parameters(name: str) -> tuple[Parameter, ...]:
    """The parameters of a loss, in the order in which an expression gives them.

    Raises:
        InputError: there is no such loss.
    """
    if name not in DEFINITIONS:
        raise InputError(f"reconstruction loss: unknown loss {name!r}; {known_names()}")
    return DEFINITIONS[name].parameters


def register(name: str, function: ReconstructionLoss, *, images_only: bool = False) -> None:
    """Gives a loss of your own a name, which then stands wherever a loss's name does.

    A configuration and a checkpoint hold the name alone: a program that goes on with such a run
    registers the function first. Another function under the same name replaces the first.

    Args:
        name: letters, digits and underscores.
        function: a pure function ``(target, output) -> scalar`` of two arrays (batch, ...).
        images_only: whether it needs images, (batch, height, width, 3), and is refused on codes.

    Raises:
        InputError: the name is taken or no name, or the function does not give a scalar.
    """
    if name in BUILT_IN:
        raise InputError(f"a loss of your own: the name {name!r} is taken; {known_names()}")
    if not NAME.fullmatch(name):
        raise InputError(
            f"a loss of your own: {name!r} is no name; use letters, digits and underscores"
        )
    if EXPONENT.search(name):
        raise InputError(
            f"a loss of your own: {name!r} ends like a number's exponent, so that {name}+l1 could "
            "not be read; take a name that does not end in a digit and e"
        )
    if not callable(function):
        raise InputError(f"the loss {name!r}: {function!r} is not a function")
    example = jax.ShapeDtypeStruct((2, 32, 16, 3), jnp.float32)
    try:
        shape = jax.eval_shape(function, example, example)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"the loss {name!r}: fails on two arrays of shape {example.shape}: "
            f"{type(error).__name__}: {error}. It has to take (target, output)"
            f"{'' if images_only else ', of any rank'}."
        ) from error
    if getattr(shape, "shape", None) != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise InputError(
            f"the loss {name!r}: has to return one real number, found {shape}; take the mean"
        )
    DEFINITIONS[name] = Definition(function, images_only=images_only)
