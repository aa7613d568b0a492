"""Whether the losses come in the published order."""

import math
from collections.abc import Mapping, Sequence

from scipy.stats import kendalltau

from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.summary import Metric, Summary

# Fewer losses have no order to speak of.
_FEWEST = 3


def ordering_table(
    summaries: Sequence[Summary],
    published: Mapping[str, Mapping[str, float]],
    compared: Mapping[str, tuple[str, Sequence[Metric]]],
    names: Mapping[str, str],
    dataset: str,
) -> Table | None:
    """Measured and published order of the losses side by side, best first.

    Args:
        summaries: of all losses; those without a measured and a published value are left out.
        published: loss to name to value.
        compared: column title to (name in `published`, metrics that measure it).
        names: label to what the table calls the loss.
        dataset: for the title.

    Returns:
        None if fewer than three losses can be ordered.
    """
    columns: dict[str, list[str]] = {}
    agreements = []
    for title, (name, metrics) in compared.items():
        theirs = {s.label: published[s.label][name] for s in summaries if s.label in published}
        ordered: set[str] = set()
        for metric in metrics:
            means = {s.label: s.spreads[metric.name].mean for s in summaries if s.label in theirs}
            ours = {label: mean for label, mean in means.items() if mean is not None}
            if len(ours) < _FEWEST:
                continue
            ordered |= set(ours)
            columns[metric.title] = _best_first(ours, metric)
            tau = kendalltau(list(ours.values()), [theirs[label] for label in ours]).statistic
            if math.isfinite(tau):
                agreements.append(f"{metric.title} {tau:+.2f}".replace("-", "−"))
        if ordered:
            known = {label: theirs[label] for label in theirs if label in ordered}
            columns[f"{title} (published)"] = _best_first(known, metrics[0])
    if not columns:
        return None
    rows = []
    for place in range(max(map(len, columns.values()))):
        labels = [order[place] if place < len(order) else None for order in columns.values()]
        cells = [Cell("" if label is None else names[label]) for label in labels]
        rows.append([Cell(str(place + 1)), *cells])
    notes = [
        "By the mean over seeds, best first. The spread over seeds is in the tables above: "
        "neighbours may not be told apart."
    ]
    if agreements:
        notes.append(
            f"Kendall's tau of measured and published values: {', '.join(agreements)} (+1 is the "
            "same order, −1 the reverse, 0 no agreement)."
        )
    head = ["place", *columns]
    return Table("order_of_losses", f"Order of the losses on {dataset}", head, rows, notes)


def _best_first(values: Mapping[str, float], metric: Metric) -> list[str]:
    return sorted(values, key=lambda label: -metric.better * values[label])
