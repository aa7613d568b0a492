"""Time and peak memory of ranking and of k-reciprocal re-ranking at a data set's size.

python benchmarks/ranking.py --size=market
python benchmarks/ranking.py --size=msmt17 --without-reranking

The features are drawn: a centre for each identity and noise, so that re-ranking meets
neighbourhoods like those of a trained network.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dgnet_jax.evaluation.ranking import Scorer, evaluate_ranking, inner_products
from dgnet_jax.evaluation.reranking import KReciprocal

# queries, gallery without distractors and junk, distractors, junk, identities, cameras
SIZES = {
    "market": (3368, 13115, 2798, 3819, 750, 6),
    "msmt17": (11659, 82161, 0, 0, 3060, 15),
}
NOISE = 3.0


def drawn_features(
    rng: np.random.Generator, centres: np.ndarray, identities: np.ndarray
) -> np.ndarray:
    """(items, dim) rows of unit length; those of junk and distractors are noise alone."""
    features = rng.standard_normal((len(identities), centres.shape[1]), dtype=centres.dtype)
    features *= NOISE
    for item in np.flatnonzero(identities > 0):  # one by one: a copy would count as peak memory
        features[item] += centres[identities[item]]
    features /= np.sqrt(np.einsum("nd,nd->n", features, features))[:, None]
    return features


def peak_megabytes() -> float:
    """The largest resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, problem: tuple, scorer: Scorer) -> None:
    """Prints the time, the peak memory so far and the result."""
    before, start = peak_megabytes(), time.perf_counter()
    result = evaluate_ranking(*problem, scorer=scorer)
    seconds = time.perf_counter() - start
    print(
        f"{name}: {seconds:.2f} s, peak memory {peak_megabytes():.0f} MB ({before:.0f} MB before)"
    )
    print("  " + ", ".join(f"{key} {value:.6g}" for key, value in result.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Times ranking and re-ranking of drawn features.")
    parser.add_argument("--size", choices=SIZES, default="market")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--without-reranking", action="store_true")
    arguments = parser.parse_args()

    queries, matching, distractors, junk, identities, cameras = SIZES[arguments.size]
    gallery = matching + distractors + junk
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((identities + 1, arguments.dim)).astype(arguments.dtype)
    query_ids = rng.integers(1, identities + 1, queries)
    gallery_ids = np.concatenate(
        [rng.integers(1, identities + 1, matching), np.zeros(distractors, int), np.full(junk, -1)]
    )
    problem = (
        drawn_features(rng, centres, query_ids),
        query_ids,
        rng.integers(1, cameras + 1, queries),
        drawn_features(rng, centres, gallery_ids),
        gallery_ids,
        rng.integers(1, cameras + 1, gallery),
    )
    print(f"{queries} queries x {gallery} gallery x {arguments.dim} values, {arguments.dtype}")
    measure("ranking", problem, inner_products)
    if not arguments.without_reranking:
        measure("re-ranking", problem, KReciprocal().scores)


if __name__ == "__main__":
    main()
