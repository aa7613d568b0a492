"""The thesis's measured values, and whether the losses come in the same order here.

None of these values was measured with this code (docs/method.md, section 8).
"""

import math
from collections.abc import Mapping, Sequence

from scipy.stats import kendalltau

from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.summary import Metric, Summary

_COLUMNS = ("fid", "rank1", "rank5", "rank10", "mAP")
# Fewer losses have no order to speak of.
_FEWEST = 3


# Loss to name to value, of one data set.
PublishedValues = Mapping[str, Mapping[str, float]]


def _by_loss(rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {label: dict(zip(_COLUMNS, values, strict=True)) for label, values in rows.items()}


PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "market1501": _by_loss(
        {
            "l1": (19.68, 91.09, 96.73, 97.80, 75.96),
            "huber": (25.17, 90.65, 96.73, 98.01, 75.83),
            "mse": (21.40, 90.29, 96.88, 98.31, 74.75),
            "mrae": (21.73, 91.18, 96.91, 98.16, 75.73),
            "cos": (37.95, 90.11, 96.35, 97.62, 74.15),
            "rmse": (19.65, 91.33, 96.79, 98.01, 75.19),
            "ml": (319.82, 68.35, 84.47, 89.07, 43.77),
            "l1_cos_weighted": (20.55, 90.32, 96.70, 97.74, 74.81),
            "l1_mse": (17.99, 92.37, 97.45, 98.56, 78.63),
            "l1_mrae": (18.79, 91.03, 96.82, 97.98, 77.13),
            "l1_rmse": (15.63, 91.42, 97.06, 98.16, 76.87),
            "l1_cos": (17.35, 91.45, 96.44, 97.95, 76.92),
        }
    ),
    "duke": _by_loss(
        {
            "l1": (20.84, 81.19, 90.71, 93.18, 67.33),
            "l1_mse": (97.17, 10.80, 22.13, 22.01, 23.71),
            "l1_mrae": (86.40, 14.37, 23.71, 26.31, 26.34),
        }
    ),
}
"""Data set -> loss -> value: "fid" (2048-d, JPEG, one run), and shares in percent."""


def ordering_table(
    summaries: Sequence[Summary],
    published: PublishedValues,
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
        reference = {s.label: published[s.label][name] for s in summaries if s.label in published}
        ordered: set[str] = set()
        for metric in metrics:
            means = {
                s.label: s.spreads[metric.name].mean for s in summaries if s.label in reference
            }
            measured = {label: mean for label, mean in means.items() if mean is not None}
            if len(measured) < _FEWEST:
                continue
            ordered |= set(measured)
            columns[metric.title] = _best_first(measured, metric)
            pairs = [(mean, reference[label]) for label, mean in measured.items()]
            tau = kendalltau(*zip(*pairs, strict=True)).statistic
            if math.isfinite(tau):
                agreements.append(f"{metric.title} {tau:+.2f}".replace("-", "−"))
        if ordered:
            known = {label: value for label, value in reference.items() if label in ordered}
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
