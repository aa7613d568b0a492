"""KID against the sums that its polynomial kernel reduces to."""

import numpy as np
import pytest

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.kid import kid, mmd2


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return (float(np.dot(x, y)) / len(x) + 1) ** 3


def test_unbiased_mmd_pair_by_pair() -> None:
    first = np.random.default_rng(0).standard_normal((5, 3))
    second = np.random.default_rng(1).standard_normal((7, 3)) + 1
    within = [
        np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
        for x in (first, second)
    ]
    between = np.mean([kernel(x, y) for x in first for y in second])
    assert mmd2(first, second) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_one_dimension_by_power_sums() -> None:
    """(x y + 1)^3 = x^3 y^3 + 3 x^2 y^2 + 3 x y + 1, so only power sums are needed."""
    first = np.random.default_rng(0).standard_normal(400)
    second = np.random.default_rng(1).gamma(2.0, size=300)

    def within(x: np.ndarray) -> float:
        n = len(x)
        return sum(
            c * (np.sum(x**p) ** 2 - np.sum(x ** (2 * p))) for p, c in ((1, 3), (2, 3), (3, 1))
        ) / (n * (n - 1))

    between = sum(c * np.mean(first**p) * np.mean(second**p) for p, c in ((1, 3), (2, 3), (3, 1)))
    found = mmd2(first[:, None], second[:, None])
    assert found == pytest.approx(within(first) + within(second) - 2 * between, rel=1e-10)


def test_unbiased_whatever_the_size_of_the_subsets() -> None:
    """Two sets of one distribution: the mean over many subsets is 0 within its error."""
    features = np.random.default_rng(0).standard_normal((2, 600, 8))
    for size in (5, 20):
        distance = kid(features[0], features[1], subsets=2000, subset_size=size)
        assert abs(distance.mean - mmd2(*features)) < 4 * distance.sd / np.sqrt(2000)
        assert distance.sd > 0


def test_a_shift_is_seen() -> None:
    """N(0, 1) against N(1, 1): 3 (1)^2 + 3 (2 - 1)^2 + (4 - 0)^2 = 22 by the raw moments."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((20_000, 1)), rng.standard_normal((20_000, 1)) + 1
    distance = kid(first, second, subsets=100, subset_size=1000)
    assert distance.mean == pytest.approx(22, rel=0.1)


def test_seeded_and_reported() -> None:
    features = np.random.default_rng(0).standard_normal((2, 30, 4))
    distance = kid(*features, seed=3)
    assert distance == kid(*features, seed=3)
    assert distance.mean != kid(*features, seed=4).mean
    # Half of the smaller side at most.
    assert (distance.subsets, distance.subset_size) == (100, 15)
    assert kid(features[0], features[1][:10]).subset_size == 5


def test_float32_features_are_taken_in_float64() -> None:
    features = np.random.default_rng(0).standard_normal((2, 50, 4)).astype(np.float32) * 100
    wide = features.astype(np.float64)
    assert mmd2(*features) == mmd2(*wide)


@pytest.mark.usefixtures("unchecked")
def test_too_little_is_refused() -> None:
    with pytest.raises(InputError, match="KID needs 4 samples a side"):
        kid(np.ones((3, 2)), np.ones((9, 2)))
    with pytest.raises(InputError, match="found shapes"):
        kid(np.ones((9, 2)), np.ones((9, 3)))
    with pytest.raises(InputError, match="NaN"):
        kid(np.full((9, 2), np.nan), np.ones((9, 2)))
