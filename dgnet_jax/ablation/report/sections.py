"""The sections of the report: each a heading with words, tables and pictures."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dgnet_jax.ablation.plan import read_plan
from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.rendering import Table
from dgnet_jax.ablation.report import comparisons, notes, plots
from dgnet_jax.ablation.report.comparisons import Painting
from dgnet_jax.ablation.report.runs import Run, thesis_groups
from dgnet_jax.ablation.report.tables import run_table
from dgnet_jax.ablation.summary import divergence
from dgnet_jax.ablation.tables import study_tables
from dgnet_jax.figures import save_png

Groups = Mapping[str, Sequence[Run]]
# Of photographs in the page; the PNG files hold every pixel.
_WEBP_QUALITY = 90
_CURVES = {"mAP": "mAP", "rank1": "Rank@1"}
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


def results(groups: Groups, dataset: str, study_dir: Path) -> Section:
    """The thesis's tables, the other measures, and the differences to l1."""
    study = read_plan(study_dir) is not None
    section = Section("Results", notes.coverage(groups, study_dir) + notes.measures(groups, study))
    if any(label in PUBLISHED.get(dataset, {}) for label in groups):
        section.text.append(
            "The shaded columns are the thesis's published values for full-size networks and "
            "100,000 steps. None of them was measured here."
        )
    rows = [dict(run.result) for runs in groups.values() for run in runs]
    # A table of nothing but losses and seeds says nothing.
    section.tables += [table for table in study_tables(rows, dataset) if len(table.head) > 2]
    return section


def metric_curves(folder: Path, groups: Groups) -> Section:
    """mAP and Rank@1 over training steps."""
    section = Section("Metrics over training", plots=True)
    parts = thesis_groups(list(groups)) if len(groups) > _MOST_LINES else [("", list(groups))]
    for metric, name in _CURVES.items():
        for title, labels in parts:
            part = {label: groups[label] for label in labels}
            runs = [run for label in labels for run in groups[label]]
            if not any(metric in run.evaluations for run in runs):
                continue
            caption = f"{name} over training steps{f': {title.lower()}' if title else ''}."
            if any(_finished(group) > 1 for group in part.values()):
                caption += " A line is the mean over seeds, its band their range."
            caption += _crosses(runs)
            picture = _save(
                folder,
                f"curve_{name}_{title}" if title else f"curve_{name}",
                plots.draw(plots.metric_curves(part, metric, f"{name} (%)")),
                alt=f"Plot of {name} over training steps for {_listed(labels)}",
                caption=caption,
                photograph=False,
            )
            section.pictures.append(picture)
    return section


def training_curves(folder: Path, groups: Groups) -> Section:
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


def pictures(
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


def run_list(groups: Groups) -> Section:
    """All runs, one by one."""
    return Section("Runs", tables=[run_table(groups)])


def slug(text: str) -> str:
    """A file name or an anchor: other characters than letters, digits and _.+- become one _."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)


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
