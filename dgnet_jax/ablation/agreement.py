"""Whether measures that know no truth put losses in the order in which the truth puts them.

On drawn people a swap has a right answer (`evaluation.truth`). Papers compare losses by FID, which
has never been held against one.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, kendalltau

from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.results import FINISHED, Row
from dgnet_jax.ablation.summary import (
    CONFIDENCE,
    FEW_SEEDS,
    METRICS,
    Metric,
    values_by_seed,
)

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

    Seeds are those that more than half of the losses have finished, and losses those that have
    finished all of these: one that diverged does not leave all others with fewer seeds.

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
    used: set[tuple[tuple[str, ...], int]] = set()
    for name in _JUDGED:
        texts = []
        for other in _TRUTH:
            pair = _common_values(groups, _BY_NAME[name], _BY_NAME[other])
            text = "–" if pair is None else _agreement(*pair[1:])
            texts.append(text)
            if pair is not None and text != "–":
                used.add((pair[0], pair[1].shape[1]))
        if set(texts) != {"–"}:
            cells.append([Cell(text) for text in (_BY_NAME[name].title, *texts)])
    if not cells:
        return None
    head = ["measure", *(_BY_NAME[name].title for name in _TRUTH)]
    title = f"Agreement with the truth on {dataset}"
    return Table("agreement_with_truth", title, head, cells, _notes(used, list(groups)))


def _notes(used: set[tuple[tuple[str, ...], int]], known: Sequence[str]) -> list[str]:
    sizes = sorted({(len(labels), seeds) for labels, seeds in used})
    notes = [
        "Kendall's tau of the means over seeds: +1 where a measure has the losses in the truth's "
        "order, best first, −1 in the reverse one, 0 where they have nothing in common. "
        f"{'; '.join(f'{losses} losses, {seeds} seeds' for losses, seeds in sizes)}."
    ]
    if sizes[-1][1] >= FEW_SEEDS:
        notes.append(
            f"In brackets the range of {CONFIDENCE:.0%} of the values that other choices of as "
            "many of these seeds give, with repetition. It says how much the order hangs on single "
            "seeds; it is no confidence interval, and lies nearer to 0 than one would."
        )
    left_out = [label for label in known if not all(label in labels for labels, _ in used)]
    if left_out:
        notes.append(f"Without seeds that most losses have, so left out: {', '.join(left_out)}.")
    return notes


def _common_values(
    groups: Mapping[str, Sequence[Row]], first: Metric, second: Metric
) -> tuple[tuple[str, ...], Values, Values] | None:
    """Losses, and their values of two metrics, more being better; None for fewer than three."""
    found = {
        label: (values_by_seed(rows, first), values_by_seed(rows, second))
        for label, rows in groups.items()
    }
    seeds = {label: pair[0].keys() & pair[1].keys() for label, pair in found.items()}
    counts = Counter(seed for own in seeds.values() for seed in own)
    rivals = sum(bool(own) for own in seeds.values())
    common = sorted(seed for seed, count in counts.items() if 2 * count > rivals)
    labels = tuple(label for label, own in seeds.items() if own.issuperset(common))
    if not common or len(labels) < _FEWEST:
        return None
    a, b = (
        metric.better * np.array([[found[label][i][seed] for seed in common] for label in labels])
        for i, metric in enumerate((first, second))
    )
    return labels, a, b


def _agreement(a: Values, b: Values) -> str:
    """Tau of the means and, where there are enough seeds, its range over choices of seeds."""

    @cache  # few seeds can be chosen in few ways
    def tau_of(seeds: tuple[int, ...]) -> float:
        means = ([fmean(own) for own in values[:, list(seeds)].tolist()] for values in (a, b))
        return float(kendalltau(*means).statistic)

    def tau(seeds: np.ndarray) -> float:
        found = tau_of(tuple(sorted(seeds.tolist())))
        return found if math.isfinite(found) else 0.0  # all losses are the same: no order

    seeds = np.arange(a.shape[1])
    whole = tau_of(tuple(seeds.tolist()))
    if not math.isfinite(whole):
        return "–"
    text = f"{whole:+.2f}"
    if len(seeds) >= FEW_SEEDS:
        found = bootstrap(
            *[(seeds,), tau],
            vectorized=False,
            n_resamples=_RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=0,
        ).confidence_interval
        text += f" [{found.low:+.2f}, {found.high:+.2f}]"
    return text.replace("-", "−")
