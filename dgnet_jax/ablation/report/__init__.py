"""The report of a study, or of one run: one HTML page, and its pictures as PNG beside it.

The page fetches nothing: its style is inside, pictures are data URIs, there is no script.
"""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import ml_collections
import numpy as np
from absl import logging
from markupsafe import Markup

from dgnet_jax.ablation.loss_tables import own_losses_notes
from dgnet_jax.ablation.points import choose_losses
from dgnet_jax.ablation.report import pictures, sections
from dgnet_jax.ablation.report.comparisons import Painting, paint_first
from dgnet_jax.ablation.report.runs import Run, by_label, read_run
from dgnet_jax.ablation.report.search import read_search, search_section, shown_labels
from dgnet_jax.ablation.report.section import Groups, Section
from dgnet_jax.ablation.results import FINISHED, run_directory
from dgnet_jax.config_fields import reconstruction_text
from dgnet_jax.data.sampling import choose_images
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.atomic import replacing, write_json
from dgnet_jax.runtime.dataset import open_data
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.paths import printable
from dgnet_jax.runtime.reading import read_json

FOLDER, PAGE, TEMPLATE = "report", "index.html", "template.html"
# The names of the pictures that a report has written: others in the folder are the user's.
WRITTEN = ".pictures.json"
# How the heads of published columns end (`ablation.tables`).
_PUBLISHED = "(published)"
# The heads of columns that hold words.
_WORDY = ("R", "state", "said of it", "protocol", "source")
# Where the name of a loss may go on in the next line.
_BREAKS = re.compile(r"(?<=[_+*(,])")


def write_report(
    study_dir: str | Path,
    rows: Sequence[Mapping[str, Any]],
    config: ml_collections.ConfigDict,
    damaged: Sequence[str] = (),
    *,
    train_images: np.ndarray | None = None,
    dataset: ReidDataset | None = None,
) -> Path:
    """Writes the report of a study from the runs that are over.

    Args:
        study_dir: of the study; the page is `report/index.html` in it, its pictures beside it.
        rows: one for each run that is over, as its result.json.
        config: the study's: its data set, `seed` and `log.image_rows` choose the images that every
            picture shows.
        damaged: what is wrong with each result that is left out.
        train_images: of the data set, (n, rows, columns, 3) uint8, if they are in memory already.
        dataset: whose they are; without it the page has no table of the data set. Without images
            both are read from `config.data`.

    Returns:
        The page.

    Raises:
        InputError: there is no row.
    """
    study_dir = Path(study_dir)
    if not rows:
        faults = "".join(f"\n  {fault}" for fault in damaged)
        raise InputError(
            f"{study_dir}: no run of the study is over; there is nothing to report{faults}"
        )
    runs = [read_run(run_directory(study_dir, row["loss"], row["seed"]), row) for row in rows]
    title = f"Reconstruction losses of DG-Net on {config.data.name}"
    return _write(study_dir, title, runs, config, damaged, (train_images, dataset))


def write_run_report(
    workdir: str | Path,
    config: ml_collections.ConfigDict,
    metrics: Mapping[str, float],
    *,
    train_images: np.ndarray | None = None,
    dataset: ReidDataset | None = None,
) -> Path:
    """Writes the report of a single run to `report/index.html` in its work directory.

    Args:
        workdir: of the run, which is over.
        config: of the run.
        metrics: of its end, as `trainer.train` returns them; may be empty.
        train_images, dataset: as `write_report`'s.
    """
    workdir = Path(workdir)
    (point,) = choose_losses(config.reconstruction_loss)
    result = {
        **metrics,
        "loss": point.label,
        "expression": point.expression,
        "seed": config.seed,
        "status": FINISHED,
        "steps": config.total_steps,
    }
    title = f"DG-Net with {reconstruction_text(config)} on {config.data.name}"
    return _write(workdir, title, [read_run(workdir, result)], config, (), (train_images, dataset))


def _write(
    parent: Path,
    title: str,
    runs: Sequence[Run],
    config: ml_collections.ConfigDict,
    damaged: Sequence[str],
    given: tuple[np.ndarray | None, ReidDataset | None],
) -> Path:
    started = time.perf_counter()
    groups = by_label(runs)
    images, dataset, fault = _open(config, *given)
    # All processes paint, for the devices are everybody's; the first one writes.
    labels = on_first_process(lambda: shown_labels(read_search(parent), list(groups)))
    shown = {label: groups[label] for label in labels}
    paintings, missing = ({}, [fault]) if images is None else _paint(shown, config, images)
    page = parent / FOLDER / PAGE
    notes = own_losses_notes(config)

    def write() -> None:
        folder = page.parent
        folder.mkdir(parents=True, exist_ok=True)
        found = [
            search_section(folder, read_search(parent), labels),
            sections.results_section(groups, config.data.name, parent, damaged, notes),
            sections.claims_section(groups, config.data.name, notes),
            sections.dataset_section(dataset, config, looked_for=given[0] is None),
            sections.metrics_section(folder, shown),
            *pictures.picture_sections(folder, shown, paintings, missing),
            pictures.truth_section(folder, shown),
            sections.terms_section(folder, shown),
            sections.runs_section(groups),
        ]
        html = render(title, sections.facts(runs, config), found)
        with replacing(page) as temporary:
            temporary.write_text(printable(html), encoding="utf-8")
        named = {picture.file for section in found for picture in section.pictures}
        for name in _written_before(folder) - named:  # of an earlier report with other losses
            (folder / name).unlink(missing_ok=True)
        write_json(folder / WRITTEN, sorted(named))
        logging.info("wrote %s in %.1f s", page, time.perf_counter() - started)

    on_first_process(write)
    return page


def _written_before(folder: Path) -> set[str]:
    """Pictures of the report that is in the folder; none where it does not say."""
    try:
        names = read_json(folder / WRITTEN, list[str], "")
    except (OSError, InputError):
        return set()
    return {name for name in names if Path(name).name == name and name.endswith(".png")}


def render(title: str, facts: Mapping[str, str], found: Sequence[Section]) -> str:
    """The page; sections with nothing in them are left out."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["published"] = lambda head: head.endswith(_PUBLISHED)
    environment.tests["wordy"] = lambda head: head in _WORDY
    environment.filters["breakable"] = breakable
    return environment.get_template(TEMPLATE).render(
        title=title,
        facts=facts,
        sections=[section for section in found if section],
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def breakable(name: str) -> Markup:
    """A loss's name as HTML that a narrow screen may break between its parts."""
    return Markup("<wbr>").join(_BREAKS.split(name))


def _open(
    config: ml_collections.ConfigDict, images: np.ndarray | None, dataset: ReidDataset | None
) -> tuple[np.ndarray | None, ReidDataset | None, str]:
    """Training images and the files they come from, as given or opened; or why there are none."""
    if images is not None:
        return images, dataset, ""
    try:
        data = open_data(config)
        dataset = data.dataset
        return data.train_images, dataset, ""
    except InputError as error:
        fault = f"There are no pictures, for the data set cannot be read here: {error}"
        return None, dataset, fault


def _paint(
    groups: Groups, config: ml_collections.ConfigDict, images: np.ndarray
) -> tuple[dict[str, Painting], list[str]]:
    """The same images painted with each loss, and why some could not be."""
    images = images[choose_images(len(images), config.log.image_rows, config.seed)]
    paintings, missing = {}, []
    for label, runs in groups.items():
        painted = paint_first(runs, images)
        if isinstance(painted, str):
            missing.append(f"No pictures with {label}: {painted}")
        else:
            paintings[label] = painted
    return paintings, missing
