"""A study in one row a loss: means over seeds, and paired differences to l1, with intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy.stats import t as student_t

from dgnet_jax.ablation.results import DIVERGED, FINISHED, Row, without_pruned

BASELINE = "l1"
CONFIDENCE = 0.95
# Below so many seeds an interval is too wide to go by: with 2 it is 9 standard deviations to each
# side, with 5 it is 1.2; jointly for eleven losses 99 and 2.6.
FEW_SEEDS = 5
# Values that differ by less, relatively, are the same but for rounding.
_ROUNDING = 1e-12


class Metric(NamedTuple):
    """A measure of the tables.

    Attributes:
        name: in summaries.
        field: in results.
        title: above its column.
        factor, digits: how it is printed; 100 prints a share in percent.
        better: 1 if more is better, -1 if less is, 0 if neither.
    """

    name: str
    field: str
    title: str
    factor: float
    digits: int
    better: int


METRICS = (
    Metric("fid", "fid_png", "FID (PNG)", 1, 2, -1),
    Metric("fid_jpeg", "fid_jpeg", "FID (JPEG)", 1, 2, -1),
    Metric("rank1", "rank1", "Rank@1", 100, 2, 1),
    Metric("rank5", "rank5", "Rank@5", 100, 2, 1),
    Metric("rank10", "rank10", "Rank@10", 100, 2, 1),
    Metric("rank20", "rank20", "Rank@20", 100, 2, 1),
    Metric("mAP", "mAP", "mAP", 100, 2, 1),
    Metric("mAP_standard", "mAP_standard", "mAP (standard)", 100, 2, 1),
    Metric("mINP", "mINP", "mINP", 100, 2, 1),
    Metric("kid", "kid_mean", "KID x 1000 (PNG)", 1000, 2, -1),
    Metric("kid_jpeg", "kid_jpeg_mean", "KID x 1000 (JPEG)", 1000, 2, -1),
    Metric("teacher_frechet", "teacher_frechet", "Frechet, teacher", 1, 3, -1),
    Metric("diversity", "diversity", "diversity", 1, 4, 0),
    Metric("identity_consistency", "identity_consistency", "identity consistency", 1, 4, 1),
    Metric("appearance_transfer", "appearance_transfer", "appearance transfer", 1, 3, 1),
    Metric("structure_kept", "structure_kept", "structure kept", 1, 3, 1),
    Metric("truth_l1", "truth_l1", "L1 to the truth", 1, 4, -1),
    Metric("truth_ssim", "truth_ssim", "SSIM to the truth", 1, 4, 1),
)
"""In the units of results; mAP is the trapezoid one of DG-Net and the thesis."""


class Spread(NamedTuple):
    """mean and sample standard deviation (None where there are too few values) of n values."""

    mean: float | None
    sd: float | None
    n: int


class Difference(NamedTuple):
    """The mean of n paired differences and its confidence intervals (None where there are none).

    low to high is its interval by itself. The intervals from joint_low to joint_high of all losses
    that are compared hold together.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    joint_low: float | None
    joint_high: float | None


class Summary(NamedTuple):
    """A loss of a study.

    Attributes:
        label, expression: as of its results.
        seeds: of its finished runs.
        diverged: its runs that diverged.
        values: metric name to seed to value, of the finished runs that have one.
        spreads: metric name to the mean and deviation of these.
        differences: metric name to its paired difference to l1; empty for l1 itself.
        gains: metric name to its `relative_gain` over l1; without those that have none.
    """

    label: str
    expression: str
    seeds: tuple[int, ...]
    diverged: tuple[Row, ...]
    values: Mapping[str, Mapping[int, float]]
    spreads: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    gains: Mapping[str, float]

    def as_row(self) -> Row:
        """Flat: loss, expression, n, diverged, and fid_mean, fid_sd, fid_n, ... of each metric.

        Losses but l1 also have fid_difference, its 95 % interval fid_difference_low and _high, the
        one that is corrected for the number of losses, fid_difference_joint_low and _joint_high,
        fid_pairs, and fid_gain, a share of 1 (`relative_gain`). What cannot be computed is None.
        """
        row: dict[str, Any] = {
            "loss": self.label,
            "expression": self.expression,
            "n": len(self.seeds),
            "diverged": len(self.diverged),
        }
        for name, found in self.spreads.items():
            row |= {f"{name}_{field}": value for field, value in found._asdict().items()}
        for name, difference in self.differences.items():
            row |= {
                f"{name}_difference": difference.mean,
                f"{name}_difference_low": difference.low,
                f"{name}_difference_high": difference.high,
                f"{name}_difference_joint_low": difference.joint_low,
                f"{name}_difference_joint_high": difference.joint_high,
                f"{name}_pairs": difference.n,
                f"{name}_gain": self.gains.get(name),
            }
        return row


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """A summary for each loss, in the order in which they come, but for those with a pruned run."""
    groups: dict[str, list[Row]] = {}
    for row in without_pruned(rows):
        groups.setdefault(row["loss"], []).append(row)
    values = {label: _all_by_seed(group) for label, group in groups.items()}
    baseline = values.get(BASELINE, {})
    comparisons = {
        metric.name: sum(
            len(found[metric.name].keys() & baseline[metric.name].keys()) > 1
            for label, found in values.items()
            if label != BASELINE
        )
        for metric in METRICS
        if baseline
    }
    return [
        _summary(group, values[label], baseline if label != BASELINE else {}, comparisons)
        for label, group in groups.items()
    ]


def spread(values: Sequence[float]) -> Spread:
    """The mean of the values, and their standard deviation with n - 1."""
    if not values:
        return Spread(None, None, 0)
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd, len(values))


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], comparisons: int = 1
) -> Difference:
    """values - baseline over the seeds that both have, with Student's t intervals of the mean.

    Runs of one seed start from the same parameters and see the same images in the same order, so
    that much of what differs between seeds cancels. Differences that are all the same, as those of
    ranks of few queries can be, have no interval: one of no width would claim certainty.

    Each interval holds with 95 % by itself: if none of eleven losses differs, some will seem to in
    every third study. The joint intervals of as many comparisons all hold with at least 95 %
    (Bonferroni's correction, which asks nothing of the variances).

    Args:
        values, baseline: seed to value.
        comparisons: number of differences that are looked at together.
    """
    pairs = [values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())]
    mean, sd, n = spread(pairs)
    largest = max(map(abs, (*values.values(), *baseline.values())), default=0.0)
    if mean is None or sd is None or sd <= _ROUNDING * largest:
        return Difference(mean, None, None, n, None, None)

    def interval(error: float) -> tuple[float, float]:
        low, high = student_t.interval(1 - error, n - 1, loc=mean, scale=sd / math.sqrt(n))
        return float(low), float(high)

    low, high = interval(1 - CONFIDENCE)
    return Difference(mean, low, high, n, *interval((1 - CONFIDENCE) / max(comparisons, 1)))


def relative_gain(value: float, baseline: float, better: int) -> float | None:
    """How much better a value is than the baseline's, as a share of the baseline's.

    (l1 - x) / l1 where less is better, x / l1 - 1 where more is: the gains of the thesis. None
    where the baseline is not above 0, or neither is better.

    Args:
        value, baseline: of one metric.
        better: as `Metric.better`.
    """
    return better * (value - baseline) / baseline if better and baseline > 0 else None


def statement(difference: Difference) -> str:
    """What its joint interval says about a difference, in words; n below 2 says nothing."""
    if difference.n == 0:
        return "no seed with both values"
    if difference.joint_low is None or difference.joint_high is None:
        if difference.n == 1:
            return "one seed: nothing can be said"
        return f"the same in all {difference.n} seeds: nothing can be said"
    if difference.joint_low > 0:
        found = "above l1"
    elif difference.joint_high < 0:
        found = "below l1"
    else:
        found = "not told apart from l1"
    if difference.n < FEW_SEEDS:
        return f"{found}; {difference.n} seeds: a wide interval"
    return found


def divergence(row: Mapping[str, Any]) -> str:
    """Where a run diverged: "diverged at step 812 (self_reconstruction)"."""
    step, loss = row.get("diverged_step"), row.get("diverged_loss")
    where = "" if step is None else f" at step {step:,}"
    return f"diverged{where}{f' ({loss})' if loss else ''}"


def _summary(
    group: Sequence[Row],
    values: Mapping[str, Mapping[int, float]],
    baseline: Mapping[str, Mapping[int, float]],
    comparisons: Mapping[str, int],
) -> Summary:
    first = group[0]
    differences = {
        name: paired_difference(values[name], rival, comparisons[name])
        for name, rival in baseline.items()
    }
    gains = {
        metric.name: _gain(values[metric.name], baseline[metric.name], metric.better)
        for metric in METRICS
        if baseline
    }
    return Summary(
        label=first["loss"],
        expression=first["expression"],
        seeds=tuple(row["seed"] for row in group if row["status"] == FINISHED),
        diverged=tuple(row for row in group if row["status"] == DIVERGED),
        values=values,
        spreads={name: spread(list(found.values())) for name, found in values.items()},
        differences=differences,
        gains={name: gain for name, gain in gains.items() if gain is not None},
    )


def _gain(values: Mapping[int, float], baseline: Mapping[int, float], better: int) -> float | None:
    """The gain of the means over the seeds that both have."""
    seeds = values.keys() & baseline.keys()
    if not seeds:
        return None
    own, rival = (statistics.fmean(found[seed] for seed in seeds) for found in (values, baseline))
    return relative_gain(own, rival, better)


def values_by_seed(rows: Sequence[Row], metric: Metric) -> dict[int, float]:
    """Seed to value of the finished runs that have one."""
    return {
        row["seed"]: row[metric.field]
        for row in rows
        if row["status"] == FINISHED and row.get(metric.field) is not None
    }


def _all_by_seed(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    return {metric.name: values_by_seed(rows, metric) for metric in METRICS}
