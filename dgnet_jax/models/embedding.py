"""Unit embeddings over an image and its mirror (Zheng et al., CVPR 2019, section 4)."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

# Prime and fine.
Embeddings = tuple[Float[Array, "batch dim"], Float[Array, "batch dim"]]
# A zero embedding stays zero instead of turning into NaN.
_SMALLEST_NORM = 1e-12


def normalise(embedding: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Scales to unit L2 norm over the last axis, in float32 or wider."""
    embedding = embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32))
    norm = jnp.linalg.norm(embedding, axis=-1, keepdims=True)
    return embedding / jnp.maximum(norm, _SMALLEST_NORM)


def combine_views(
    embedding: Float[Array, "*batch dim"], mirrored: Float[Array, "*batch dim"]
) -> Float[Array, "*batch dim"]:
    """One unit embedding from those of an image and of its mirror."""
    return normalise(normalise(embedding) + normalise(mirrored))


def embed_two_views(
    embed_view: Callable[[Shaped[Array, "batch height width 3"]], Embeddings],
    images: Shaped[Array, "batch height width 3"],
) -> Embeddings:
    """Prime and fine embeddings of images over themselves and their mirrors.

    Pure and traceable: jit the caller.

    Args:
        embed_view: images to (prime, fine) of the images as they are.
        images: of any type that `embed_view` takes.

    Returns:
        (prime, fine), of unit norm.
    """
    prime, fine = embed_view(images)
    prime_mirrored, fine_mirrored = embed_view(images[:, :, ::-1])
    return combine_views(prime, prime_mirrored), combine_views(fine, fine_mirrored)
