"""The sections of the report: each a heading with words, tables and pictures."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections
from PIL import Image

from dgnet_jax.ablation.plan import read_plan
from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.rendering import Table
from dgnet_jax.ablation.report import comparisons, plots
from dgnet_jax.ablation.report.comparisons import Painting
from dgnet_jax.ablation.report.runs import Run, thesis_groups
from dgnet_jax.ablation.results import Row, measured_values
from dgnet_jax.ablation.summary import divergence
from dgnet_jax.ablation.tables import run_table, study_tables
from dgnet_jax.data.decoding import open_rgb, reason
from dgnet_jax.figures import save_png
from dgnet_jax.runtime.reading import IMAGE_BYTES, read_bytes

Groups = Mapping[str, Sequence[Run]]
# Of photographs in the page; the PNG files hold every pixel.
_WEBP_QUALITY = 90
# Metric to its name and the factor of its axis; 100 is percent.
_CURVES = {
    "mAP": ("mAP", 100),
    "rank1": ("Rank@1", 100),
    "appearance_transfer": ("Appearance transfer", 1),
}
# Lines that one plot can hold; more are split as the tables are.
_MOST_LINES = 8


@dataclass(frozen=True)
class Picture:
    """A figure: `file` is the PNG beside the page, `uri` the picture itself; sizes in pixels."""

    file: str
    uri: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass
class Section:
    """A heading and what is below it; plots: whether its pictures are plots, not photographs."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    plots: bool = False

    @property
    def anchor(self) -> str:
        """For links within the page."""
        return slug(self.title)

    def __bool__(self) -> bool:
        return bool(self.text or self.tables or self.pictures)


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
    versions = sorted({_versions_text(run.result.get("versions")) for run in runs} - {""})
    if versions:
        found["versions"] = "; ".join(versions)
    return found


def results_section(
    groups: Groups, dataset: str, study_dir: Path, damaged: Sequence[str] = ()
) -> Section:
    """The thesis's tables, the other measures, and the differences to l1; and what is left out."""
    study = read_plan(study_dir) is not None
    section = Section("Results", _coverage(groups, study_dir) + _measures(groups, study))
    section.text += [f"Left out: {fault}" for fault in damaged]
    runs = [run for group in groups.values() for run in group]
    section.text += [f"{run.label}, seed {run.seed}: {run.fault}." for run in runs if run.fault]
    if any(label in PUBLISHED.get(dataset, {}) for label in groups):
        section.text.append(
            "The shaded columns are the thesis's published values for full-size networks and "
            "100,000 steps. None of them was measured here."
        )
    # A table of nothing but losses and seeds says nothing.
    tables = study_tables(_rows(groups), dataset)
    section.tables += [table for table in tables if len(table.head) > 2]
    return section


def metrics_section(folder: Path, groups: Groups) -> Section:
    """mAP, Rank@1 and, of a drawn data set, the appearance transfer over training steps."""
    section = Section("Metrics over training", plots=True)
    parts = thesis_groups(list(groups)) if len(groups) > _MOST_LINES else [("", list(groups))]
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
            picture = _save(
                folder,
                f"curve_{name}_{title}" if title else f"curve_{name}",
                plots.draw(plots.metric_curves(part, metric, name + unit, factor)),
                alt=f"Plot of {name} over training steps for {_listed(labels)}",
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
        picture = _save(
            folder,
            f"training_{label}",
            plots.draw(plot),
            alt=f"Plots of the terms of the objective over training steps with {label}",
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


def picture_sections(
    folder: Path, groups: Groups, paintings: Mapping[str, Painting], missing: Sequence[str]
) -> list[Section]:
    """The thesis's figures 5.4 to 5.10, all of the same images."""
    side = Section("The same inputs, each loss", list(missing))
    grids, pairs = Section("Swaps"), Section("Enlarged")
    if not paintings:
        return [side]
    parts = thesis_groups([label for label in groups if label in paintings])
    for title, labels in parts:
        chosen = [paintings[label] for label in labels]
        side.pictures.append(
            _save(
                folder,
                f"side_by_side_{title}" if len(parts) > 1 else "side_by_side",
                comparisons.side_by_side(chosen),
                alt="Rows of an appearance image, a structure image, and what "
                f"{_listed(labels)} make of the two",
                caption=(f"{title}. " if len(parts) > 1 else "") + _origins(chosen) + _fids(chosen),
            )
        )
    for label, painting in paintings.items():
        grids.pictures.append(
            _save(
                folder,
                f"swaps_{label}",
                comparisons.swaps(painting),
                alt=f"Swaps with {label}: {len(painting.originals)} appearances, a row each, on "
                "as many structures, a column each",
                caption=_origin(painting),
                metadata=comparisons.metadata(painting),
            )
        )
        pairs.pictures.append(
            _save(
                folder,
                f"enlarged_{label}",
                comparisons.enlarged(painting),
                alt=f"Two input images, their reconstructions and their swaps with {label}",
                caption=_origin(painting),
                metadata=comparisons.metadata(painting),
            )
        )
    fid = any(one.run.result.get("fid_png") is not None for one in paintings.values())
    side.text.append(
        "As the thesis's Figures 5.4 and 5.5: each row has an appearance, a structure, and what "
        "each generator makes of the two."
        + (" Above each column, the FID of the run that is shown; less is better." if fid else "")
    )
    grids.text.append(
        "As the thesis's Figures 5.6 and 5.7: each row's appearance on each column's structure; on "
        "the diagonal, reconstructions."
    )
    pairs.text.append("As the thesis's Figures 5.9 and 5.10, enlarged without smoothing.")
    return [side, grids, pairs]


def truth_section(folder: Path, groups: Groups) -> Section:
    """Of a drawn data set: what a run of each loss has painted last, beside its truth."""
    section = Section("Swaps and their truth")
    for label, runs in groups.items():
        for run in sorted(runs, key=lambda run: (run.diverged, run.seed)):
            files = sorted((run.workdir / "pictures").glob("truth_[0-9]*.png"))
            if not files:
                continue
            try:
                section.pictures.append(_truth_picture(folder, label, run, files[-1]))
                break
            except OSError as error:
                section.text.append(f"Left out: {files[-1]}: {reason(error)}.")
    if section.pictures:
        section.text.append(
            "Test people in the appearance of others: each row as painted and, below it, as drawn, "
            "which is the truth."
        )
    return section


def _truth_picture(folder: Path, label: str, run: Run, file: Path) -> Picture:
    """A picture of the training, `training.pictures`, with what was measured at its end."""
    picture = open_rgb(read_bytes(file, IMAGE_BYTES))
    step = int(file.stem.rpartition("_")[2])
    caption = f"{label}, seed {run.seed}, step {step:,}."
    measured = [
        f"{name} {run.result[field]:.3f}"
        for field, name in (
            ("appearance_transfer", "appearance transfer"),
            ("structure_kept", "structure kept"),
        )
        if run.result.get(field) is not None
    ]
    if measured:
        caption += f" Measured: {', '.join(measured)}."
    return _save(
        folder,
        f"truth_{label}",
        picture,
        alt=f"Swaps of test people with {label}, and below each row how they ought to look",
        caption=caption,
        metadata={"loss": label, "seed": str(run.seed), "step": str(step)},
    )


def runs_section(groups: Groups) -> Section:
    """All runs, one by one."""
    return Section("Runs", tables=[run_table(_rows(groups))])


def slug(text: str) -> str:
    """A file name or an anchor: other characters than letters, digits and _.+- become one _."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)


def _coverage(groups: Groups, study_dir: Path) -> list[str]:
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


def _measures(groups: Groups, study: bool) -> list[str]:
    """Which measures are missing, and FID's floor; without `study`, of a run, which has no FID."""
    finished = [run.result for group in groups.values() for run in group if not run.diverged]
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


def _versions_text(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return str(versions or "")
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _rows(groups: Groups) -> list[Row]:
    return [dict(run.result) for runs in groups.values() for run in runs]


def _save(
    folder: Path,
    name: str,
    image: Image.Image,
    *,
    alt: str,
    caption: str,
    photograph: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Picture:
    """Writes NAME.png; in the page photographs are WebP, a tenth of its size."""
    file = f"{slug(name)}.png"
    save_png(image, folder / file, metadata)
    stream = io.BytesIO()
    if photograph:
        image.save(stream, format="WEBP", quality=_WEBP_QUALITY)
    else:
        image.save(stream, format="PNG", optimize=True)
    kind = "webp" if photograph else "png"
    uri = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Picture(file, uri, image.width, image.height, alt, caption)


def _origin(painting: Painting) -> str:
    """Whose picture it is, and of a diverged run that it is."""
    run, step = painting.run, f"step {painting.step:,}"
    if run.diverged:
        what = divergence(run.result)
        return f"{run.label}, seed {run.seed}, {what}: its last good checkpoint, {step}."
    return f"{run.label}, seed {run.seed}, {step}."


def _origins(paintings: Sequence[Painting]) -> str:
    """The same of several, in short where they agree."""
    common = {(one.run.seed, one.step) for one in paintings if not one.run.diverged}
    if len(common) != 1:
        return " ".join(map(_origin, paintings))
    seed, step = next(iter(common))
    diverged = [_origin(one) for one in paintings if one.run.diverged]
    return " ".join([f"Seed {seed}, step {step:,}.", *diverged])


def _fids(paintings: Sequence[Painting]) -> str:
    """What stands above the columns, for those who cannot read it there."""
    found = {one.run.label: one.run.result.get("fid_png") for one in paintings}
    known = [f"{label} {fid:.2f}" for label, fid in found.items() if fid is not None]
    return f" FID (PNG): {', '.join(known)}." if known else ""


def _finished(runs: Sequence[Run]) -> int:
    return sum(not run.diverged for run in runs)


def _crosses(runs: Sequence[Run]) -> str:
    return " A cross ends a run that diverged." if _finished(runs) < len(runs) else ""


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
