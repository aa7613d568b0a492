"""Time and peak memory of `evaluate_ranking` on random features at a data set's size.

python benchmarks/ranking.py --size=market
python benchmarks/ranking.py --size=msmt17
"""

import argparse
import resource
import time
from typing import Literal

import numpy as np

from dgnet_jax.evaluation.ranking import evaluate_ranking

DType = Literal["float32", "float64"]

# queries, gallery without distractors and junk, distractors, junk, identities, cameras
SIZES = {
    "market": (3368, 13115, 2798, 3819, 750, 6),
    "msmt17": (11659, 82161, 0, 0, 3060, 15),
}


def random_features(rng: np.random.Generator, count: int, dim: int, dtype: DType) -> np.ndarray:
    """(count, dim) rows of unit length."""
    features = rng.standard_normal((count, dim), dtype=dtype)
    features /= np.sqrt(np.einsum("nd,nd->n", features, features))[:, None]
    return features


def main() -> None:
    parser = argparse.ArgumentParser(description="Times evaluate_ranking on random features.")
    parser.add_argument("--size", choices=SIZES, default="market")
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    arguments = parser.parse_args()

    queries, matching, distractors, junk, identities, cameras = SIZES[arguments.size]
    gallery = matching + distractors + junk
    rng = np.random.default_rng(0)
    gallery_ids = np.concatenate(
        [rng.integers(1, identities + 1, matching), np.zeros(distractors, int), np.full(junk, -1)]
    )
    inputs = (
        random_features(rng, queries, arguments.dim, arguments.dtype),
        rng.integers(1, identities + 1, queries),
        rng.integers(1, cameras + 1, queries),
        random_features(rng, gallery, arguments.dim, arguments.dtype),
        gallery_ids,
        rng.integers(1, cameras + 1, gallery),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    result = evaluate_ranking(*inputs)
    seconds = time.perf_counter() - start
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{queries} queries x {gallery} gallery x {arguments.dim} values, {arguments.dtype}")
    print(f"time {seconds:.2f} s, peak memory {megabytes:.0f} MB; {before:.0f} MB before ranking")
    print(", ".join(f"{name} {value:.6g}" for name, value in result.items()))


if __name__ == "__main__":
    main()
