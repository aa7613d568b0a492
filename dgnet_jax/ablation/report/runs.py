"""The runs of a study as the report shows them: results, and curves read from metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dgnet_jax.ablation.points import is_fusion
from dgnet_jax.ablation.results import DIVERGED, PRUNED
from dgnet_jax.ablation.summary import BASELINE
from dgnet_jax.losses import FUSIONS, LOSSES
from dgnet_jax.runtime.reading import TABLE_BYTES, read_bytes
from dgnet_jax.runtime.workdir import DGNET_STAGE
from dgnet_jax.training.run_log import METRICS_FILE, parse_row

_THESIS_ORDER = (*LOSSES, *FUSIONS)
# Of a group, so that its pictures' columns and a plot's colours can be told apart.
MOST_LOSSES = 8
# Numbers of a row of metrics.jsonl that are no losses or metrics.
_NOT_SHOWN = ("step", "images_per_second", "data_share")


class Series(NamedTuple):
    """A number over training.

    steps: (n,) int64, ascending; values: (n,) float64, NaN where it was not finite.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Run:
    """One (loss, seed) of a study.

    Attributes:
        label: the loss, as the study calls it.
        seed: of the run.
        workdir: its work directory.
        result: its row of results.
        evaluations: metric to its curve, in shares of 1.
        losses: term of the objective to its curve.
        fault: what of its log could not be read, in words; "" if all was.
    """

    label: str
    seed: int
    workdir: Path
    result: Mapping[str, Any]
    evaluations: Mapping[str, Series]
    losses: Mapping[str, Series]
    fault: str = ""

    @property
    def expression(self) -> str:
        """The sum that the label stands for."""
        return str(self.result.get("expression") or self.label)

    @property
    def diverged(self) -> bool:
        """Whether a loss of it became NaN or infinite."""
        return self.result.get("status") == DIVERGED

    @property
    def pruned(self) -> bool:
        """Whether a search has ended it early."""
        return self.result.get("status") == PRUNED


def read_run(workdir: Path, result: Mapping[str, Any]) -> Run:
    """The run of a row of results; without a log its curves are empty."""
    evaluations, losses, fault = read_history(workdir / METRICS_FILE)
    return Run(result["loss"], int(result["seed"]), workdir, result, evaluations, losses, fault)


class History(NamedTuple):
    """Curves of a metrics.jsonl by name, and what of it could not be read, in words."""

    evaluations: dict[str, Series]
    losses: dict[str, Series]
    fault: str = ""


def read_history(path: Path) -> History:
    """Evaluations and losses of the DG-Net stage in a metrics.jsonl.

    Broken lines, such as a kill leaves, are passed over. Of two rows of one step the later counts.
    """
    found: dict[str, dict[str, dict[int, float]]] = {"evaluation": {}, "train": {}}
    try:
        lines = read_bytes(path, TABLE_BYTES).splitlines()
    except FileNotFoundError:
        return History({}, {})
    except OSError as error:
        return History({}, {}, f"{path} cannot be read ({error.strerror or error})")
    broken = 0
    for line in lines:
        try:
            row = parse_row(line)
        except ValueError:
            broken += 1
            continue
        if row["stage"] != DGNET_STAGE:
            continue
        curves, step = found[row["kind"]], row["step"]
        for name, value in row.items():
            # A null is a number that was not finite.
            if name not in _NOT_SHOWN and isinstance(value, int | float | None):
                curves.setdefault(name, {})[step] = math.nan if value is None else float(value)
    evaluations, losses = (
        {name: _series(values) for name, values in found[kind].items()}
        for kind in ("evaluation", "train")
    )
    fault = f"{broken} of {len(lines)} lines of {path} are broken" if broken else ""
    return History(evaluations, losses, fault)


def _series(values: Mapping[int, float]) -> Series:
    steps = sorted(values)
    return Series(np.asarray(steps, np.int64), np.asarray([values[step] for step in steps]))


def over_seeds(series: Sequence[Series]) -> tuple[Series, np.ndarray]:
    """The mean of several curves, and their lowest and highest values (2, n).

    Only the steps that all of them have count: where one is missing, the mean would jump.
    """
    if not series:
        return Series(np.empty(0, np.int64), np.empty(0)), np.empty((2, 0))
    steps = series[0].steps
    for other in series[1:]:
        steps = np.intersect1d(steps, other.steps)
    values = np.stack([one.values[np.searchsorted(one.steps, steps)] for one in series])
    return Series(steps, values.mean(0)), np.stack([values.min(0), values.max(0)])


def by_label(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each loss by seed; the thesis's losses in its order, then others, sums last."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.label, []).append(run)
    order = [label for label in _THESIS_ORDER if label in grouped]
    others = [label for label in grouped if label not in _THESIS_ORDER]
    order += sorted(others, key=lambda label: is_fusion(grouped[label][0].expression))
    return {label: sorted(grouped[label], key=lambda run: run.seed) for label in order}


def thesis_groups(labels: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Splits losses as the thesis's tables and figures do: single losses, fusions, then others.

    The baseline opens all, so that each group can be read alone. A group without a loss of its own
    is left out; fusions and others are one group while they are few, and many others are several.

    Args:
        labels: in the order of `by_label`.

    Returns:
        (title, labels) of each group, at most `MOST_LOSSES` labels in each.
    """
    baseline = [label for label in labels if label == BASELINE]
    single = [label for label in labels if label in LOSSES]
    fusions = [label for label in labels if label in FUSIONS]
    others = [label for label in labels if label not in _THESIS_ORDER]
    groups = []
    if single and (single != baseline or not fusions + others):
        groups.append(("Single losses", single))
    if fusions and others and len(baseline + fusions + others) <= MOST_LOSSES:
        return [*groups, ("Fusions and other losses", baseline + fusions + others)]
    if fusions:
        groups.append(("Fusions", baseline + fusions))
    count = -(-len(others) // (MOST_LOSSES - 1))
    for part in range(count):
        own = others[len(others) * part // count : len(others) * (part + 1) // count]
        title = "Other losses" if count == 1 else f"Other losses, {part + 1} of {count}"
        groups.append((title, baseline + own))
    return groups
