"""Ranking of a data set's gallery for its queries by a network's embeddings."""

import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from absl import logging

from dgnet_jax.data.pipeline import CachedSplit, ReidData
from dgnet_jax.evaluation.features import Embeddings, embed, ranking_features
from dgnet_jax.evaluation.ranking import evaluate_ranking
from dgnet_jax.parallel import Placement

Metrics = dict[str, float]


def evaluate_retrieval(
    features_fn: Callable[[jax.Array], Embeddings],
    data: ReidData,
    config: ml_collections.ConfigDict,
    placement: Placement,
    *,
    alpha: float,
) -> Metrics:
    """Rank@k, mAP and mINP of a network on the full query and gallery (dgnet.md section 5).

    Args:
        features_fn: uint8 images (batch, cache height, cache width, 3) to (prime, fine)
            embeddings over both views; jitted (see `features.embed_two_views`).
        data: the data set.
        config: `evaluation.batch_size` is rounded up to a multiple of the devices.
        alpha: weight of the fine embedding in the score.

    Returns:
        `evaluate_ranking`'s metrics, in shares of 1.
    """
    started = time.perf_counter()
    devices = placement.mesh.size
    batch_size = -(-config.evaluation.batch_size // devices) * devices

    def features(split: CachedSplit) -> np.ndarray:
        embeddings = embed(
            features_fn, split.images, batch_size=batch_size, sharding=placement.sharded
        )
        return ranking_features(embeddings[:, 0], embeddings[:, 1], alpha)

    query, gallery = data.query, data.gallery
    metrics = evaluate_ranking(
        features(query),
        query.identities,
        query.cameras,
        features(gallery),
        gallery.identities,
        gallery.cameras,
    )
    logging.info(
        "evaluated %d queries against %d images in %.0f s",
        len(query.images),
        len(gallery.images),
        time.perf_counter() - started,
    )
    return metrics
