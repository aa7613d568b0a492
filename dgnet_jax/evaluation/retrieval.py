"""Ranking of a data set's gallery for its queries by a network's embeddings."""

import time
from collections.abc import Callable

import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Array, Float, UInt8

from dgnet_jax.data.pipeline import CachedSplit, ReidData
from dgnet_jax.evaluation.variants import Embedded, Metrics, Ranked, Variant, rank
from dgnet_jax.inference import embed
from dgnet_jax.models.embedding import Embeddings
from dgnet_jax.runtime.devices import Placement

# Images on the host to their prime and fine embeddings.
Embedder = Callable[[UInt8[np.ndarray, "n rows columns 3"]], Float[np.ndarray, "n 2 dim"]]


def embed_split(embedder: Embedder, split: CachedSplit) -> Embedded:
    """The embeddings of a split's images, with their labels."""
    return Embedded(embedder(split.images), split.identities, split.cameras)


def rank_data(embedder: Embedder, data: ReidData, variant: Variant) -> Ranked:
    """The gallery of a data set, ranked for its queries."""
    return rank(variant, embed_split(embedder, data.query), embed_split(embedder, data.gallery))


def evaluate_retrieval(
    features_fn: Callable[[UInt8[Array, "batch cache_height cache_width 3"]], Embeddings],
    data: ReidData,
    config: ml_collections.ConfigDict,
    placement: Placement,
    *,
    alpha: float,
) -> Metrics:
    """Rank@k, mAP and mINP of a network on the full query and gallery.

    docs/method.md, sections 7.1 to 7.3.

    Args:
        features_fn: images to (prime, fine) embeddings over both views; jitted (see
            `embedding.embed_two_views`).
        data: the data set.
        config: `evaluation.batch_size` is rounded up to a multiple of the devices.
        alpha: weight of the fine embedding in the score.

    Returns:
        `evaluate_ranking`'s metrics, in shares of 1.
    """
    started = time.perf_counter()
    wanted = config.evaluation.batch_size
    batch_size = placement.round_up("evaluation.batch_size", wanted)

    def embedder(
        images: UInt8[np.ndarray, "n rows columns 3"],
    ) -> Float[np.ndarray, "n 2 dim"]:
        return embed(features_fn, images, batch_size=batch_size, sharding=placement.sharded)

    ranked = rank_data(embedder, data, Variant(alpha))
    logging.info(
        "evaluated %d queries against %d images in %.0f s",
        len(data.query.images),
        len(data.gallery.images),
        time.perf_counter() - started,
    )
    return ranked.metrics
