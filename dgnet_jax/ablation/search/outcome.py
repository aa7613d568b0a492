"""What a search has come to: its trials, its front, which parameters mattered."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dgnet_jax.ablation.rendering import Cell, Table, to_markdown
from dgnet_jax.ablation.search.definition import Definition, read_definition
from dgnet_jax.ablation.search.front import pareto_front
from dgnet_jax.ablation.search.journal import Trial, load_optuna, read_study, trials_of
from dgnet_jax.ablation.summary import Metric
from dgnet_jax.errors import InputError

if TYPE_CHECKING:
    import optuna

# Below so many finished trials the densities that importance compares are of next to nothing.
FEW_TRIALS = 15
# PED-ANOVA asks what the best so large a part of the trials has in common; its authors' tenth would
# be three of thirty.
BEST_SHARE = 0.25


class Outcome(NamedTuple):
    """definition: of the search; trials: by number; study: Optuna's."""

    definition: Definition
    trials: list[Trial]
    study: "optuna.Study"

    @property
    def finished(self) -> list[Trial]:
        """The trials that have values."""
        return [trial for trial in self.trials if trial.outcome == "finished"]

    @property
    def front(self) -> list[Trial]:
        """The finished trials that no other dominates, from the best in the first objective on."""
        finished, objectives = self.finished, self.definition.objectives
        signs = [metric.better for metric in objectives]
        chosen = [finished[i] for i in pareto_front([one.values for one in finished], signs)]
        return sorted(chosen, key=lambda trial: (-signs[0] * trial.values[0], trial.number))

    @property
    def summary(self) -> str:
        """How many trials there are, in a sentence."""
        counts = {
            name: sum(trial.outcome == name for trial in self.trials)
            for name in ("finished", "pruned", "diverged", "running")
        }
        said = ", ".join(f"{n} {name}" for name, n in counts.items() if n or name == "finished")
        total = sum(counts.values())
        return f"{total} {'trial' if total == 1 else 'trials'}: {said}."


def read_outcome(workdir: Path) -> Outcome | None:
    """What a folder's search has come to so far; None if there is none in it.

    Raises:
        InputError: Optuna is not installed, or a file of the search is damaged.
    """
    definition = read_definition(workdir)
    if definition is None:
        return None
    study = read_study(workdir)
    return None if study is None else Outcome(definition, trials_of(study), study)


def front_table(outcome: Outcome) -> Table:
    """A row for each trial of the front."""
    objectives, front = outcome.definition.objectives, outcome.front
    best = [
        max((m.better * one.values[i] for one in front), default=0.0)
        for i, m in enumerate(objectives)
    ]
    rows = [
        [
            Cell(trial.label),
            Cell(trial.expression),
            *(
                Cell(printed(metric, value), bold=metric.better * value == top and len(front) > 1)
                for metric, value, top in zip(objectives, trial.values, best, strict=True)
            ),
            Cell(",".join(map(str, outcome.definition.seeds))),
        ]
        for trial in front
    ]
    several = len(objectives) > 1
    head = ["trial", "R", *(metric.title for metric in objectives), "seeds"]
    notes = []
    if several:
        notes.append(
            "No trial is better than one of these in one objective and no worse in the rest."
        )
    if len(outcome.definition.seeds) < 3:
        notes.append(
            "Values of so few seeds are noisy, and the best of many trials is lucky besides: "
            "compare what is chosen here with l1 in a study of several seeds."
        )
    title = "The front" if several else "The best trial"
    return Table("search_front", title, head, rows, notes)


def search_text(workdir: Path) -> str:
    """The front as a table, and what has become of the other trials; "" without a search."""
    try:
        outcome = read_outcome(workdir)
    except InputError as error:
        return f"The search itself is not shown: {error}."
    if outcome is None:
        return ""
    return f"{to_markdown(front_table(outcome))}\n\n{outcome.summary}"


def printed(metric: Metric, value: float) -> str:
    """A value in the units of tables."""
    return f"{metric.factor * value:.{metric.digits}f}"


def importances(outcome: Outcome) -> dict[str, dict[str, float]] | None:
    """How much each parameter decides whether a trial is among the best, by PED-ANOVA.

    Watanabe, Bansal and Hutter, "PED-ANOVA" (IJCAI 2023), for parameters that are there in some
    trials only in the form of arXiv 2601.20800. It needs no package but Optuna.

    Returns:
        Title of an objective to parameter to share of 1; None with fewer than `FEW_TRIALS` finished
        trials, or where nothing was searched.
    """
    if len(outcome.finished) < FEW_TRIALS:
        return None
    optuna = load_optuna()
    found = {}
    for index, metric in enumerate(outcome.definition.objectives):
        sign = -metric.better  # the evaluator takes less as better

        def target(trial: Any, index: int = index, sign: int = sign) -> float:
            return sign * trial.values[index]

        with warnings.catch_warnings():
            # That it minimises, and that some parameters are in few trials.
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
            shares = optuna.importance.get_param_importances(
                outcome.study, evaluator=evaluator, target=target
            )
        found[metric.title] = {name: float(share) for name, share in shares.items()}
    return found if any(found.values()) else None


def running_best(values: Sequence[float], better: int) -> list[float]:
    """The best of the first 1, 2, ... values."""
    best, found = -better * math.inf, []
    for value in values:
        best = max(best, value) if better > 0 else min(best, value)
        found.append(best)
    return found
