"""The results of a study: one JSON file a run, and one table of all runs that are over."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dgnet_jax.errors import InputError
from dgnet_jax.losses import FUSIONS, LOSSES
from dgnet_jax.runtime.atomic import replacing, write_json

Row = dict[str, Any]

RUNS, RESULT_FILE = "runs", "result.json"
FINISHED, DIVERGED = "finished", "diverged"
# Without these a file is no result.
_ESSENTIAL = ("loss", "expression", "seed", "status")
RANKING = ("rank1", "rank5", "rank10", "rank20", "mAP", "mAP_standard", "mINP")
COUNTS = ("queries", "gallery")
IMAGES = (
    "dims",
    "fid_png",
    "fid_jpeg",
    "fid_real",
    "kid_mean",
    "kid_sd",
    "kid_jpeg_mean",
    "kid_jpeg_sd",
    "generated",
    "real",
    "diversity",
    "identity_consistency",
    "teacher_frechet",
    "appearance_transfer",
    "structure_kept",
    "truth_l1",
    "truth_ssim",
)
FIELDS = (
    "loss",
    "expression",
    "seed",
    "status",
    "diverged_step",
    "diverged_loss",
    "steps",
    "wall_seconds",
    *RANKING,
    *COUNTS,
    *IMAGES,
    "versions",
    "git_commit",
    "device",
    "date",
)
"""The fields of a result.

loss, expression: the label and the sum that it stands for ("custom" for a user's function).
diverged_step, diverged_loss: of a run whose `status` is "diverged", else null.
wall_seconds: of training and measuring, over all restarts.
Ranking metrics are shares of 1, of the main row; image metrics as of
`evaluation.generated_images.evaluate_generated` and, of a drawn data set, of
`evaluation.truth.measure_truth`. What was not measured is null.
"""


def run_directory(study: Path, label: str, seed: int) -> Path:
    """The work directory of a run."""
    return study / RUNS / label / f"seed_{seed}"


def write_result(folder: Path, row: Mapping[str, Any]) -> None:
    """Writes a run's result, whole or not at all, with every field of `FIELDS`."""
    write_json(folder / RESULT_FILE, {field: row.get(field) for field in FIELDS})


def read_result(folder: Path) -> Row | None:
    """A run's result, or None if it is not over.

    Raises:
        InputError: the file is not what `write_result` writes.
    """
    hint = "Delete it to have the run measured again."
    return read_stored(folder / RESULT_FILE, "the result of a run", _ESSENTIAL, hint)


def read_results(study: Path) -> list[Row]:
    """The results of all runs that are over, whichever process made them.

    In the thesis's order of losses, then other labels by name; each by seed.
    """
    rows = [read_result(file.parent) for file in study.glob(f"{RUNS}/*/seed_*/{RESULT_FILE}")]
    order = {label: place for place, label in enumerate((*LOSSES, *FUSIONS))}
    return sorted(
        (row for row in rows if row is not None),
        key=lambda row: (order.get(row["loss"], len(order)), row["loss"], row["seed"]),
    )


def write_results(study: Path, rows: Sequence[Row]) -> None:
    """Writes results.json and results.csv, one row a run; the csv has the versions as text."""
    write_json(study / "results.json", list(rows))
    with (
        replacing(study / "results.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, FIELDS, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            versions = row.get("versions") or {}
            text = ", ".join(f"{name} {number}" for name, number in versions.items())
            writer.writerow({**row, "versions": text})


def measured_values(rows: Iterable[Mapping[str, Any]], field: str) -> list[float]:
    """The values of a field in the results that have one."""
    values = [row.get(field) for row in rows]
    return [float(value) for value in values if value is not None]


def read_stored(path: Path, what: str, needed: Iterable[str], hint: str) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Args:
        path: of the file.
        what: it should be, for the error: "a study".
        needed: keys without which it is something else.
        hint: what to do about a file that is.

    Raises:
        InputError: it is not JSON, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). {hint}") from error
    if not isinstance(content, dict) or not content.keys() >= set(needed):
        raise InputError(f"{path}: not {what}, which has {', '.join(needed)}. {hint}")
    return content
