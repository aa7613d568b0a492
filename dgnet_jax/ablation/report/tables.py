"""The table of single runs; those of losses are `ablation.tables`'."""

from collections.abc import Mapping, Sequence

from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.report.runs import Run
from dgnet_jax.ablation.summary import METRICS, divergence

_SHOWN = ("fid", "fid_jpeg", "kid", "rank1", "rank5", "rank10", "mAP")
_UNKNOWN = "–"


def run_table(groups: Mapping[str, Sequence[Run]]) -> Table:
    """A row for each run: how it ended, and its main numbers; nothing that no run has."""
    runs = [run for group in groups.values() for run in group]
    metrics = [one for one in METRICS if one.name in _SHOWN and known(runs, one.field)]
    timed = bool(known(runs, "wall_seconds"))
    rows = []
    for run in runs:
        texts = [
            run.label,
            str(run.result.get("expression") or run.label),
            str(run.seed),
            divergence(run.result) if run.diverged else str(run.result.get("status")),
            _number(run, "steps", 1, 0),
        ]
        if timed:
            texts.append(_number(run, "wall_seconds", 1 / 60, 1))
        texts += [_number(run, one.field, one.factor, one.digits) for one in metrics]
        rows.append([Cell(text) for text in texts])
    head = ["loss", "R", "seed", "state", "steps", *["minutes"] * timed]
    head += [one.title for one in metrics]
    return Table("runs", "Every run by itself", head, rows, [])


def known(runs: Sequence[Run], field: str) -> list[float]:
    """The values of a field that were measured."""
    values = [run.result.get(field) for run in runs]
    return [float(value) for value in values if value is not None]


def _number(run: Run, field: str, factor: float, digits: int) -> str:
    value = run.result.get(field)
    return _UNKNOWN if value is None else f"{factor * value:,.{digits}f}"
