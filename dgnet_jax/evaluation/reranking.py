"""Re-ranking with k-reciprocal encoding (Zhong et al., CVPR 2017).

Two people are alike if they are among each other's nearest neighbours and share these neighbours.
Queries and gallery together are N items. Each item i gets a sparse row V_i over all items:
exp(-d) on its k-reciprocal neighbours, extended by those of neighbours that agree with it (the
paper's equation 7; d is the distance squared and divided by its row's maximum), summing to 1. V is
averaged over the k2 nearest items of each row (local query expansion). The distance of a query and
a gallery item is then

    (1 - lambda) * (1 - sum_j min(V_qj, V_gj) / sum_j max(V_qj, V_gj)) + lambda * d

As in torchreid and in the authors' program, "the distance" is the squared Euclidean one, so d is
its square again. The N x N distances are only ever there a block of rows at a time, and V is
sparse: a few hundred entries per row.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, Real
from scipy import sparse

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.threads import available_cpus

# Values of gathered features held at a time for distances of single pairs: 64 MB of float32.
_PAIR_VALUES = 2**24


class KReciprocal(NamedTuple):
    """The settings, with the values of the paper.

    Attributes:
        k1: neighbours that are considered, 1 or more.
        k2: nearest rows that a row is averaged over; 1 leaves query expansion out.
        lambda_value: share of the original distance, 0 to 1.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def scores(
        self,
        query: Float[np.ndarray, "queries dim"],
        gallery: Float[np.ndarray, "gallery dim"],
        tile_bytes: int = 2**26,
    ) -> Iterator[Float[np.ndarray, "rows gallery"]]:
        """The negative re-ranked distances, as a `ranking.Scorer`.

        Args:
            query, gallery: of the same type.
            tile_bytes: about the largest block of distances held at a time.

        Yields:
            Blocks of the queries in order.

        Raises:
            InputError: a setting is out of range.
        """
        self.check()
        features = np.concatenate([query, gallery])
        norms = np.einsum("nd,nd->n", features, features)
        count = min(max(self.k1 + 1, self.k2), len(features))
        nearest, farthest = _nearest_neighbours(features, norms, count, tile_bytes)
        encoding = _encode(features, norms, nearest, farthest, self.k1)
        if self.k2 > 1:
            encoding = _pattern(nearest[:, : self.k2], encoding.dtype) @ encoding
            encoding.data /= min(self.k2, len(features))
        of_queries = encoding[: len(query)].tocsr()
        by_column = encoding[len(query) :].tocsc()

        rows = max(1, tile_bytes // (8 * len(gallery)))
        for start in range(0, len(query), rows):
            block = slice(start, min(start + rows, len(query)))
            distances = _squared_distances(features, norms, block, slice(len(query), None))
            distances = (distances / farthest[block, None]) ** 2
            distances *= self.lambda_value
            for row, item in enumerate(range(block.start, block.stop)):
                shared = _shared_weight(of_queries, by_column, item)
                # Rows of V sum to 1, so the sum of maxima is 2 less the sum of minima.
                distances[row] += (1 - self.lambda_value) * (1 - shared / (2 - shared))
            yield np.negative(distances, out=distances)

    def check(self) -> None:
        """Raises InputError for a setting that is out of range."""
        if self.k1 < 1 or self.k2 < 1:
            raise InputError(f"re-ranking: found k1 {self.k1}, k2 {self.k2}. Give 1 or more each.")
        if not 0 <= self.lambda_value <= 1:
            raise InputError(f"re-ranking: found lambda {self.lambda_value}. Give 0 to 1.")


def _squared_distances(
    features: Float[np.ndarray, "items dim"],
    norms: Float[np.ndarray, " items"],
    rows: slice,
    columns: slice,
) -> Float[np.ndarray, "rows columns"]:
    """Squared Euclidean distances, from the items' squared norms."""
    distances = features[rows] @ features[columns].T
    distances *= -2
    distances += norms[rows, None]
    distances += norms[columns]
    # Rounding can take the distance of equal items below 0.
    return np.maximum(distances, 0, out=distances)


def _nearest_neighbours(
    features: Float[np.ndarray, "items dim"],
    norms: Float[np.ndarray, " items"],
    count: int,
    tile_bytes: int,
) -> tuple[Int32[np.ndarray, "items {count}"], Float[np.ndarray, " items"]]:
    """Each item's nearest items, itself among them, and its largest squared distance.

    Returns:
        Indices by rising distance, equal ones by index; distances, above 0.
    """
    items = len(features)
    nearest = np.empty((items, count), np.int32)
    farthest = np.empty(items, features.dtype)
    workers = available_cpus()

    def select(start: int, distances: Float[np.ndarray, "rows items"]) -> None:
        stop = start + len(distances)
        farthest[start:stop] = distances.max(axis=1)
        chosen = np.sort(np.argpartition(distances, count - 1, axis=1)[:, :count], axis=1)
        order = np.argsort(np.take_along_axis(distances, chosen, axis=1), axis=1, kind="stable")
        nearest[start:stop] = np.take_along_axis(chosen, order, axis=1)

    # Selecting takes an array of indices, twice as wide as the distances, besides them.
    rows = max(1, tile_bytes // (3 * items * features.itemsize))
    # NumPy releases the interpreter lock while it selects.
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, items, rows):
            block = _squared_distances(features, norms, slice(start, start + rows), slice(None))
            diagonal = np.arange(len(block))
            # First even among many equal items, so that every item is its own neighbour.
            block[diagonal, start + diagonal] = -1
            parts = np.array_split(block, min(workers, len(block)))
            starts = start + np.cumsum([0, *map(len, parts[:-1])])
            list(pool.map(select, starts.tolist(), parts))
    smallest = np.finfo(features.dtype).tiny
    return nearest, np.maximum(farthest, smallest)


def _encode(
    features: Float[np.ndarray, "items dim"],
    norms: Float[np.ndarray, " items"],
    nearest: Int32[np.ndarray, "items count"],
    farthest: Float[np.ndarray, " items"],
    k1: int,
) -> sparse.csr_array:
    """(N, N) V: exp(-d) on the extended k-reciprocal neighbours, rows summing to 1."""
    reciprocal = _reciprocal(nearest[:, : k1 + 1])
    # The authors round half to even: 10 for k1 = 21.
    half = _reciprocal(nearest[:, : round(k1 / 2) + 1])
    sizes = np.diff(half.indptr)
    # For each neighbour c of i: how many of c's own neighbours are also i's.
    shared = (reciprocal @ half.T).multiply(reciprocal).tocoo()
    agreeing = 3 * shared.data > 2 * sizes[shared.col]
    agrees = sparse.csr_array(
        (shared.data[agreeing], (shared.row[agreeing], shared.col[agreeing])), shape=shared.shape
    )
    extended = (reciprocal + agrees @ half).tocsr()
    extended.sort_indices()
    rows = np.repeat(np.arange(len(features)), np.diff(extended.indptr))
    distances = _pair_distances(features, norms, rows, extended.indices) / farthest[rows]
    weights = np.exp(-np.square(distances))
    sums = np.bincount(rows, weights, minlength=len(features))
    weights = (weights / sums[rows]).astype(features.dtype)
    return sparse.csr_array((weights, extended.indices, extended.indptr), shape=extended.shape)


def _pattern(columns: Int[np.ndarray, "items count"], dtype: np.dtype | type) -> sparse.csr_array:
    """(N, N) with ones in each row's columns."""
    items, count = columns.shape
    starts = np.arange(0, items * count + 1, count)
    ones = np.ones(items * count, dtype)
    return sparse.csr_array((ones, columns.ravel(), starts), shape=(items, items))


def _reciprocal(nearest: Int32[np.ndarray, "items count"]) -> sparse.csr_array:
    """(N, N) int32: 1 where two items are among each other's `nearest`."""
    forward = _pattern(nearest, np.int32)
    return forward.multiply(forward.T.tocsr()).tocsr()


def _pair_distances(
    features: Float[np.ndarray, "items dim"],
    norms: Float[np.ndarray, " items"],
    left: Int[np.ndarray, " pairs"],
    right: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    """Squared Euclidean distances of items left[i] and right[i]."""
    distances = np.empty(len(left), features.dtype)
    step = max(1, _PAIR_VALUES // (2 * features.shape[1]))
    for start in range(0, len(left), step):
        pairs = slice(start, start + step)
        distances[pairs] = np.einsum("nd,nd->n", features[left[pairs]], features[right[pairs]])
    distances = norms[left] + norms[right] - 2 * distances
    distances[left == right] = 0
    return np.maximum(distances, 0)


def _shared_weight(
    of_queries: sparse.csr_array, by_column: sparse.csc_array, query: int
) -> Real[np.ndarray, " gallery"]:
    """Sum over j of min(V_qj, V_gj) for one query q."""
    mine = slice(of_queries.indptr[query], of_queries.indptr[query + 1])
    columns = of_queries.indices[mine]
    starts = by_column.indptr[columns]
    lengths = by_column.indptr[columns + 1] - starts
    ends = np.cumsum(lengths)
    entries = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    smaller = np.minimum(np.repeat(of_queries.data[mine], lengths), by_column.data[entries])
    return np.bincount(by_column.indices[entries], smaller, minlength=by_column.shape[0])
