"""KID, the kernel distance of two sets of features (Binkowski et al., ICLR 2018).

Unlike FID it is unbiased, so it can be compared between sets of different sizes and below the
number of dims.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from dgnet_jax.errors import InputError

SUBSETS = 100
SUBSET_SIZE = 1000


class KernelDistance(NamedTuple):
    """mean and sd over `subsets` random subsets of `subset_size` samples of each side."""

    mean: float
    sd: float
    subsets: int
    subset_size: int


def mmd2(first: Float[np.ndarray, "m dims"], second: Float[np.ndarray, "n dims"]) -> float:
    """Unbiased squared maximum mean discrepancy, with the kernel (x . y / dims + 1)^3.

    Args:
        first, second: at least 2 samples each.

    Returns:
        The estimate; it may come out below 0.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    m, n = len(first), len(second)
    between = _kernel(first, second).mean()
    return float(
        _sum_of_pairs(first) / (m * (m - 1)) + _sum_of_pairs(second) / (n * (n - 1))
    ) - 2 * float(between)


def _kernel(
    x: Float64[np.ndarray, "m dims"], y: Float64[np.ndarray, "n dims"]
) -> Float64[np.ndarray, "m n"]:
    values = x @ y.T
    values /= x.shape[1]
    values += 1
    return values * values * values


def _sum_of_pairs(x: Float64[np.ndarray, "n dims"]) -> float:
    """The sum of the kernel over pairs of different samples."""
    values = _kernel(x, x)
    return float(values.sum() - np.trace(values))


def kid(
    first: Float[np.ndarray, "m dims"],
    second: Float[np.ndarray, "n dims"],
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> KernelDistance:
    """KID over random subsets, drawn without replacement.

    Args:
        first, second: at least 4 samples each.
        subsets: how many pairs of subsets.
        subset_size: samples of each; at most half of the smaller side is taken, since subsets that
            are nearly the whole set would all be the same and hide the spread. The mean estimates
            the same value whatever the size.
        seed: of the choice.

    Raises:
        InputError: too few samples, dims that differ, or values that are not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            f"features: found shapes {first.shape} and {second.shape}. Give (samples, dims) of "
            "the same network and layer."
        )
    smaller = min(len(first), len(second))
    if smaller < 4 or subsets < 1 or subset_size < 2:
        raise InputError(
            f"KID needs 4 samples a side, a subset, and 2 samples in it; found {len(first)} and "
            f"{len(second)} samples, {subsets} subsets of {subset_size}."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("features: they hold NaN or inf. Check the network and its weights.")
    size = min(subset_size, smaller // 2)
    rng = np.random.default_rng(seed)
    values = [
        mmd2(
            first[rng.choice(len(first), size, replace=False)],
            second[rng.choice(len(second), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)
