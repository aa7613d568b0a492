"""The ranks of every query's hits in a gallery.

The protocol is Market-1501's (Zheng et al., ICCV 2015). For each query the gallery items of the
same identity *and* the same camera are removed, and so is junk (identity -1); distractors
(identity 0) stay as negatives. A removed item takes no place in the ranking. What is left is
ordered by falling score, equal scores by rising gallery index.

Every metric is a function of the ranks of a query's hits alone, so the gallery is not sorted and
the queries x gallery matrix is never held: scores come in tiles of a few queries, and for each hit
the items ahead of it are counted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Integer, Real
from numpy.typing import ArrayLike

from dgnet_jax.data.splits import DISTRACTOR, JUNK
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.labels import comparable, integers
from dgnet_jax.evaluation.metrics import RANKS, summarise
from dgnet_jax.runtime.threads import available_cpus

# Above so many hits, sorting the row costs less than a pass over it for every hit (measured at 16k
# to 82k items). Market-1501 has 17 hits per query on average, MSMT17 under 30.
_MAX_COUNTED_HITS = 500

# The rows of the (queries, gallery) scores in order, larger for more alike.
Tiles = Iterable[Float[np.ndarray, "rows gallery"]]
# (query features, gallery features, tile_bytes) to tiles that may be overwritten.
Scorer = Callable[[Float[np.ndarray, "queries dim"], Float[np.ndarray, "gallery dim"], int], Tiles]


def inner_products(
    query: Float[np.ndarray, "queries dim"],
    gallery: Float[np.ndarray, "gallery dim"],
    tile_bytes: int = 2**26,
) -> Iterator[Float[np.ndarray, "rows gallery"]]:
    """Blocks of rows of query . gallery, in one buffer that the next block overwrites."""
    rows = max(1, min(len(query), tile_bytes // (len(gallery) * gallery.itemsize)))
    buffer = np.empty((rows, len(gallery)), gallery.dtype)
    for start in range(0, len(query), rows):
        block = query[start : start + rows]
        yield np.matmul(block, gallery.T, out=buffer[: len(block)])


def evaluate_ranking(
    query_features: Real[np.ndarray, "queries dim"] | ArrayLike,
    query_ids: Integer[np.ndarray, " queries"] | ArrayLike,
    query_cameras: Integer[np.ndarray, " queries"] | ArrayLike,
    gallery_features: Real[np.ndarray, "gallery dim"] | ArrayLike,
    gallery_ids: Integer[np.ndarray, " gallery"] | ArrayLike,
    gallery_cameras: Integer[np.ndarray, " gallery"] | ArrayLike,
    *,
    ranks: Sequence[int] = RANKS,
    scorer: Scorer = inner_products,
    tile_bytes: int = 2**26,
) -> dict[str, float | int]:
    """Ranks the gallery for every query, by the inner product of features by default.

    Args:
        query_features, gallery_features: weighted as they are to be compared
            (`features.ranking_features`). float64 is scored in float64, narrower in float32.
        query_ids: identities, of any integer type; a hit is an item of an equal one.
        gallery_ids: identities; -1 is junk, 0 a distractor.
        query_cameras, gallery_cameras: of the same integers.
        ranks: the k of each Rank@k.
        scorer: compares features; `reranking.KReciprocal().scores` re-ranks.
        tile_bytes: the largest block of scores held at a time. It changes no result, except
            through the last bit of a score.

    Returns:
        What `summarise` returns and the counts `gallery` (junk taken out, distractors included),
        `junk` and `distractors`.

    Raises:
        InputError: naming the argument whose shape, type or values are wrong.
    """
    hits = rank_hits(
        query_features,
        query_ids,
        query_cameras,
        gallery_features,
        gallery_ids,
        gallery_cameras,
        scorer=scorer,
        tile_bytes=tile_bytes,
    )
    return summarise(hits, ranks) | gallery_counts(gallery_ids)


def gallery_counts(gallery_ids: Integer[np.ndarray, " gallery"] | ArrayLike) -> dict[str, int]:
    """`gallery` (junk taken out, distractors included), `junk` and `distractors`."""
    identities = integers(gallery_ids, "gallery_ids")
    return {
        "gallery": int(np.count_nonzero(identities != JUNK)),
        "junk": int(np.count_nonzero(identities == JUNK)),
        "distractors": int(np.count_nonzero(identities == DISTRACTOR)),
    }


def rank_hits(
    query_features: Real[np.ndarray, "queries dim"] | ArrayLike,
    query_ids: Integer[np.ndarray, " queries"] | ArrayLike,
    query_cameras: Integer[np.ndarray, " queries"] | ArrayLike,
    gallery_features: Real[np.ndarray, "gallery dim"] | ArrayLike,
    gallery_ids: Integer[np.ndarray, " gallery"] | ArrayLike,
    gallery_cameras: Integer[np.ndarray, " gallery"] | ArrayLike,
    *,
    scorer: Scorer = inner_products,
    tile_bytes: int = 2**26,
) -> list[Integer[np.ndarray, " _hits"]]:
    """The rising ranks, from 0, of each query's hits; empty if it has none.

    Arguments and errors are those of `evaluate_ranking`.
    """
    query = _features(query_features, "query_features")
    gallery = _features(gallery_features, "gallery_features")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"gallery_features: found {gallery.shape[1]} values per item where query_features has"
            f" {query.shape[1]}. Extract both with the same network and alpha."
        )
    of_queries = _labels(query_ids, "query_ids", len(query))
    of_gallery = _labels(gallery_ids, "gallery_ids", len(gallery))
    kept = of_gallery != JUNK
    if not kept.any():
        raise InputError("gallery_ids: every item is junk (-1). Check the gallery folder.")
    query_ids, gallery_ids = comparable(of_queries, of_gallery[kept])
    query_cameras, gallery_cameras = comparable(
        _labels(query_cameras, "query_cameras", len(query)),
        _labels(gallery_cameras, "gallery_cameras", len(gallery))[kept],
    )
    if not kept.all():
        gallery = gallery[kept]
    dtype = np.result_type(query, gallery)
    tiles = scorer(query.astype(dtype, copy=False), gallery.astype(dtype, copy=False), tile_bytes)
    return rank_hits_of_scores(tiles, query_ids, query_cameras, gallery_ids, gallery_cameras)


def rank_hits_of_scores(
    score_tiles: Tiles,
    query_ids: Integer[np.ndarray, " queries"],
    query_cameras: Integer[np.ndarray, " queries"],
    gallery_ids: Integer[np.ndarray, " gallery"],
    gallery_cameras: Integer[np.ndarray, " gallery"],
) -> list[Integer[np.ndarray, " _hits"]]:
    """The ranks of every query's hits, from scores of any origin (for distances give the negative).

    Args:
        score_tiles: blocks of any number of rows. They are overwritten.
        query_ids, query_cameras: of the queries.
        gallery_ids, gallery_cameras: of the gallery, junk already taken out.

    Returns:
        For each query the rising ranks of its hits, from 0; empty if it has none.
    """
    query_ids, gallery_ids = comparable(query_ids, gallery_ids)
    query_cameras, gallery_cameras = comparable(query_cameras, gallery_cameras)
    by_identity = np.argsort(gallery_ids, kind="stable")
    starts = np.searchsorted(gallery_ids[by_identity], query_ids, side="left")
    stops = np.searchsorted(gallery_ids[by_identity], query_ids, side="right")

    def rank_query(
        query: int, scores: Float[np.ndarray, " gallery"]
    ) -> Integer[np.ndarray, " hits"]:
        same = by_identity[starts[query] : stops[query]]
        same_camera = gallery_cameras[same] == query_cameras[query]
        scores[same[same_camera]] = -np.inf
        return _ranks_in_row(scores, same[~same_camera])

    hits: list[Integer[np.ndarray, " _hits"]] = []
    # NumPy releases the interpreter lock while it compares, so that rows are counted in parallel.
    with ThreadPoolExecutor(max_workers=available_cpus()) as pool:
        for tile in score_tiles:
            hits.extend(pool.map(rank_query, range(len(hits), len(hits) + len(tile)), tile))
    return hits


def _ranks_in_row(
    scores: Float[np.ndarray, " gallery"], hits: Integer[np.ndarray, " hits"]
) -> Integer[np.ndarray, " hits"]:
    """The rising ranks of the items `hits` in falling `scores`, ties by index."""
    if len(hits) > _MAX_COUNTED_HITS:
        is_hit = np.zeros(len(scores), bool)
        is_hit[hits] = True
        return np.flatnonzero(is_hit[np.argsort(-scores, kind="stable")])
    ahead = [
        np.count_nonzero(scores[:hit] >= scores[hit]) + np.count_nonzero(scores[hit:] > scores[hit])
        for hit in hits
    ]
    return np.sort(np.array(ahead, dtype=np.int64))


def _features(values: ArrayLike, name: str) -> Float[np.ndarray, "items dim"]:
    """float32 or float64, checked."""
    array = np.asarray(values)
    if array.ndim != 2 or not np.can_cast(array.dtype, np.float64, casting="same_kind"):
        raise InputError(
            f"{name}: found {array.dtype} of shape {array.shape}. Give real numbers of shape"
            " (items, values)."
        )
    if array.size == 0:
        raise InputError(
            f"{name}: found shape {array.shape}, nothing to rank. Check the data set's folders."
        )
    array = array.astype(np.result_type(array.dtype, np.float32), copy=False)
    # Finite squared norms bound every inner product, so that no score overflows either.
    with np.errstate(over="ignore", invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(np.einsum("nd,nd->n", array, array)))
    if len(bad):
        raise InputError(
            f"{name}: {len(bad)} of {len(array)} rows hold NaN, inf or values too large for"
            f" {array.dtype}, first row {bad[0]}. Check the network that made them."
        )
    return array


def _labels(values: ArrayLike, name: str, length: int) -> np.ndarray:
    """`integers`, as many as there are features."""
    array = integers(values, name)
    if array.shape != (length,):
        raise InputError(
            f"{name}: found shape {array.shape} for {length} features. Give one label per feature."
        )
    return array
