"""What a search improves: metrics of the tables, each with its direction."""

import difflib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from dgnet_jax.ablation.results import IMAGES
from dgnet_jax.ablation.summary import METRICS, Metric
from dgnet_jax.errors import InputError

DEFAULT_OBJECTIVES = ("fid", "mAP")
_OF_INCEPTION = ("fid", "fid_jpeg", "kid", "kid_jpeg")
_OF_DRAWN = ("appearance_transfer", "structure_kept", "truth_l1", "truth_ssim")


def parse_objectives(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of `--objectives`, each once.

    Raises:
        InputError: a name is unknown, more of the metric is neither better nor worse, or there is
            no name.
    """
    known = {metric.name: metric for metric in METRICS if metric.better}
    chosen: dict[str, Metric] = {}
    for name in (name.strip() for name in names):
        if name not in known:
            what = (
                f"more {name} is neither better nor worse"
                if name in {metric.name for metric in METRICS}
                else f"unknown metric {name!r}"
            )
            lower = {one.lower(): one for one in known}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f"; the nearest is {lower[near[0]]!r}" if near else ""
            raise InputError(f"--objectives: {what}{hint}. Known: {', '.join(known)}")
        chosen[name] = known[name]
    if not chosen:
        raise InputError("--objectives: none given; name some, such as fid,mAP")
    return tuple(chosen.values())


def check_measured(objectives: Sequence[Metric], config: ml_collections.ConfigDict) -> None:
    """Refuses objectives that runs of this configuration will not have.

    Raises:
        InputError: names the objective, and the ways out.
    """
    for metric in objectives:
        if metric.field in IMAGES and not config.evaluation.generated_images:
            raise InputError(
                f"--objectives: {metric.name} is measured on generated images, and "
                "--config.evaluation.generated_images=False leaves them out. Set it to True, or "
                "give other --objectives, such as mAP"
            )
        if metric.name in _OF_INCEPTION and not config.inception:
            raise InputError(
                f"--objectives: {metric.name} needs the weights of FID's Inception. Give "
                "--config.inception=FILE, or other objectives, such as "
                "--objectives=teacher_frechet,mAP"
            )


def check_drawn(objectives: Sequence[Metric], drawn: bool) -> None:
    """Raises InputError for an objective that only a drawn data set has, where it is another."""
    for metric in objectives:
        if metric.name in _OF_DRAWN and not drawn:
            raise InputError(
                f"--objectives: {metric.name} compares with the truth, which only drawn data has "
                "(configs/quickstart.py). Give others, such as --objectives=teacher_frechet,mAP"
            )


def values_of(objectives: Sequence[Metric], rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The objectives of a trial, each the mean over its seeds, in the units of results.

    Args:
        rows: the results of its finished runs, one a seed.

    Raises:
        InputError: a result lacks one.
    """
    means = []
    for metric in objectives:
        for row in rows:
            if row.get(metric.field) is None:
                raise InputError(
                    f"--objectives: {metric.name} was not measured of {row['loss']}. Search in "
                    "another --workdir for metrics that the runs have, which results.csv shows"
                )
        means.append(statistics.fmean(row[metric.field] for row in rows))
    return means
