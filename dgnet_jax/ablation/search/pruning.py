"""Which runs a search ends early.

Optuna prunes studies of one objective only. This rule is the median rule (Golovin et al., "Google
Vizier", KDD 2017, section 3.2.2) for any number of objectives: a run ends at an evaluation if it is
worse than the median of the finished trials at the same step in every objective that is measured
there. A run that is better in one may still come to the front.
"""

import statistics
from collections.abc import Mapping, Sequence

# Finished trials below which nothing is pruned, as in Optuna's own median rule.
STARTUP_TRIALS = 5


def is_hopeless(
    found: Mapping[str, float],
    others: Sequence[Mapping[str, float]],
    better: Mapping[str, int],
    startup: int = STARTUP_TRIALS,
) -> bool:
    """Whether the rule ends a run at an evaluation.

    Args:
        found: metric to value of the run at this step; others than objectives may be in it.
        others: the same of each finished trial, at the same step with the same seed.
        better: objective to 1 if more is better, -1 if less is.
        startup: with fewer others that have measured an objective it is not looked at.

    Returns:
        False if no objective is measured here, or none by enough others.
    """
    verdicts = []
    for name, sign in better.items():
        rivals = [other[name] for other in others if name in other]
        if name not in found or len(rivals) < startup:
            continue
        verdicts.append(sign * found[name] < sign * statistics.median(rivals))
    return bool(verdicts) and all(verdicts)
