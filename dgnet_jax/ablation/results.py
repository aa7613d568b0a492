"""The results of a study: one JSON file a run, and one table of all runs that are over."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import pydantic
from typing_extensions import TypedDict

from dgnet_jax.errors import InputError
from dgnet_jax.losses import NAMES
from dgnet_jax.runtime.atomic import replacing, write_json
from dgnet_jax.runtime.reading import Count, Number, check_shape, read_json

Row = dict[str, Any]

RUNS, RESULT_FILE = "runs", "result.json"
FINISHED, DIVERGED, PRUNED = "finished", "diverged", "pruned"
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
    "generated_jpeg",
    "real",
    "diversity",
    "diversity_pairs",
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
steps: of training, of a run that diverged or that a search has pruned those to its end.
wall_seconds: of training and measuring, over all restarts.
Ranking metrics are shares of 1, of the main row; image metrics as of
`evaluation.generated_images.evaluate_generated` and, of a drawn data set, of
`evaluation.truth.measure_truth`. What was not measured is null.
"""


class _Fields(TypedDict):
    """What is no measure; older results lack some."""

    __pydantic_config__ = pydantic.ConfigDict(extra="allow")  # type: ignore[misc]

    loss: str
    expression: str
    seed: Count
    status: Literal["finished", "diverged", "pruned"]
    diverged_step: NotRequired[Count | None]
    diverged_loss: NotRequired[str | None]
    steps: NotRequired[Count | None]
    wall_seconds: NotRequired[Number | None]
    versions: NotRequired[dict[str, str] | None]


def _whole(row: Row) -> Row:
    """The row; ValueError for one that the tables cannot be computed from."""
    check_shape(row, _Fields)
    measures = {name: row.get(name) for name in (*RANKING, *COUNTS, *IMAGES)}
    check_shape(measures, dict[str, Number | None])
    if row["status"] == FINISHED and row.get("steps") is None:
        raise ValueError("a finished run has steps")
    if row.get("dims") is not None and None in (row.get("generated"), row.get("real")):
        raise ValueError("a result with dims has generated and real")
    return row


_Result = Annotated[Row, pydantic.AfterValidator(_whole)]


class Results(NamedTuple):
    """rows: of the runs that are over; damaged: what is wrong with each result left out."""

    rows: list[Row]
    damaged: tuple[str, ...]


def run_directory(study: Path, label: str, seed: int) -> Path:
    """The work directory of a run."""
    return study / RUNS / label / f"seed_{seed}"


def write_result(folder: Path, row: Mapping[str, Any]) -> None:
    """Writes a run's result, whole or not at all, with every field of `FIELDS`."""
    write_json(folder / RESULT_FILE, {field: row.get(field) for field in FIELDS})


def read_result(folder: Path) -> Row | None:
    """A run's result, or None if it is not over.

    Raises:
        InputError: the file is not what `write_result` writes, or another run's.
    """
    hint = "Delete it to have the run measured again."
    row: Row | None = read_stored(folder / RESULT_FILE, _Result, hint)
    if row is not None and folder != run_directory(folder.parents[2], row["loss"], row["seed"]):
        raise InputError(
            f"{folder / RESULT_FILE}: the result of {row['loss']!r}, seed {row['seed']}, and so of "
            f"another folder. {hint}"
        )
    return row


def read_results(study: Path) -> Results:
    """The results of all runs that are over, whichever process made them.

    In the order of `losses.NAMES`, then other labels by name; each by seed. What is damaged is
    left out and named.
    """
    rows, damaged = [], []
    for file in sorted(study.glob(f"{RUNS}/*/seed_*/{RESULT_FILE}")):
        try:
            row = read_result(file.parent)
        except InputError as error:
            damaged.append(str(error))
        else:
            rows += [row] if row is not None else []
    order = {label: place for place, label in enumerate(NAMES)}
    rows.sort(key=lambda row: (order.get(row["loss"], len(order)), row["loss"], row["seed"]))
    return Results(rows, tuple(damaged))


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


def ended_early(rows: Iterable[Mapping[str, Any]], search: bool) -> set[str]:
    """Labels of which a run ended so that no more of their seeds are run.

    Args:
        rows: of all runs that are over.
        search: whether they are a search's trials, which end where a run is pruned or diverges; a
            study goes on with other seeds of a loss that diverged.
    """
    ends = (PRUNED, DIVERGED) if search else (PRUNED,)
    return {str(row["loss"]) for row in rows if row["status"] in ends}


def without_pruned(rows: Sequence[Row]) -> list[Row]:
    """The rows of losses of which no run was pruned: those of the others are not all there."""
    pruned = ended_early(rows, search=False)
    return [row for row in rows if row["loss"] not in pruned]


def read_stored(path: Path, shape: Any, hint: str) -> Any:
    """`read_json`, and None if there is no such file."""
    try:
        return read_json(path, shape, hint)
    except (FileNotFoundError, NotADirectoryError):
        return None
