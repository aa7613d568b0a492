"""What the report says in words: what was run, what diverged, what is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from dgnet_jax.ablation.plan import read_plan
from dgnet_jax.ablation.report.runs import Run
from dgnet_jax.ablation.report.tables import known
from dgnet_jax.ablation.summary import divergence


def facts(runs: Sequence[Run], config: ml_collections.ConfigDict) -> dict[str, str]:
    """What all runs have in common, for the head of the page."""
    found = {
        "data set": config.data.name,
        "images": f"{config.data.height} × {config.data.width} pixels",
        "steps": f"{config.total_steps:,} of batch {config.batch_size}",
    }
    for name, title in (("device", "device"), ("git_commit", "commit")):
        values = sorted({str(run.result[name]) for run in runs if run.result.get(name)})
        if values:
            found[title] = ", ".join(values)
    dates = [str(run.result["date"]) for run in runs if run.result.get("date")]
    if dates:
        found["last run"] = max(dates)
    versions = sorted({_pairs(run.result.get("versions")) for run in runs} - {""})
    if versions:
        found["versions"] = "; ".join(versions)
    return found


def coverage(groups: Mapping[str, Sequence[Run]], study_dir: Path) -> list[str]:
    """How many runs there are, which diverged, which are still to come."""
    runs = [run for group in groups.values() for run in group]
    diverged = [run for run in runs if run.diverged]
    lines = []
    if len(runs) > 1 or diverged:
        lines.append(
            f"{_count(len(groups), 'loss', 'losses')}, {_count(len(runs), 'run', 'runs')}: "
            f"{len(runs) - len(diverged)} finished, {len(diverged)} diverged."
        )
    lines += [f"{run.label}, seed {run.seed}: {divergence(run.result)}." for run in diverged]
    absent = _absent(runs, study_dir)
    if absent:
        lines.append(f"Without a result so far: {', '.join(absent)}.")
    return lines


def measures(groups: Mapping[str, Sequence[Run]], study: bool) -> list[str]:
    """Which measures are missing, and FID's floor; study: not of a single run, which has no FID."""
    finished = [run for group in groups.values() for run in group if not run.diverged]
    if not finished:
        return ["No run finished: there is nothing to compare."]
    lines = []
    if not known(finished, "mAP"):
        reason = "" if study else " (config.evaluation.every_steps is negative)"
        lines.append(f"Ranking was not measured{reason}.")
    measured = len(known(finished, "fid_png"))
    if not study:
        lines.append("Generated images are measured by launch.py --mode=evaluate.")
    elif not measured:
        lines.append(
            "FID and KID were not measured: they need the FID Inception's weights "
            "(--config.inception=FILE) and config.evaluation.generated_images."
        )
    floors = known(finished, "fid_real")
    if floors:
        lines.append(f"Real images against other real images, the floor, have FID {floors[0]:.2f}.")
    return lines


def _absent(runs: Sequence[Run], study_dir: Path) -> list[str]:
    """Losses times seeds of the plan without a result, by loss; none where there is no plan."""
    plan = read_plan(study_dir)
    if plan is None:
        return []
    planned = [(label, seed) for label in plan["losses"] for seed in plan["seeds"]]
    over = {(run.label, run.seed) for run in runs}
    by_label: dict[str, list[str]] = {}
    for label, seed in planned:
        if (label, seed) not in over:
            by_label.setdefault(label, []).append(str(seed))
    return [f"{label} (seed {', '.join(seeds)})" for label, seeds in by_label.items()]


def _pairs(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return str(versions or "")
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
