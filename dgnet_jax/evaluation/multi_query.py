"""Multi-query ranking: a query is the mean of all images of its person by its camera.

Market-1501 gives these images in `gt_bbox` (Zheng et al., ICCV 2015); DG-Net's multi-query numbers
average their features.
"""

import numpy as np
from jaxtyping import Float, Int, Integer

from dgnet_jax.evaluation.labels import comparable


def average_queries(
    query_features: Float[np.ndarray, "queries dim"],
    query_ids: Integer[np.ndarray, " queries"],
    query_cameras: Integer[np.ndarray, " queries"],
    more_features: Float[np.ndarray, "images dim"],
    more_ids: Integer[np.ndarray, " images"],
    more_cameras: Integer[np.ndarray, " images"],
) -> tuple[Float[np.ndarray, "queries dim"], Int[np.ndarray, " queries"]]:
    """Replaces each query's features by the mean over its identity's images of its camera.

    Args:
        query_features: as they are ranked.
        query_ids, query_cameras: of the queries, of any integer types.
        more_features: of the same kind.
        more_ids, more_cameras: of the further images.

    Returns:
        Features, not normalised again; a query without any such image keeps its own.
        The number of images averaged, 0 for those.
    """
    identities, cameras = comparable(query_ids, more_ids), comparable(query_cameras, more_cameras)
    labels = np.stack([np.concatenate(identities), np.concatenate(cameras)])
    groups, group = np.unique(labels, axis=1, return_inverse=True)
    group = group.ravel()  # NumPy 2.0.0 gives it the labels' number of axes
    of_queries, of_more = group[: len(query_ids)], group[len(query_ids) :]
    counts = np.bincount(of_more, minlength=groups.shape[1])
    sums = np.zeros((groups.shape[1], query_features.shape[1]))
    np.add.at(sums, of_more, more_features)
    means = (sums / np.maximum(counts, 1)[:, None])[of_queries]
    found = counts[of_queries]
    features = np.where(found[:, None] > 0, means, query_features)
    return features.astype(query_features.dtype), found
