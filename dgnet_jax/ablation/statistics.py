"""Means over seeds, and differences between losses with what can be said about them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.stats import t as student_t

CONFIDENCE = 0.95
# Below so many seeds an interval is too wide to go by: with 2 it is 9 standard deviations to each
# side, with 5 it is 1.2.
FEW_SEEDS = 5


class Spread(NamedTuple):
    """mean and sample standard deviation (None where there are too few values) of n values."""

    mean: float | None
    sd: float | None
    n: int


class Difference(NamedTuple):
    """The mean of n paired differences and its confidence interval (None where there is none)."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """The mean of the values, and their standard deviation with n - 1."""
    if not values:
        return Spread(None, None, 0)
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = CONFIDENCE
) -> Difference:
    """values - baseline over the seeds that both have, with Student's t interval of the mean.

    Runs of one seed start from the same parameters and see the same images in the same order, so
    that much of what differs between seeds cancels. Differences that are all the same, as those of
    ranks of few queries can be, have no interval: one of no width would claim certainty.

    Args:
        values, baseline: seed to value.
        confidence: of the interval, two-sided.
    """
    pairs = [values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())]
    mean, sd, n = spread(pairs)
    if mean is None or not sd:
        return Difference(mean, None, None, n)
    half = float(student_t.ppf(0.5 + confidence / 2, n - 1)) * sd / math.sqrt(n)
    return Difference(mean, mean - half, mean + half, n)


def statement(difference: Difference) -> str:
    """What can be said about a difference, in words; n below 2 says nothing."""
    if difference.n == 0:
        return "no seed with both values"
    if difference.low is None or difference.high is None:
        if difference.n == 1:
            return "one seed: nothing can be said"
        return f"the same in all {difference.n} seeds: nothing can be said"
    if difference.low > 0:
        found = "above l1"
    elif difference.high < 0:
        found = "below l1"
    else:
        found = "not told apart from l1"
    if difference.n < FEW_SEEDS:
        return f"{found}; {difference.n} seeds: a wide interval"
    return found
