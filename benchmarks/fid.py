"""Times FID: Inception's images/s, the distance, KID, peak memory.

    python benchmarks/fid.py --dims=2048 --batch=64 --batches=3

runs the network with random weights on random 256 x 128 images and the distances on random
features, and prints one JSON line. The first batch, which compiles, is timed apart.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dgnet_jax.evaluation.extraction import InceptionExtractor
from dgnet_jax.evaluation.fid import FeatureStatistics
from dgnet_jax.evaluation.kid import kid
from dgnet_jax.models.inception import DIMS, INPUT_SIZE, Inception
from dgnet_jax.runtime.devices import place


def timed(function, *arguments):
    """(result, seconds)."""
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Times Inception features and the distances.")
    parser.add_argument("--dims", type=int, choices=DIMS, default=2048)
    parser.add_argument("--batch", type=int, default=64, help="images over all devices")
    parser.add_argument("--batches", type=int, default=3, help="timed, after one that compiles")
    parser.add_argument("--samples", type=int, default=5000, help="features of each side")
    arguments = parser.parse_args()

    placement = place()
    placement.check_batch("batch", arguments.batch)
    images = jnp.zeros((1, INPUT_SIZE, INPUT_SIZE, 3))
    params = jax.jit(Inception(arguments.dims).init)(jax.random.key(0), images)["params"]
    extractor = InceptionExtractor(
        placement.put_state(params), arguments.dims, arguments.batch, "random", placement
    )
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (arguments.batch, 256, 128, 3), np.uint8)
    _, compile_seconds = timed(extractor, batch)
    seconds = [timed(extractor, batch)[1] for _ in range(arguments.batches)]

    # A spectrum that falls as that of real features does.
    scale = np.arange(1, arguments.dims + 1) ** -0.7
    sides = [
        (rng.standard_normal((arguments.samples, arguments.dims)) * scale).astype(np.float32)
        for _ in range(2)
    ]
    (first, second), statistics_seconds = timed(lambda: [*map(FeatureStatistics.of, sides)])
    distance, distance_seconds = timed(first.distance, second)
    kernel, kid_seconds = timed(kid, *sides)
    median = statistics.median(seconds)
    result = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "dims": arguments.dims,
        "batch": arguments.batch,
        "first_batch_seconds": round(compile_seconds, 1),
        "images_per_second": round(arguments.batch / median, 2),
        "batch_seconds_all": [round(value, 3) for value in seconds],
        "samples": arguments.samples,
        "statistics_seconds": round(statistics_seconds, 2),
        "distance_seconds": round(distance_seconds, 2),
        "kid_seconds": round(kid_seconds, 2),
        "kid_subsets": kernel.subsets,
        "kid_subset_size": kernel.subset_size,
        "peak_host_memory_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
        ),
        "finite": bool(np.isfinite(distance) and np.isfinite(kernel.mean)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
