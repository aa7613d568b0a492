"""Tests run with the shapes of signatures checked, and nothing else does."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dgnet_jax import losses
from dgnet_jax.evaluation.fid import FeatureStatistics
from dgnet_jax.evaluation.kid import mmd2
from dgnet_jax.evaluation.ranking import rank_hits_of_scores
from dgnet_jax.models import blocks
from dgnet_jax.models.embedding import combine_views
from dgnet_jax.training import objective, passes

ROOT = Path(__file__).parents[1]
checked = pytest.mark.skipif(
    not hasattr(losses.l1, "__wrapped__"), reason="without beartype no shape is checked"
)


def zeros(*shape: int) -> jax.Array:
    return jnp.zeros(shape)


@checked
@pytest.mark.parametrize(
    "call",
    [
        lambda: losses.l1(zeros(2, 3), zeros(2, 4)),
        lambda: jax.jit(losses.reconstruction_loss("l1+mse"))(zeros(2, 3), zeros(2, 4)),
        lambda: objective.kl_divergence(zeros(4, 2, 7), zeros(4, 2, 8)),
        lambda: jax.grad(lambda x: objective.cross_entropy(x, jnp.zeros((4, 3), int)).sum())(
            zeros(4, 2, 7)
        ),
        lambda: passes.exchange(zeros(4, 3, 7)),
        lambda: jax.vmap(combine_views)(zeros(4, 3, 7), zeros(4, 3, 8)),
        lambda: blocks.adaptive_instance_norm(zeros(2, 8, 4, 6), zeros(2, 6), zeros(2, 5)),
        lambda: blocks.ConvNorm(8, 3).init(jax.random.key(0), zeros(8, 4, 3)),
        lambda: mmd2(np.zeros((4, 2)), np.zeros((4, 3))),
        lambda: FeatureStatistics(4, np.zeros(3), np.zeros((3, 2))),
        lambda: rank_hits_of_scores([], *(np.zeros(n, int) for n in (2, 3, 4, 4))),
    ],
)
def test_a_wrong_shape_is_an_error_in_tests(call) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


@checked
def test_a_wrong_type_is_an_error_in_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
        objective.cross_entropy(zeros(4, 2, 7), zeros(4, 2))


@checked
def test_the_result_is_checked_too() -> None:
    def sum_in_place_of_mean(target: jax.Array, output: jax.Array) -> jax.Array:
        return jnp.abs(target - output).sum(1)

    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        objective.reconstruction(sum_in_place_of_mean, zeros(3, 2, 4), zeros(3, 2, 4))


@pytest.mark.usefixtures("unchecked")
def test_unchecked_lets_a_wrong_shape_through() -> None:
    with pytest.raises(ValueError, match="does not broadcast"):
        losses.l1(zeros(2, 3), zeros(2, 4))


def test_outside_of_tests_nothing_is_checked() -> None:
    """No function is wrapped and no checker is imported: a program pays nothing."""
    program = """
import sys
from dgnet_jax import losses
from dgnet_jax.evaluation import ranking
from dgnet_jax.models import blocks
from dgnet_jax.training import objective, passes

functions = (
    losses.l1, objective.kl_divergence, passes.exchange, blocks.instance_norm, ranking.rank_hits
)
assert not any(hasattr(function, "__wrapped__") for function in functions)
assert "beartype" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=300)
