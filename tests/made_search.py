"""A search that trained nothing, to report: its values are formulas."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from report_page import row

from dgnet_jax.ablation.points import choose_losses
from dgnet_jax.ablation.search.definition import define, save_definition
from dgnet_jax.ablation.search.journal import Journal
from dgnet_jax.losses import parse

TERMS = ("l1", "0.1:4*rmse", "huber(delta=0.1:2)")
PRUNED, DIVERGED = 15, 20


def by_weights(weights: dict[str, float], number: int) -> dict[str, float]:
    """FID and mAP of a trial; the least FID and the most mAP want different losses."""
    if "ml" in weights:
        return {"fid_png": 320.0, "mAP": 0.4, "rank1": 0.5}
    fid = 15 + 5 * abs(math.log(weights.get("rmse", 0.05) / 1.5)) + math.sin(number) / 4
    mean = 0.7 + 0.02 * weights.get("l1", 0.0) - 0.01 * weights.get("rmse", 0.0)
    return {"fid_png": fid, "mAP": mean, "rank1": mean + 0.1}


def make_search(
    folder: Path,
    objectives: Sequence[str] = ("fid", "mAP"),
    trials: int = 30,
    values: Callable[[dict[str, float], int], dict[str, float]] = by_weights,
    terms: Sequence[str] = TERMS,
    sampler: str = "tpe",
) -> list[dict[str, Any]]:
    """A search with one trial pruned and one diverged; returns the results of its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    definition = define(terms, objectives, [0])
    save_definition(folder, definition)
    first = {point.label: point.expression for point in choose_losses("all")}
    journal = Journal(
        folder, definition.space, definition.objectives, first, sampler=sampler, seed=0
    )
    rows = []
    while (claim := journal.claim(trials)) is not None:
        weights = {term.name: term.weight for term in parse(claim.expression).terms}
        found = values(weights, claim.number)
        if claim.number in (PRUNED, DIVERGED):
            status = "pruned" if claim.number == PRUNED else "diverged"
            journal.give_up(claim.number, status)
            found = {"diverged_step": 2} if status == "diverged" else {}
        else:
            status = "finished"
            journal.finish(claim.number, [found[one.field] for one in definition.objectives])
        journal.release(claim)
        rows.append(row(claim.label, 0, **found, status=status, expression=claim.expression))
    return rows
