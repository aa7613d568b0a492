"""Unit embeddings over an image and its mirror (Zheng et al., CVPR 2019, section 4)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

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
