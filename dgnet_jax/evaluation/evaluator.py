"""Evaluation of a trained DG-Net or baseline: one call measures everything and writes one file.

`evaluation.json` and the pictures beside it are made anew by each evaluation. Nothing else in the
work directory is changed, so a run may be evaluated while it is training.
"""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from dgnet_jax.config import trained_config
from dgnet_jax.config_fields import checked, reconstruction_text
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.splits import JUNK
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.curves import cmc_plot
from dgnet_jax.evaluation.image_metrics import gallery_poses, measure_images, teacher_is_given
from dgnet_jax.evaluation.metrics import cumulative_matches
from dgnet_jax.evaluation.ranked_lists import (
    named_queries,
    random_queries,
    ranked_lists_picture,
    worst_queries,
)
from dgnet_jax.evaluation.retrieval import embed_split, evaluate_retrieval, rank_data
from dgnet_jax.evaluation.variants import Embedded, Metrics, Ranked, main_variant, rank, variants
from dgnet_jax.figures import save_png
from dgnet_jax.inference import Baseline, DGNet, load_baseline, load_model, load_teacher_model
from dgnet_jax.models import Networks, Variables
from dgnet_jax.models.forward import Forward
from dgnet_jax.runtime import provenance
from dgnet_jax.runtime.atomic import write_json
from dgnet_jax.runtime.checkpoints import Step
from dgnet_jax.runtime.dataset import open_data
from dgnet_jax.runtime.devices import Placement, on_first_process, use_compilation_cache
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.workdir import CONFIG_FILE

Evaluation = dict[str, Any]

FILE = "evaluation.json"
# Readers of any data set of one's own.
_OWN_DATA = ("folder", "csv")
_PICTURED_QUERIES = 5
_CMC_LENGTH = 50


class Evaluator:
    """Ranks the gallery by the embeddings of an E_a in training; compiled once."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        networks: Networks,
        data: ReidData,
        placement: Placement,
    ) -> None:
        self._config, self._data, self._placement = config, data, placement
        forward = Forward(networks, config.data.height, config.data.width)
        self._features = jax.jit(forward.embeddings)

    def __call__(self, appearance: Variables) -> Metrics:
        """The metrics of the main row, with E_a's variables {"params", "batch_stats"}."""
        return evaluate_retrieval(
            partial(self._features, appearance),
            self._data,
            self._config,
            self._placement,
            alpha=self._config.evaluation.alpha,
        )


def evaluate(
    config: ml_collections.ConfigDict, workdir: str | Path | None, step: Step | None = None
) -> Metrics:
    """Ranks the gallery with a checkpoint of a work directory.

    Args:
        config: as trained (`config.trained_config(workdir)`); `data` and `evaluation` may differ:
            the people of `data` need not be those of the training.
        workdir: of a run; nothing in it is changed. None with `config.released`.
        step: which checkpoint; "best" is the one with the best mAP in its training's evaluations,
            None the latest.

    Returns:
        The ranking metrics in shares of 1: rank1, rank5, rank10, rank20, mAP (trapezoid, as DG-Net
        and the thesis report it), mAP_standard, mINP, and counts.

    Raises:
        InputError: there is no such run or checkpoint, or it is of another network.
    """
    config = checked(config)
    use_compilation_cache()
    data = open_data(config)
    model = _load(config, workdir, step)
    return rank_data(model.embeddings, data, main_variant(config)).metrics


def evaluate_fully(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    step: Step | None = None,
    *,
    output: str | Path | None = None,
    queries: Sequence[str] = (),
    config_name: str = "",
) -> Evaluation:
    """Measures a checkpoint in all ways, writes the results and draws ranked lists and CMC curves.

    Generated images are measured (`image_metrics.measure_images`) unless
    `config.evaluation.generated_images` is off; of the re-ID baseline (`config.baseline`) only the
    ranking is.

    Args:
        config: as for `evaluate`, complete: of a file of `configs/` (`config.trained_config` for a
            run's own).
        workdir: of the run; with `config.released` any folder for the results.
        step: as `evaluate`'s.
        output: the JSON file; by default `evaluation.json` in the work directory;
            `evaluation_on_NAME.json` (of one's own data `evaluation_on_folder_NAME.json`) if the
            data set is another one than the training's; or `evaluation_of_FILE.json` of released
            weights. Pictures go to a folder of that name beside it.
        queries: file names of the queries to draw; a seeded choice by default.
        config_name: stored in the file as `config`: --config as it was given.

    Returns:
        What is in the file; `tables.evaluation_table` shows it.

    Raises:
        InputError: the run, the data set, a query's name or the output is wrong.
    """
    config, workdir = checked(config), user_path(workdir)
    use_compilation_cache()
    started = time.perf_counter()
    trained_on = _trained_on(config, workdir)
    file = user_path(output) if output else _default_file(workdir, config, trained_on)
    on_first_process(partial(_check_output, file))
    _warn_of_lost_detail(config, trained_on)
    data = open_data(config)
    # Before the long part, so that what is wrong shows at once.
    ways = variants(config, multi_query=data.dataset.multi_query is not None)
    chosen = named_queries(queries, data.query.paths)
    if config.evaluation.generated_images:
        gallery_poses(config, data)
        run = None if config.get("released") else workdir
        if not config.get("baseline") and teacher_is_given(config, run):
            load_teacher_model(config, run)
    model = _load(config, workdir, step)
    query, gallery = (embed_split(model.embeddings, split) for split in (data.query, data.gallery))
    more = data.multi_query
    multi_query = None if more is None else embed_split(model.embeddings, more)
    features_seconds = time.perf_counter() - started
    logging.info("embedded the images in %.0f s", features_seconds)
    rows = []
    for variant in ways:
        rows.append(rank(variant, query, gallery, multi_query))
        logging.info("ranked by %s in %.1f s", variant.name, rows[-1].seconds)
    images: dict[str, Any] = {}
    if config.evaluation.generated_images and isinstance(model, DGNet):
        images = measure_images(config, model, data)

    folder = file.with_suffix("")
    pictures = on_first_process(
        lambda: _draw(config, model, data, rows, (query, gallery), chosen, folder)
    )
    evaluation = {
        "trained_on": trained_on,
        "evaluated_on": _data_name(config),
        "data_root": config.data.root,
        "source": model.source,
        "step": model.step,
        "identities": model.num_identities,
        "reconstruction_loss": None if config.get("baseline") else reconstruction_text(config),
        "config": config_name,
        "ranking": [row.as_json() for row in rows],
        "counts": _counts(rows),
        "generated_images": images,
        "pictures": pictures,
        "date": provenance.now(),
        "seconds": {
            "features": round(features_seconds, 1),
            "total": round(time.perf_counter() - started, 1),
        },
        "device": provenance.device(),
        "versions": provenance.versions(),
        "configuration": config.to_dict(),
    }
    on_first_process(partial(write_evaluation, evaluation, file))
    return evaluation


def write_evaluation(evaluation: Evaluation, file: str | Path) -> None:
    """Writes the results as JSON, whole or not at all; folders are made."""
    file = user_path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, evaluation)
    logging.info("wrote %s", file)


def _load(
    config: ml_collections.ConfigDict, workdir: str | Path | None, step: Step | None
) -> DGNet | Baseline:
    if not config.get("baseline"):
        return load_model(config, workdir, step)
    if config.get("released"):
        raise InputError(
            f"--config.released={config.released}: a DG-Net, but the configuration is the "
            "baseline's; leave one of them out"
        )
    return load_baseline(config, workdir, step)


def _trained_on(config: ml_collections.ConfigDict, workdir: str | Path) -> str:
    """The data set of the training; unknown for a released checkpoint."""
    if config.get("released", ""):
        return "unknown (released weights)"
    if (Path(workdir) / CONFIG_FILE).exists():
        return _data_name(trained_config(workdir))
    return _data_name(config)


def _data_name(config: ml_collections.ConfigDict) -> str:
    """Of the data set; one's own are named by their folders' or tables' names."""
    name = config.data.name
    return f"{name} {Path(config.data.root).stem}" if name in _OWN_DATA else name


def _default_file(workdir: Path, config: ml_collections.ConfigDict, trained_on: str) -> Path:
    """Another data set's results do not replace those of the run's own."""
    if config.get("released", ""):
        return workdir / f"evaluation_of_{Path(config.released).stem}.json"
    name = _data_name(config)
    return workdir / (
        FILE if name == trained_on else f"evaluation_on_{name.replace(' ', '_')}.json"
    )


def _check_output(file: Path) -> None:
    """Makes the folder of the results; raises InputError if they could not be written to it."""
    if file.suffix != ".json" or file.is_dir():
        raise InputError(f"--output={file}: name a file that ends in .json")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise InputError(
            f"--output={file}: cannot be written ({error.strerror}). Name another file."
        ) from error


def _warn_of_lost_detail(config: ml_collections.ConfigDict, trained_on: str) -> None:
    """Another data set's images may be larger than those that the run keeps in memory."""
    data = config.data
    kept, used = (data.cache_height, data.cache_width), (data.height, data.width)
    if trained_on != _data_name(config) and (kept[0] < used[0] or kept[1] < used[1]):
        logging.warning(
            "%s: images are kept at %d x %d pixels, as in the run; larger ones lose detail. "
            "--config.data.cache_height=%d --config.data.cache_width=%d keeps it and takes %.1f "
            "times the memory",
            data.name,
            *kept,
            *used,
            np.prod(used) / np.prod(kept),
        )


def _counts(rows: Sequence[Ranked]) -> dict[str, int]:
    """The numbers of images, those of multi-query included; they are no metrics of a row."""
    merged = {name: value for row in rows for name, value in row.metrics.items()}
    return {name: int(value) for name, value in merged.items() if not _is_share(name)}


def _is_share(name: str) -> bool:
    return name.startswith("rank") or name in ("mAP", "mAP_standard", "mINP")


def _draw(
    config: ml_collections.ConfigDict,
    model: DGNet | Baseline,
    data: ReidData,
    rows: Sequence[Ranked],
    embedded: tuple[Embedded, Embedded],
    chosen: list[int],
    folder: Path,
) -> dict[str, str]:
    """Writes the pictures and returns their files by name."""
    main = rows[0]
    query_features, gallery_features = map(main.variant.features, embedded)
    selections = {
        "ranked_lists": chosen or random_queries(main.hits, _PICTURED_QUERIES, config.seed),
        "worst_queries": worst_queries(main.hits, _PICTURED_QUERIES),
    }
    what = f"{model.name} on {config.data.name}, {main.variant.name}"
    titles = {
        "ranked_lists": "Chosen queries" if chosen else f"Queries drawn with seed {config.seed}",
        "worst_queries": "Queries of the lowest average precision",
    }
    pictures = {
        name: ranked_lists_picture(
            selected,
            query_features,
            data.query,
            gallery_features,
            data.gallery,
            caption=f"{titles[name]}: {what}.",
        )
        for name, selected in selections.items()
        if selected
    }
    length = min(_CMC_LENGTH, int(np.count_nonzero(data.gallery.identities != JUNK)))
    pictures["cmc"] = cmc_plot(
        {row.variant.name: cumulative_matches(row.hits, length) for row in rows},
        f"{model.name} on {config.data.name}",
    )
    files = {name: folder / f"{name}.png" for name in pictures}
    for name, picture in pictures.items():
        save_png(picture, files[name], {"step": str(model.step), "source": model.source})
    return {name: str(file) for name, file in files.items()}
