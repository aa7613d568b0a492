"""Identity consistency: do generated images keep the identity of their appearance?"""

import numpy as np
from jaxtyping import Float, Integer

from dgnet_jax.errors import InputError

_TILE = 1024


def identity_consistency(
    generated_features: Float[np.ndarray, "generated dim"],
    generated_identities: Integer[np.ndarray, " generated"],
    real_features: Float[np.ndarray, "real dim"],
    real_identities: Integer[np.ndarray, " real"],
) -> float:
    """The share of generated images whose identity is retrieved at rank 1 among real images.

    Features are those of an evaluator that did not train with the generator (the teacher). The
    nearest real image is the one of the largest cosine, the first of equal ones.

    Args:
        generated_features, real_features: of any norm.
        generated_identities: those of the appearances.
        real_identities: those of the real images.

    Returns:
        A share in [0, 1].

    Raises:
        InputError: shapes that do not fit, no image, or features that are not finite.
    """
    for name, features, identities in (
        ("generated", generated_features, generated_identities),
        ("real", real_features, real_identities),
    ):
        if features.ndim != 2 or not len(features) or np.shape(identities) != (len(features),):
            raise InputError(
                f"{name}: found features of shape {features.shape} and identities of shape "
                f"{np.shape(identities)}. Give (images, dim) and (images,), at least one."
            )
        if not np.isfinite(features).all():
            raise InputError(f"{name}: features hold NaN or inf. Check the evaluator network.")
    generated, real = _unit(generated_features), _unit(real_features)
    hits = 0
    for start in range(0, len(generated), _TILE):
        rows = slice(start, start + _TILE)
        nearest = (generated[rows] @ real.T).argmax(1)
        hits += int(np.sum(real_identities[nearest] == generated_identities[rows]))
    return hits / len(generated)


def _unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norm, 1e-12)
