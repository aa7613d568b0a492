"""The report's section of a search: the front, the history, the importance of parameters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dgnet_jax.ablation.report import search_plots
from dgnet_jax.ablation.report.plots import draw
from dgnet_jax.ablation.report.section import Picture, Section, listed, save_picture
from dgnet_jax.ablation.search.definition import read_definition
from dgnet_jax.ablation.search.outcome import (
    BEST_SHARE,
    FEW_TRIALS,
    Outcome,
    front_table,
    importances,
    printed,
    read_outcome,
)
from dgnet_jax.ablation.summary import BASELINE
from dgnet_jax.errors import InputError
from dgnet_jax.losses import FUSIONS, LOSSES

_THESIS = (*LOSSES, *FUSIONS)
# Trials of the front whose pictures and curves the page shows.
_MOST_SHOWN = 6


def read_search(study_dir: Path) -> Outcome | str | None:
    """The search in a folder; why it cannot be shown; or None if there is none."""
    try:
        return read_outcome(study_dir) if read_definition(study_dir) is not None else None
    except InputError as error:
        return f"The search itself is not shown: {error}."


def shown_labels(found: Outcome | str | None, labels: Sequence[str]) -> list[str]:
    """Which losses' pictures and curves are shown: of a search l1 and some of the front."""
    if not isinstance(found, Outcome):
        return list(labels)
    front = [trial.label for trial in found.front if trial.label in labels]
    places = np.linspace(0, len(front) - 1, min(len(front), _MOST_SHOWN)).round().astype(int)
    chosen = {front[place] for place in places} | {BASELINE}
    return [label for label in labels if label in chosen]


def search_section(folder: Path, found: Outcome | str | None, shown: Sequence[str]) -> Section:
    """What a search has found; empty where there was none.

    Args:
        folder: of the report, which gets the pictures.
        found: of `read_search`.
        shown: of `shown_labels`.
    """
    section = Section("Search", plots=True)
    if not isinstance(found, Outcome):
        section.text += [found] if found else []
        return section
    objectives = found.definition.objectives
    aims = [f"{'more' if one.better > 0 else 'less'} {one.title}" for one in objectives]
    terms = listed(found.definition.space.texts)
    section.text.append(
        f"A search for {listed(aims)} in sums of {terms}: each is in or out, with a weight of the "
        f"range before it. {found.summary}"
    )
    if not found.finished:
        return section
    section.tables.append(front_table(found))
    if len(objectives) > 1:
        section.pictures.append(_front(folder, found))
    section.pictures.append(_history(folder, found))
    shares = importances(found)
    if shares is None:
        section.text.append(
            f"With fewer than {FEW_TRIALS} finished trials nothing can be said of which parameters "
            "matter."
        )
    else:
        plot = save_picture(
            folder,
            "search_importance",
            draw(search_plots.importance_plot(shares)),
            alt=f"Bars of the importance of each parameter for {listed(list(shares))}",
            caption="How much each parameter decides whether a trial is among the best "
            f"{BEST_SHARE:.0%} (PED-ANOVA). Of few trials this is rough.",
            photograph=False,
        )
        section.pictures.append(plot)
    section.text.append(
        "Below, tables have all trials but pruned ones; pictures and curves are of "
        f"{listed(shown)}."
    )
    return section


def _front(folder: Path, found: Outcome) -> Picture:
    objectives = found.definition.objectives
    plot = search_plots.front_plot(found.finished, found.front, objectives, _THESIS)
    caption = "Each finished trial; numbers are those of trials."
    if len(objectives) == 2:
        caption += " The line ends where the front does: all trials lie on it or behind it."
    else:
        rest = listed([one.title for one in objectives[2:]])
        caption += f" The front is that of all objectives, {rest} included, which is not drawn."
    if plot.outside:
        places = [
            f"{trial.label} ({_values(objectives[:2], trial.values[:2])})" for trial in plot.outside
        ]
        caption += f" Outside of the axes: {', '.join(places)}."
    return save_picture(
        folder,
        "search_front",
        draw(plot.figure),
        alt=f"{objectives[0].title} and {objectives[1].title} of each trial, and the front: "
        + listed([trial.label for trial in found.front]),
        caption=caption,
        photograph=False,
    )


def _history(folder: Path, found: Outcome) -> Picture:
    over = [trial for trial in found.trials if trial.outcome not in ("waiting", "running")]
    objectives = found.definition.objectives
    caption = "Each objective over the trials. Triangles point to what lies outside."
    outcomes = {trial.outcome for trial in over}
    if "pruned" in outcomes:
        caption += " Bars at the bottom are trials that were ended early."
    if "diverged" in outcomes:
        caption += " Crosses there are trials that diverged."
    return save_picture(
        folder,
        "search_history",
        draw(search_plots.history_plot(over, objectives, _THESIS)),
        alt=f"{listed([one.title for one in objectives])} over {len(over)} trials, and the best so "
        "far",
        caption=caption,
        photograph=False,
    )


def _values(objectives: Sequence, values: Sequence[float]) -> str:
    return ", ".join(
        f"{metric.title} {printed(metric, value)}"
        for metric, value in zip(objectives, values, strict=True)
    )
