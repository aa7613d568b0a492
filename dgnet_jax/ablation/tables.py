"""The tables of a study: of losses, of their differences and order, and of single runs."""

from collections.abc import Sequence

from dgnet_jax.ablation.agreement import agreement_table
from dgnet_jax.ablation.cells import (
    BY_NAME,
    difference_text,
    loss_name,
    measured_cells,
    number_text,
    present,
    seeds_text,
)
from dgnet_jax.ablation.loss_tables import THESIS_METRICS, loss_table, measured_notes
from dgnet_jax.ablation.other_methods import methods_table
from dgnet_jax.ablation.points import is_fusion
from dgnet_jax.ablation.published import PUBLISHED, PublishedValues, ordering_table
from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.results import DIVERGED, Row, measured_values, without_pruned
from dgnet_jax.ablation.summary import (
    BASELINE,
    METRICS,
    Summary,
    divergence,
    statement,
    summarise,
)
from dgnet_jax.losses import FUSIONS, LOSSES

_DIFFERENCES = (
    *("fid", "fid_jpeg", "rank1", "mAP"),
    *("appearance_transfer", "structure_kept", "truth_l1", "truth_ssim"),
)
_MORE = tuple(metric.name for metric in METRICS if metric.name not in THESIS_METRICS)
# Columns of the table of runs.
_OF_RUNS = (
    *("fid", "fid_jpeg", "kid", "rank1", "rank5", "rank10", "mAP"),
    *("appearance_transfer", "structure_kept"),
)
# What losses are put in order by.
_COMPARED = {
    "FID": ("fid", (BY_NAME["fid"], BY_NAME["fid_jpeg"])),
    "mAP": ("mAP", (BY_NAME["mAP"],)),
}


def study_tables(rows: Sequence[Row], dataset: str, notes: Sequence[str] = ()) -> list[Table]:
    """All tables of a study's results.

    Args:
        rows: of all runs that are over, see `results.FIELDS`; none of a loss with a pruned one is
            used.
        dataset: `config.data.name`, whose published values are shown.
        notes: on what all runs have in common, such as `own_losses_notes`.
    """
    rows = without_pruned(rows)
    summaries = summarise(rows)
    published = PUBLISHED.get(dataset, {})
    baseline = [summary for summary in summaries if summary.label == BASELINE]
    single = [summary for summary in summaries if summary.label in LOSSES]
    fusions = [summary for summary in summaries if summary.label in FUSIONS]
    others = [summary for summary in summaries if summary.label not in (*LOSSES, *FUSIONS)]
    others.sort(key=lambda summary: is_fusion(summary.expression))
    notes = [*notes, *measured_notes(rows)]
    # Of the other losses only l1 is published, and that stands in the tables before theirs.
    groups: tuple[tuple[str, str, list[Summary], PublishedValues], ...] = (
        ("single_losses", "Single losses", single, published),
        ("fusions", "Fusions", fusions and baseline + fusions, published),
        ("other_losses", "Other losses", others and baseline + others, {}),
    )
    tables = [
        loss_table(name, f"{title} on {dataset}", group, values, notes)
        for name, title, group, values in groups
        if group
    ]
    if present(summaries, _MORE):
        tables.append(_more_table(summaries, dataset, notes))
    if any(summary.differences for summary in summaries) and present(summaries, _DIFFERENCES):
        tables.append(_difference_table(summaries, dataset))
    names = {summary.label: loss_name(summary) for summary in summaries}
    order = ordering_table(summaries, published, _COMPARED, names, dataset)
    agreement = agreement_table(rows, dataset)
    return [*tables, *filter(None, (order, agreement, methods_table(dataset)))]


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
            number_text(row, "steps", 1, 0),
        ]
        if timed:
            texts.append(number_text(row, "wall_seconds", 1 / 60, 1))
        texts += [number_text(row, one.field, one.factor, one.digits) for one in metrics]
        cells.append([Cell(text) for text in texts])
    head = ["loss", "R", "seed", "state", "steps", *["minutes"] * timed]
    head += [one.title for one in metrics]
    return Table("runs", "Every run by itself", head, cells, [])


def _more_table(summaries: Sequence[Summary], dataset: str, notes: Sequence[str]) -> Table:
    metrics = present(summaries, _MORE)
    rows = [
        [Cell(loss_name(s)), Cell(seeds_text(s)), *measured_cells(s, summaries, metrics)]
        for s in summaries
    ]
    head = ["loss", "seeds", *(metric.title for metric in metrics)]
    return Table("more_measures", f"Further measures on {dataset}", head, rows, list(notes))


def _difference_table(summaries: Sequence[Summary], dataset: str) -> Table:
    metrics = present(summaries, _DIFFERENCES)
    rows: list[list[Cell]] = []
    pairs: set[int] = set()
    for summary in summaries:
        if not summary.differences:
            continue
        cells = [Cell(loss_name(summary))]
        for metric in metrics:
            difference = summary.differences[metric.name]
            pairs.add(difference.n)
            cells.append(Cell(difference_text(difference, metric)))
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
