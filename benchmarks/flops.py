"""Floating-point operations of a traced program, from the shapes of its convolutions and matmuls.

Elementwise work, reductions and whatever the compiler adds or saves are not counted: the number is
what the networks need, the same for every compiler and device.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def count_flops(jaxpr: core.Jaxpr) -> float:
    """Multiplications and additions of all `dot_general` and `conv_general_dilated` of a program.

    A loop counts as often as it runs (a `while`, whose trips are unknown, once), of the branches of
    a `cond` the dearest, of `platform_dependent` forms the default one. Zeros of padding count;
    those that a dilated input is spread with do not.
    What no result depends on does not count.

    Args:
        jaxpr: such as `jax.jit(f).trace(*arguments).jaxpr.jaxpr`.
    """
    total = 0.0
    for equation in _live(jaxpr):
        name = equation.primitive.name
        if name == "dot_general":
            total += _of_dot(equation)
        elif name == "conv_general_dilated":
            total += _of_convolution(equation)
        elif name == "cond":
            branches = equation.params["branches"]
            platforms = equation.params.get("branches_platforms")
            if platforms is not None:
                branches = [branches[platforms.index(None)]]
            total += max(count_flops(branch.jaxpr) for branch in branches)
        else:
            repeats = equation.params["length"] if name == "scan" else 1
            total += repeats * sum(map(count_flops, _inner(equation)))
    return total


def _live(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """The equations whose results are used, last first.

    A traced program may hold others, such as the forward half of a gradient that is taken alone;
    every compiler drops them.
    """
    used = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in used for variable in equation.outvars):
            used.update(id(variable) for variable in equation.invars)
            yield equation


def _of_dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2.0 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: Any) -> float:
    parameters = equation.params
    kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    # The kernel's own order: output channels, input channels of a group, then rows and columns.
    window = math.prod(kernel[axis] for axis in parameters["dimension_numbers"].rhs_spec[1:])
    return 2.0 * math.prod(result) * window / math.prod(parameters["lhs_dilation"])


def _inner(equation: Any) -> Iterator[core.Jaxpr]:
    """The programs that an equation runs; of a custom derivative the function, not its rule."""
    for value in equation.params.values():
        for candidate in value if isinstance(value, tuple | list) else (value,):
            inner: Any = getattr(candidate, "jaxpr", candidate)
            if isinstance(inner, core.Jaxpr):
                yield inner
