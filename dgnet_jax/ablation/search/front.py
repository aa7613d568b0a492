"""The Pareto front."""

from collections.abc import Sequence

import numpy as np


def pareto_front(values: Sequence[Sequence[float]], better: Sequence[int]) -> list[int]:
    """The points that no other dominates: better or equal in everything, better in something.

    Equal points do not dominate each other.

    Args:
        values: (points, objectives), finite.
        better: of each objective, 1 if more is better, -1 if less is.

    Returns:
        Their indices, ascending.
    """
    if not values:
        return []
    scores = np.asarray(values, np.float64) * np.asarray(better)
    no_worse = (scores[:, None] >= scores[None]).all(-1)
    somewhere_better = (scores[:, None] > scores[None]).any(-1)
    dominated = (no_worse & somewhere_better).any(0)
    return np.flatnonzero(~dominated).tolist()
