"""Whether measures that know no truth put losses in the order in which the truth puts them.

On drawn people a swap has a right answer (`evaluation.truth`). Papers compare losses by FID, which
has never been held against one.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, kendalltau

from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.results import FINISHED, Row
from dgnet_jax.ablation.summary import CONFIDENCE, METRICS, Metric, values_by_seed

_BY_NAME = {metric.name: metric for metric in METRICS}
_JUDGED = (
    *("fid", "fid_jpeg", "kid", "kid_jpeg", "teacher_frechet", "identity_consistency"),
    *("rank1", "mAP"),
)
_TRUTH = ("appearance_transfer", "structure_kept", "truth_l1", "truth_ssim")
# Fewer losses have no order to speak of.
_FEWEST = 3
_RESAMPLES = 2000

Values = Float[np.ndarray, "losses seeds"]


def agreement_table(rows: Sequence[Row], dataset: str) -> Table | None:
    """Kendall's tau of each measure with each measure of the truth, over the losses.

    Losses and seeds are those whose runs all have both values. Intervals are of the percentile
    bootstrap over seeds: they say how far the order depends on the seeds that happened to run, and
    nothing about other losses.

    Args:
        rows: of all runs that are over.
        dataset: for the title.

    Returns:
        None if no measure of the truth is known of three losses.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == FINISHED:
            groups.setdefault(row["loss"], []).append(row)
    cells: list[list[Cell]] = []
    used: set[tuple[int, int]] = set()
    for name in _JUDGED:
        texts = []
        for other in _TRUTH:
            pair = _common_values(list(groups.values()), _BY_NAME[name], _BY_NAME[other])
            texts.append("–" if pair is None else _agreement(*pair))
            if pair is not None:
                used.add(pair[0].shape)
        if set(texts) != {"–"}:
            cells.append([Cell(text) for text in (_BY_NAME[name].title, *texts)])
    if not cells:
        return None
    counts = "; ".join(f"{losses} losses, {seeds} seeds" for losses, seeds in sorted(used))
    notes = [
        "Kendall's tau of the means over seeds: +1 where a measure has the losses in the truth's "
        f"order, best first, −1 in the reverse one, 0 where they have nothing in common. {counts}. "
        f"In brackets the {CONFIDENCE:.0%} interval of the bootstrap over seeds."
    ]
    head = ["measure", *(_BY_NAME[name].title for name in _TRUTH)]
    title = f"Agreement with the truth on {dataset}"
    return Table("agreement_with_truth", title, head, cells, notes)


def _common_values(
    groups: Sequence[Sequence[Row]], first: Metric, second: Metric
) -> tuple[Values, Values] | None:
    """The values of two metrics, more being better; None if fewer than three losses have both."""
    found = [(values_by_seed(rows, first), values_by_seed(rows, second)) for rows in groups]
    found = [pair for pair in found if pair[0].keys() & pair[1].keys()]
    if len(found) < _FEWEST:
        return None
    seeds = sorted(set.intersection(*(set(a) & set(b) for a, b in found)))
    if not seeds:
        return None
    return tuple(  # type: ignore[return-value]
        metric.better * np.array([[pair[index][seed] for seed in seeds] for pair in found])
        for index, metric in enumerate((first, second))
    )


def _agreement(a: Values, b: Values) -> str:
    """Tau of the means, and its interval if there are seeds to choose from."""

    @cache  # few seeds can be chosen in few ways
    def tau_of(seeds: tuple[int, ...]) -> float:
        chosen = list(seeds)
        return float(kendalltau(a[:, chosen].mean(1), b[:, chosen].mean(1)).statistic)

    def tau(seeds: np.ndarray) -> float:
        return tau_of(tuple(sorted(seeds.tolist())))

    seeds = np.arange(a.shape[1])
    whole = tau(seeds)
    if not math.isfinite(whole):
        return "–"
    text = f"{whole:+.2f}"
    if len(seeds) > 1:
        found = bootstrap(
            *[(seeds,), tau],
            vectorized=False,
            n_resamples=_RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=0,
        ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            text += f" [{found.low:+.2f}, {found.high:+.2f}]"
    return text.replace("-", "−")
