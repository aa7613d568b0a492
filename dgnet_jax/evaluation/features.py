"""Prime and fine embeddings (`models.embedding`) as one vector whose inner product is the score.

The score of two images is prime . prime + alpha * fine . fine, with alpha 0.5 in every published
figure: docs/method.md, section 7.1.
"""

import numpy as np
from jaxtyping import Float

from dgnet_jax.errors import InputError


def ranking_features(
    prime: Float[np.ndarray, "images dim"],
    fine: Float[np.ndarray, "images dim"],
    alpha: float = 0.5,
    *,
    fine_only: bool = False,
) -> Float[np.ndarray, "images dim"] | Float[np.ndarray, "images 2*dim"]:
    """Features whose inner product is prime . prime + alpha * fine . fine.

    Args:
        prime, fine: of unit norm.
        alpha: weight of the fine embedding, 0 or above; 0 leaves it out.
        fine_only: score by fine . fine alone, whatever alpha is.

    Returns:
        Twice as many values as an embedding, or as many where only one embedding counts.

    Raises:
        InputError: if alpha is negative or not finite.
    """
    if fine_only:
        return fine
    if not 0 <= alpha < np.inf:
        raise InputError(f"alpha: found {alpha}. Give a finite weight of 0 or above, such as 0.5.")
    if alpha == 0:
        return prime
    return np.concatenate([prime, np.sqrt(alpha).astype(fine.dtype) * fine], axis=1)
