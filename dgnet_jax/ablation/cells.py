"""What stands in the cells of a study's tables: names of losses, means over seeds, differences."""

from collections.abc import Sequence

from dgnet_jax.ablation.points import CUSTOM, label_of
from dgnet_jax.ablation.rendering import Cell
from dgnet_jax.ablation.results import Row
from dgnet_jax.ablation.summary import METRICS, Difference, Metric, Spread, Summary
from dgnet_jax.losses import FUSIONS, LOSSES

BY_NAME = {metric.name: metric for metric in METRICS}
UNKNOWN = "–"


def loss_name(summary: Summary) -> str:
    """A loss as the thesis writes it, l1+mse; a label of the user's with its expression."""
    if summary.label in LOSSES or summary.expression == CUSTOM:
        return summary.label
    if summary.label in FUSIONS or summary.label == label_of(summary.expression):
        return summary.expression
    return f"{summary.label} ({summary.expression})"


def seeds_text(summary: Summary) -> str:
    """The number of its runs, and of those that finished if some did not."""
    total = len(summary.seeds) + len(summary.diverged)
    return f"{len(summary.seeds)} of {total}" if summary.diverged else str(total)


def present(summaries: Sequence[Summary], names: Sequence[str]) -> list[Metric]:
    """The metrics of these names that were measured in some run."""
    return [BY_NAME[name] for name in names if any(s.spreads[name].n for s in summaries)]


def measured_cells(
    summary: Summary, summaries: Sequence[Summary], metrics: Sequence[Metric]
) -> list[Cell]:
    """A cell for each metric, bold where its mean is the best of `summaries`."""
    if not summary.seeds:
        return [Cell("diverged") for _ in metrics]
    return [
        Cell(
            spread_text(summary.spreads[metric.name], metric),
            bold=_is_best(summary, summaries, metric),
        )
        for metric in metrics
    ]


def spread_text(found: Spread, metric: Metric) -> str:
    """Mean ± standard deviation."""
    if found.mean is None:
        return UNKNOWN
    text = f"{metric.factor * found.mean:.{metric.digits}f}"
    if found.sd is not None:
        text += f" ± {metric.factor * found.sd:.{metric.digits}f}"
    return text.replace("-", "−")


def difference_text(found: Difference, metric: Metric) -> str:
    """A mean difference and its joint interval."""
    if found.mean is None:
        return UNKNOWN
    text = f"{metric.factor * found.mean:+.{metric.digits}f}"
    if found.joint_low is not None and found.joint_high is not None:
        low, high = (metric.factor * value for value in (found.joint_low, found.joint_high))
        text += f" [{low:+.{metric.digits}f}, {high:+.{metric.digits}f}]"
    return text.replace("-", "−")


def number_text(row: Row, field: str, factor: float, digits: int) -> str:
    """A field of one run's result."""
    value = row.get(field)
    return UNKNOWN if value is None else f"{factor * value:,.{digits}f}"


def _is_best(summary: Summary, summaries: Sequence[Summary], metric: Metric) -> bool:
    """Whether its mean is the best of several different ones."""
    means = [s.spreads[metric.name].mean for s in summaries]
    known = [metric.better * mean for mean in means if mean is not None]
    own = summary.spreads[metric.name].mean
    if own is None or len(set(known)) < 2 or not metric.better:
        return False
    return metric.better * own == max(known)
