"""Retrieval features of DG-Net (section 5 of dgnet.md): two embeddings over two views.

An image and its mirror each give a `prime` and a `fine` embedding of 512 values. Each embedding is
L2-normalised, summed over the two views and normalised again. The score of two images is
prime . prime + alpha * fine . fine, with alpha 0.5 in every published figure.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.batching import map_batches

Embeddings = tuple[jax.Array, jax.Array]

# A zero embedding stays zero instead of turning into NaN.
_SMALLEST_NORM = 1e-12


def normalise(embedding: jax.Array) -> jax.Array:
    """(..., dim) scaled to unit L2 norm over the last axis, in float32 or wider."""
    embedding = embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32))
    norm = jnp.linalg.norm(embedding, axis=-1, keepdims=True)
    return embedding / jnp.maximum(norm, _SMALLEST_NORM)


def combine_views(embedding: jax.Array, mirrored: jax.Array) -> jax.Array:
    """One unit embedding from those of an image and of its mirror, each (..., dim)."""
    return normalise(normalise(embedding) + normalise(mirrored))


def embed_two_views(embed_view: Callable[[jax.Array], Embeddings], images: jax.Array) -> Embeddings:
    """Prime and fine embeddings of images over themselves and their mirrors.

    Pure and traceable: jit the caller.

    Args:
        embed_view: images to (prime, fine), each (batch, dim), of the images as they are.
        images: (batch, height, width, 3), of any type that `embed_view` takes.

    Returns:
        (prime, fine), each (batch, dim) of unit norm.
    """
    prime, fine = embed_view(images)
    prime_mirrored, fine_mirrored = embed_view(images[:, :, ::-1])
    return combine_views(prime, prime_mirrored), combine_views(fine, fine_mirrored)


def embed(
    features_fn: Callable[[jax.Array], Embeddings],
    images: np.ndarray,
    *,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> np.ndarray:
    """Runs a jitted feature function over a cache of images, each counted exactly once.

    Every batch has the same shape, so that `features_fn` is compiled once: the last one is filled
    up with zeros, whose features are cut off. A batch is dispatched before the features of the one
    before are fetched, so the device does not wait for the host.

    Args:
        features_fn: (batch_size, height, width, 3) uint8 to (prime, fine), each (batch_size, dim).
            What it computes for one image must not depend on the others of the batch.
        images: (images, height, width, 3) uint8 on the host; the same in every process.
        batch_size: images per call over all devices.
        sharding: how a batch lies on the devices; one device if None. May span processes.

    Returns:
        (images, 2, dim) float32: prime, then fine, of each image in order; whole in every process.

    Raises:
        InputError: if there are no images, or the batch size is below 1 or cannot be sharded so.
    """
    if images.ndim != 4 or len(images) == 0:
        raise InputError(
            f"images: found shape {images.shape}. Give at least one image, (n, height, width, 3)."
        )
    batches = map_batches(features_fn, images, batch_size=batch_size, sharding=sharding)
    return np.concatenate([np.stack(pair, axis=1, dtype=np.float32) for pair in batches])


def ranking_features(
    prime: np.ndarray, fine: np.ndarray, alpha: float = 0.5, *, fine_only: bool = False
) -> np.ndarray:
    """Features whose inner product is prime . prime + alpha * fine . fine.

    Args:
        prime: (images, dim), unit norm.
        fine: (images, dim), unit norm.
        alpha: weight of the fine embedding, 0 or above; 0 leaves it out.
        fine_only: score by fine . fine alone, whatever alpha is.

    Returns:
        (images, 2 dim), or (images, dim) where only one embedding counts.

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
