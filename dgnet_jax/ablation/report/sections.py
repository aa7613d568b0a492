"""The sections of the report with words, tables and plots; `pictures` has the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from dgnet_jax.ablation.claims import claims_notes, thesis_claims
from dgnet_jax.ablation.dataset_table import dataset_table
from dgnet_jax.ablation.plan import read_plan
from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.report import plots
from dgnet_jax.ablation.report.runs import MOST_LOSSES, Run, thesis_groups
from dgnet_jax.ablation.report.section import Groups, Section, listed, save_picture
from dgnet_jax.ablation.results import Row, ended_early, measured_values
from dgnet_jax.ablation.search.definition import is_search
from dgnet_jax.ablation.summary import divergence, summarise
from dgnet_jax.ablation.tables import run_table, study_tables
from dgnet_jax.config_fields import USES
from dgnet_jax.data.splits import ReidDataset

# Metric to its name and the factor of its axis; 100 is percent.
_CURVES = {
    "mAP": ("mAP", 100),
    "rank1": ("Rank@1", 100),
    "appearance_transfer": ("Appearance transfer", 1),
}


def facts(runs: Sequence[Run], config: ml_collections.ConfigDict) -> dict[str, str]:
    """What all runs have in common, for the head of the page."""
    found = {
        "data set": config.data.name,
        "images": f"{config.data.height} × {config.data.width} pixels",
        "steps": f"{config.total_steps:,} of batch {config.batch_size}",
        "R compares": compared(config),
    }
    for name, title in (("device", "device"), ("git_commit", "commit")):
        values = sorted({str(run.result[name]) for run in runs if run.result.get(name)})
        if values:
            found[title] = ", ".join(values)
    dates = [str(run.result["date"]) for run in runs if run.result.get("date")]
    if dates:
        found["last run"] = max(dates)
    versions = sorted({_versions_text(run.result.get("versions")) for run in runs} - {""})
    if versions:
        found["versions"] = "; ".join(versions)
    return found


def compared(config: ml_collections.ConfigDict) -> str:
    """What the reconstruction loss of a run compares, and what of it trains nothing."""
    names = {use: use.replace("_code", " codes").replace("_", " ") for use in USES}
    own = {use: config.reconstruction[use] for use in USES if config.reconstruction[use]}
    parts = [
        f"{names[use]}{f' (by {own[use]} in every run)' if use in own else ''}" for use in USES
    ]
    text = listed(parts)
    if config.appearance.cut_gradient:
        text += "; the appearance codes' term has no gradient (appearance.cut_gradient)"
    return text


def results_section(
    groups: Groups,
    dataset: str,
    study_dir: Path,
    damaged: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Section:
    """The thesis's tables, the other measures, and the differences to l1; and what is left out.

    Args:
        groups, study_dir, damaged: as of `report.write_report`.
        dataset: `config.data.name`.
        notes: as of `study_tables`.
    """
    study = read_plan(study_dir) is not None
    section = Section("Results", _coverage(groups, study_dir) + _measures(groups, study))
    section.text += [f"Left out: {fault}" for fault in damaged]
    runs = [run for group in groups.values() for run in group]
    section.text += [f"{run.label}, seed {run.seed}: {run.fault}." for run in runs if run.fault]
    if any(label in PUBLISHED.get(dataset, {}) for label in groups):
        section.text.append(
            "Shaded columns are published values, none measured here; in the tables of losses they "
            "are the thesis's, of full-size networks and 100,000 steps."
        )
    # A table of nothing but losses and seeds says nothing.
    tables = study_tables(_rows(groups), dataset, notes)
    said: set[str] = set()
    for table in tables:
        if len(table.head) > 2:
            # One page says a thing once; each table's own file says all.
            notes = [note for note in table.notes if note not in said]
            section.tables.append(table._replace(notes=notes))
            said.update(notes)
    return section


def claims_section(groups: Groups, dataset: str, notes: Sequence[str] = ()) -> Section:
    """What the thesis says of the losses, and what these runs say to it; notes as of tables."""
    section = Section("The thesis's claims")
    section.claims = thesis_claims(summarise(_rows(groups)), dataset)
    if section.claims:
        section.text = [*claims_notes(dataset), *notes]
    return section


def dataset_section(
    dataset: ReidDataset | None, config: ml_collections.ConfigDict, looked_for: bool = True
) -> Section:
    """The thesis's Tables 5.1 and 5.2 of the data set in use.

    Args:
        dataset: None if it is not at hand.
        config: says which it is.
        looked_for: whether its files were.
    """
    section = Section("Data set")
    if dataset is not None:
        cameras = config.data.get("cameras", True)
        section.tables.append(dataset_table(dataset, config.data.name, cameras))
    else:
        why = (
            f"The files of {config.data.name} were not at hand when this page was written"
            if looked_for
            else "This page was written from images alone, and no data set was given with them"
        )
        section.text.append(f"{why}: the table of identities, images and cameras is left out.")
    return section


def metrics_section(folder: Path, groups: Groups) -> Section:
    """mAP, Rank@1 and, of a drawn data set, the appearance transfer over training steps."""
    section = Section("Metrics over training", plots=True)
    parts = thesis_groups(list(groups)) if len(groups) > MOST_LOSSES else [("", list(groups))]
    for metric, (name, factor) in _CURVES.items():
        for title, labels in parts:
            part = {label: groups[label] for label in labels}
            runs = [run for label in labels for run in groups[label]]
            if not any(metric in run.evaluations for run in runs):
                continue
            caption = f"{name} over training steps{f': {title.lower()}' if title else ''}."
            if any(_finished(group) > 1 for group in part.values()):
                caption += " A line is the mean over seeds, its band their range."
            caption += _crosses(runs)
            unit = " (%)" if factor == 100 else ""
            picture = save_picture(
                folder,
                f"curve_{name}_{title}" if title else f"curve_{name}",
                plots.draw(plots.metric_curves(part, metric, name + unit, factor)),
                alt=f"Plot of {name} over training steps for {listed(labels)}",
                caption=caption,
                photograph=False,
            )
            section.pictures.append(picture)
    return section


def terms_section(folder: Path, groups: Groups) -> Section:
    """The terms of the objective, a plot for each loss."""
    section = Section("Training curves", plots=True)
    for label, runs in groups.items():
        plot = plots.training_curves(runs)
        if plot is None:
            continue
        seeds = ", mean and range over seeds" if _finished(runs) > 1 else ""
        picture = save_picture(
            folder,
            f"training_{label}",
            plots.draw(plot),
            alt=f"Plots of the terms of the objective over training steps with {label}",
            label=label,
            caption=f"{label}: terms of the objective, before their weights, over training "
            f"steps{seeds}.{_crosses(runs)}",
            photograph=False,
        )
        section.pictures.append(picture)
    if len(section.pictures) > 1:
        section.text.append(
            "Terms that are measured with R have the unit of that loss: compare their courses from "
            "plot to plot, not their sizes."
        )
    return section


def runs_section(groups: Groups) -> Section:
    """All runs, one by one."""
    return Section("Runs", tables=[run_table(_rows(groups))])


def _coverage(groups: Groups, study_dir: Path) -> list[str]:
    """How many runs there are, which diverged, which are still to come."""
    runs = [run for group in groups.values() for run in group]
    diverged = [run for run in runs if run.diverged]
    pruned = sum(run.pruned for run in runs)
    lines = []
    if len(runs) > 1 or diverged:
        lines.append(
            f"{_count(len(groups), 'loss', 'losses')}, {_count(len(runs), 'run', 'runs')}: "
            f"{len(runs) - len(diverged) - pruned} finished, {len(diverged)} diverged"
            + (f", {pruned} pruned." if pruned else ".")
        )
    lines += [f"{run.label}, seed {run.seed}: {divergence(run.result)}." for run in diverged]
    absent = _absent(runs, study_dir)
    if absent:
        lines.append(f"Without a result so far: {', '.join(absent)}.")
    return lines


def _measures(groups: Groups, study: bool) -> list[str]:
    """Which measures are missing, and FID's floor; without `study`, of a run, which has no FID."""
    runs = [run for group in groups.values() for run in group]
    finished = [run.result for run in runs if not (run.diverged or run.pruned)]
    if not finished:
        return ["No run finished: there is nothing to compare."]
    lines = []
    if not measured_values(finished, "mAP"):
        reason = "" if study else " (config.evaluation.every_steps is negative)"
        lines.append(f"Ranking was not measured{reason}.")
    if not study:
        lines.append("Generated images are measured by launch.py --mode=evaluate.")
    elif not measured_values(finished, "fid_png"):
        lines.append(
            "FID and KID were not measured: they need the FID Inception's weights "
            "(--config.inception=FILE) and config.evaluation.generated_images."
        )
    floors = measured_values(finished, "fid_real")
    if floors:
        lines.append(
            f"Real training images against the gallery, the floor, have FID {floors[0]:.2f}."
        )
    return lines


def _absent(runs: Sequence[Run], study_dir: Path) -> list[str]:
    """Losses times seeds of the plan that are still to come, by loss; none without a plan."""
    plan = read_plan(study_dir)
    if plan is None:
        return []
    planned = [(label, seed) for label in plan["losses"] for seed in plan["seeds"]]
    over = {(run.label, run.seed) for run in runs}
    ended = ended_early([run.result for run in runs], is_search(study_dir))
    by_label: dict[str, list[str]] = {}
    for label, seed in planned:
        if (label, seed) not in over and label not in ended:
            by_label.setdefault(label, []).append(str(seed))
    return [f"{label} (seed {', '.join(seeds)})" for label, seeds in by_label.items()]


def _versions_text(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return str(versions or "")
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _rows(groups: Groups) -> list[Row]:
    return [dict(run.result) for runs in groups.values() for run in runs]


def _finished(runs: Sequence[Run]) -> int:
    return sum(not run.diverged for run in runs)


def _crosses(runs: Sequence[Run]) -> str:
    return " A cross ends a run that diverged." if _finished(runs) < len(runs) else ""
