"""FLOP of traced programs against closed forms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks.flops import count_flops


def flops(function: Callable[..., Any], *arguments: Any) -> float:
    return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=numbers
    )


LEFT, RIGHT = jnp.ones((3, 4)), jnp.ones((4, 7))
PRODUCT = 2 * 3 * 4 * 7
IMAGES, KERNEL = jnp.ones((2, 17, 9, 3)), jnp.ones((3, 3, 3, 8))
# Stride 2: 8 x 4 pixels of 8 channels from 27 numbers each.
CONVOLUTION = 2 * (2 * 8 * 4 * 8) * 27


def test_a_product_and_a_convolution() -> None:
    assert flops(jnp.matmul, LEFT, RIGHT) == PRODUCT
    assert flops(lambda x, k: convolve(x, k, 2), IMAGES, KERNEL) == CONVOLUTION


def test_a_loop_counts_each_of_its_rounds() -> None:
    def five(a: jax.Array, b: jax.Array) -> Any:
        return jax.lax.scan(lambda total, _: (total + a @ b, None), jnp.zeros((3, 7)), length=5)

    assert flops(five, LEFT, RIGHT) == 5 * PRODUCT


def test_of_branches_the_dearest_counts() -> None:
    def branches(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((3, 7)))

    assert flops(branches, LEFT, RIGHT) == PRODUCT


def test_of_forms_for_platforms_the_default_one_counts() -> None:
    def forms(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(
            a, b, cpu=lambda a, b: a @ b + a @ (2 * b), default=lambda a, b: a @ b
        )

    assert flops(forms, LEFT, RIGHT) == PRODUCT


def test_a_gradient_costs_two_more_passes_and_alone_no_forward_one() -> None:
    def loss(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(a @ b))

    assert flops(jax.value_and_grad(loss, (0, 1)), LEFT, RIGHT) == 3 * PRODUCT

    def pull(a: jax.Array, b: jax.Array) -> Any:
        return jax.vjp(jnp.matmul, a, b)[1](jnp.ones((3, 7)))

    assert flops(pull, LEFT, RIGHT) == 2 * PRODUCT


def test_zeros_between_the_pixels_of_a_dilated_input_cost_nothing() -> None:
    def to_the_input(x: jax.Array) -> Any:
        return jax.vjp(lambda x: convolve(x, KERNEL, 2), x)[1](jnp.ones((2, 8, 4, 8)))

    # As the forward pass, but for the border, where the kernel meets padding.
    assert flops(to_the_input, IMAGES) == pytest.approx(CONVOLUTION, rel=0.25)
