"""The tables of a study: of losses, as the thesis's Tables 5.3 to 5.5, and of single runs.

Published values have columns of their own, never mixed with measured ones, and the best of each
column is bold.
"""

from collections.abc import Mapping, Sequence

from dgnet_jax.ablation.agreement import agreement_table
from dgnet_jax.ablation.points import CUSTOM, label_of
from dgnet_jax.ablation.published import PUBLISHED, ordering_table
from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.results import DIVERGED, FINISHED, Row, measured_values
from dgnet_jax.ablation.summary import (
    BASELINE,
    METRICS,
    Difference,
    Metric,
    Spread,
    Summary,
    divergence,
    statement,
    summarise,
)
from dgnet_jax.losses import FUSIONS, LOSSES

_BY_NAME = {metric.name: metric for metric in METRICS}
_THESIS = ("fid", "fid_jpeg", "rank1", "rank5", "rank10", "mAP")
_DIFFERENCES = (
    *("fid", "fid_jpeg", "rank1", "mAP"),
    *("appearance_transfer", "structure_kept", "truth_l1", "truth_ssim"),
)
_MORE = tuple(metric.name for metric in METRICS if metric.name not in _THESIS)
_PUBLISHED = {"fid": "FID", "rank1": "Rank@1", "rank5": "Rank@5", "rank10": "Rank@10", "mAP": "mAP"}
# Columns of the table of runs.
_OF_RUNS = (
    *("fid", "fid_jpeg", "kid", "rank1", "rank5", "rank10", "mAP"),
    *("appearance_transfer", "structure_kept"),
)
# What losses are put in order by.
_COMPARED = {
    "FID": ("fid", (_BY_NAME["fid"], _BY_NAME["fid_jpeg"])),
    "mAP": ("mAP", (_BY_NAME["mAP"],)),
}
_UNKNOWN = "–"


def study_tables(rows: Sequence[Row], dataset: str) -> list[Table]:
    """All tables of a study's results.

    Args:
        rows: of all runs that are over, see `results.FIELDS`.
        dataset: `config.data.name`, whose published values are shown.
    """
    summaries = summarise(rows)
    published = PUBLISHED.get(dataset, {})
    baseline = [summary for summary in summaries if summary.label == BASELINE]
    single = [summary for summary in summaries if summary.label in LOSSES]
    fusions = [summary for summary in summaries if summary.label in FUSIONS]
    others = [summary for summary in summaries if summary.label not in (*LOSSES, *FUSIONS)]
    notes = _measured_notes(rows)
    tables = []
    for name, title, group in (
        ("single_losses", f"Single losses on {dataset}", single),
        ("fusions", f"Fusions on {dataset}", fusions and baseline + fusions),
        ("other_losses", f"Other losses on {dataset}", others and baseline + others),
    ):
        if group:
            tables.append(_thesis_table(name, title, group, published, notes))
    if _present(summaries, _MORE):
        tables.append(_more_table(summaries, dataset, notes))
    if any(summary.differences for summary in summaries) and _present(summaries, _DIFFERENCES):
        tables.append(_difference_table(summaries, dataset))
    names = {summary.label: _name(summary) for summary in summaries}
    order = ordering_table(summaries, published, _COMPARED, names, dataset)
    agreement = agreement_table(rows, dataset)
    return [*tables, *filter(None, (order, agreement))]


def run_table(rows: Sequence[Row]) -> Table:
    """A row for each run: how it ended, and its main numbers; nothing that no run has."""
    metrics = [one for one in METRICS if one.name in _OF_RUNS and measured_values(rows, one.field)]
    timed = bool(measured_values(rows, "wall_seconds"))
    cells = []
    for row in rows:
        diverged = row.get("status") == DIVERGED
        texts = [
            row["loss"],
            str(row.get("expression") or row["loss"]),
            str(row["seed"]),
            divergence(row) if diverged else str(row.get("status")),
            _number(row, "steps", 1, 0),
        ]
        if timed:
            texts.append(_number(row, "wall_seconds", 1 / 60, 1))
        texts += [_number(row, one.field, one.factor, one.digits) for one in metrics]
        cells.append([Cell(text) for text in texts])
    head = ["loss", "R", "seed", "state", "steps", *["minutes"] * timed]
    head += [one.title for one in metrics]
    return Table("runs", "Every run by itself", head, cells, [])


def _thesis_table(
    name: str,
    title: str,
    summaries: Sequence[Summary],
    published: Mapping[str, Mapping[str, float]],
    notes: Sequence[str],
) -> Table:
    metrics = _present(summaries, _THESIS)
    columns = list(_PUBLISHED) if any(s.label in published for s in summaries) else []
    rows = []
    for summary in summaries:
        cells = [Cell(_name(summary)), Cell(_seeds(summary))]
        cells += _measured(summary, summaries, metrics)
        for column in columns:
            rival = [published[s.label][column] for s in summaries if s.label in published]
            value = published.get(summary.label, {}).get(column)
            best = min(rival) if column == "fid" else max(rival)
            cells.append(
                Cell(_UNKNOWN)
                if value is None
                else Cell(f"{value:.2f}", bold=value == best and len(rival) > 1)
            )
        rows.append(cells)
    head = ["loss", "seeds", *(metric.title for metric in metrics)]
    head += [f"{_PUBLISHED[column]} (published)" for column in columns]
    all_notes = list(notes)
    if columns:
        all_notes.append(
            "Published: the thesis's values, at full size, one run each, FID of 2048 features and "
            "JPEG files. They were not measured here."
        )
    return Table(name, title, head, rows, all_notes + _failures(summaries))


def _more_table(summaries: Sequence[Summary], dataset: str, notes: Sequence[str]) -> Table:
    metrics = _present(summaries, _MORE)
    rows = [[Cell(_name(s)), Cell(_seeds(s)), *_measured(s, summaries, metrics)] for s in summaries]
    head = ["loss", "seeds", *(metric.title for metric in metrics)]
    return Table("more_measures", f"Further measures on {dataset}", head, rows, list(notes))


def _difference_table(summaries: Sequence[Summary], dataset: str) -> Table:
    metrics = _present(summaries, _DIFFERENCES)
    rows: list[list[Cell]] = []
    pairs: set[int] = set()
    for summary in summaries:
        if not summary.differences:
            continue
        cells = [Cell(_name(summary))]
        for metric in metrics:
            difference = summary.differences[metric.name]
            pairs.add(difference.n)
            cells.append(Cell(_difference(difference, metric)))
            cells.append(Cell(statement(difference) if summary.seeds else "diverged"))
        rows.append(cells)
    head = ["loss"]
    for metric in metrics:
        head += [f"{metric.title} minus l1's [95 %]", "said of it"]
    notes = [
        "Differences are paired by seed: runs of one seed see the same images in the same order. "
        "In brackets the confidence interval of their mean (Student's t), corrected for the number "
        "of losses that are compared (Bonferroni): all intervals of a column hold together with "
        "95 %.",
        "Columns are not corrected for each other.",
    ]
    if 1 in pairs:
        notes.append("With one seed in common nothing can be said: no interval is given.")
    return Table("difference_to_l1", f"Difference to l1 on {dataset}", head, rows, notes)


def _present(summaries: Sequence[Summary], names: Sequence[str]) -> list[Metric]:
    """The metrics that were measured in some run."""
    return [_BY_NAME[name] for name in names if any(s.spreads[name].n for s in summaries)]


def _measured(
    summary: Summary, summaries: Sequence[Summary], metrics: Sequence[Metric]
) -> list[Cell]:
    if not summary.seeds:
        return [Cell("diverged") for _ in metrics]
    return [
        Cell(
            _spread(summary.spreads[metric.name], metric), bold=_is_best(summary, summaries, metric)
        )
        for metric in metrics
    ]


def _is_best(summary: Summary, summaries: Sequence[Summary], metric: Metric) -> bool:
    """Whether its mean is the best of several different ones."""
    means = [s.spreads[metric.name].mean for s in summaries]
    known = [metric.better * mean for mean in means if mean is not None]
    own = summary.spreads[metric.name].mean
    if own is None or len(set(known)) < 2 or not metric.better:
        return False
    return metric.better * own == max(known)


def _spread(found: Spread, metric: Metric) -> str:
    if found.mean is None:
        return _UNKNOWN
    text = f"{metric.factor * found.mean:.{metric.digits}f}"
    if found.sd is not None:
        text += f" ± {metric.factor * found.sd:.{metric.digits}f}"
    return text.replace("-", "−")


def _difference(found: Difference, metric: Metric) -> str:
    if found.mean is None:
        return _UNKNOWN
    text = f"{metric.factor * found.mean:+.{metric.digits}f}"
    if found.joint_low is not None and found.joint_high is not None:
        low, high = (metric.factor * value for value in (found.joint_low, found.joint_high))
        text += f" [{low:+.{metric.digits}f}, {high:+.{metric.digits}f}]"
    return text.replace("-", "−")


def _number(row: Row, field: str, factor: float, digits: int) -> str:
    value = row.get(field)
    return _UNKNOWN if value is None else f"{factor * value:,.{digits}f}"


def _name(summary: Summary) -> str:
    """A loss as the thesis writes it, l1+mse; a label of the user's with its expression."""
    if summary.label in LOSSES or summary.expression == CUSTOM:
        return summary.label
    if summary.label in FUSIONS or summary.label == label_of(summary.expression):
        return summary.expression
    return f"{summary.label} ({summary.expression})"


def _seeds(summary: Summary) -> str:
    total = len(summary.seeds) + len(summary.diverged)
    return f"{len(summary.seeds)} of {total}" if summary.diverged else str(total)


def _measured_notes(rows: Sequence[Row]) -> list[str]:
    """What the measured columns are, from the results themselves."""
    notes = [
        "Measured: mean ± sample standard deviation over the finished seeds; rank metrics in "
        "percent; mAP is the trapezoid one of DG-Net and the thesis. Bold is the best mean."
    ]
    sets = {
        (row["dims"], row["generated"], row["real"]) for row in rows if row.get("dims") is not None
    }
    for dims, generated, real in sorted(sets):
        note = f"FID and KID: {dims} features, {generated} generated against {real} real images."
        if dims != 2048:
            note += f" FID of {dims} features is not comparable with the published one of 2048."
        if min(generated, real) <= dims:
            note += " So few images leave the covariance singular: prefer KID."
        notes.append(note)
    if measured_values(rows, "appearance_transfer"):
        notes.append(
            "Appearance transfer is 1 where the garments of drawn people have the truth's colours, "
            "and 0 where the appearance image has no say; structure kept is the SSIM of lightness "
            "to the truth."
        )
    finished = [row for row in rows if row["status"] == FINISHED]
    measured = sum(row.get("dims") is not None for row in finished)
    if 0 < measured < len(finished):
        notes.append(f"FID was measured in {measured} of {len(finished)} finished runs.")
    steps = sorted({row["steps"] for row in finished})
    if steps:
        notes.append(f"Steps of training: {', '.join(map(str, steps))}.")
    return notes


def _failures(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{_name(summary)}, seed {row['seed']}: {divergence(row)}."
        for summary in summaries
        for row in summary.diverged
    ]
