"""study.json: the study's plan, so that another process can continue it or write its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import ml_collections
import pydantic
from typing_extensions import TypedDict

from dgnet_jax.ablation.points import Point, check_label
from dgnet_jax.ablation.results import read_stored
from dgnet_jax.config_fields import older_config
from dgnet_jax.errors import InputError
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.atomic import write_json
from dgnet_jax.runtime.reading import Count

STUDY_FILE = "study.json"
# Fields that change no result of a run, and those that say where things are on this machine.
_HARMLESS = (
    "log",
    "report",
    "data.root",
    "inception",
    "evaluation.batch_size",
    "evaluation.every_steps",
    "evaluation.generated_images",
    "evaluation.rerank",
    "evaluation.rerank_k1",
    "evaluation.rerank_k2",
    "evaluation.rerank_lambda",
)
# Fields that may differ between starts of a study, whose runs have losses of their own; and of a
# run, whose teacher's path changes with the study's.
MAY_DIFFER = (*_HARMLESS, "reconstruction_loss")
RUN_MAY_DIFFER = (*_HARMLESS, "teacher.checkpoint")


class Plan(TypedDict):
    """losses: label to expression or "custom"; config: as `work_directory.as_json` gives it."""

    losses: dict[Annotated[str, pydantic.AfterValidator(check_label)], str]
    seeds: Annotated[list[Count], pydantic.Field(min_length=1)]
    config: dict[str, Any]


def read_plan(study: Path) -> Plan | None:
    """What study.json holds; None without one.

    Raises:
        InputError: the file is not what `save_plan` writes.
    """
    return read_stored(study / STUDY_FILE, Plan, work_directory.REMEDY)


def refuse_other_plan(
    study: Path, config: ml_collections.ConfigDict, points: Sequence[Point]
) -> None:
    """Raises InputError, naming the fields, if the folder's study is of another configuration.

    More losses and more seeds are no other study; another meaning of a label is.
    """
    saved = read_plan(study)
    if saved is None:
        return
    lines = work_directory.differences(saved["config"], config, MAY_DIFFER, older_config())
    lines += [
        f"  losses.{point.label}: {saved['losses'][point.label]} there, {point.expression} now"
        for point in points
        if saved["losses"].get(point.label, point.expression) != point.expression
    ]
    if lines:
        raise InputError(
            f"{study} holds a study of another configuration:\n"
            + "\n".join(lines)
            + "\nUse these values again to continue it, or choose another --workdir."
        )


def save_plan(
    study: Path, config: ml_collections.ConfigDict, points: Sequence[Point], seeds: Sequence[int]
) -> None:
    """Makes the folder and writes study.json; losses and seeds of earlier starts stay in it.

    Raises:
        InputError: the folder cannot be written to.
    """
    saved: Mapping[str, Any] = read_plan(study) or {"losses": {}, "seeds": []}
    plan = {
        "losses": saved["losses"] | {point.label: point.expression for point in points},
        "seeds": sorted({*saved["seeds"], *seeds}),
        "config": work_directory.as_json(config),
    }
    try:
        study.mkdir(parents=True, exist_ok=True)
        write_json(study / STUDY_FILE, plan)
    except OSError as error:
        raise InputError(
            f"--workdir={study}: cannot be written to ({error.strerror}). Choose another folder."
        ) from error
