"""Times a training step: compilation, step, images/s, peak memory, share of the data.

    python benchmarks/step_time.py --config=configs/market.py:l1_rmse --batch=2 --steps=3

runs the compiled step of a config on random images, with every loss active (or, with --phase=start,
as before the ramps), and prints one JSON line. The figures are of a step on the host's clock,
device synchronised; `gather` is what preparing the next batch costs, which training overlaps.
"""

import json
import resource
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dgnet_jax.data.pipeline import gather_pairs
from dgnet_jax.data.sampling import PairSampler
from dgnet_jax.models import build_networks
from dgnet_jax.parallel import place
from dgnet_jax.shared import make_train_step, seed_key
from dgnet_jax.state import make_optimizers
from dgnet_jax.train_step import active_terms
from dgnet_jax.trainer import initial_state

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
_BATCH = flags.DEFINE_integer("batch", None, "Images per direction; the config's by default.")
_DTYPE = flags.DEFINE_string("dtype", None, "float32 or bfloat16; the config's by default.")
_STEPS = flags.DEFINE_integer("steps", 5, "Timed steps, after one that is not.", lower_bound=1)
_PHASE = flags.DEFINE_enum("phase", "full", ["start", "full"], "Before or after the ramps.")
_TRACE = flags.DEFINE_string("trace", None, "A folder for a jax.profiler trace of one step.")
_IDENTITIES = 751
_CACHED_IMAGES = 512


def main(_: list[str]) -> None:
    config = _CONFIG.value
    config.batch_size = _BATCH.value or config.batch_size
    config.dtype = _DTYPE.value or config.dtype
    config.appearance.init = "teacher"
    placement = place(config.parallel)
    placement.check_batch("batch_size", config.batch_size)
    networks, optimizers = build_networks(config, _IDENTITIES), make_optimizers(config)
    images = jnp.zeros((2, config.data.height, config.data.width, 3))
    teacher = placement.put_state(jax.jit(networks.teacher.init)(jax.random.key(0), images))
    state = initial_state(config, networks, optimizers, None, placement)
    # Past every ramp and before the first milestone, so that each term has its full weight.
    ramp_steps = int(2 * max(config.weights.teacher, config.weights.cycle) / config.ramp.scale)
    start = 0 if _PHASE.value == "start" else config.ramp.start + ramp_steps
    state = replace(state, step=placement.put_state(jnp.asarray(start, jnp.int32)))

    rng = np.random.default_rng(0)
    size = (config.data.cache_height, config.data.cache_width)
    cache = rng.integers(0, 256, (_CACHED_IMAGES, *size, 3), np.uint8)
    sampler = PairSampler(rng.integers(0, _IDENTITIES, _CACHED_IMAGES), config.batch_size, 0)

    def batch(step: int):
        chosen = sampler.batch(step)
        return placement.put_batch(
            config.batch_size, lambda rows: gather_pairs(cache, chosen[rows])
        )

    active = active_terms(config, start)
    make = partial(make_train_step, config, networks, optimizers, active)
    step = placement.compile_step(make, arguments=4, batch_argument=2)
    key = placement.put_state(seed_key(config))

    first, seconds, gathering = 0.0, [], []
    for index in range(_STEPS.value + 1):
        started = time.perf_counter()
        inputs = jax.block_until_ready(batch(index))
        gathered = time.perf_counter()
        state, losses = jax.block_until_ready(step(state, teacher, inputs, key))
        done = time.perf_counter()
        if index:
            gathering.append(gathered - started)
            seconds.append(done - gathered)
        else:
            first = done - gathered
    if _TRACE.value:
        with jax.profiler.trace(_TRACE.value):
            jax.block_until_ready(step(state, teacher, batch(0), key))

    median = statistics.median(seconds)
    device_memory = jax.devices()[0].memory_stats() or {}
    peak = device_memory.get("peak_bytes_in_use")
    result = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "image": [config.data.height, config.data.width],
        "batch": config.batch_size,
        "dtype": config.dtype,
        "parallel": config.parallel,
        "phase": _PHASE.value,
        # The first step compiles.
        "compile_seconds": round(first - median, 1),
        "step_seconds": round(median, 4),
        "step_seconds_all": [round(value, 4) for value in seconds],
        "images_per_second": round(2 * config.batch_size / median, 2),
        "gather_share": round(statistics.median(gathering) / median, 4),
        "peak_memory_gib": round(peak / 2**30, 2) if peak else None,
        "peak_host_memory_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
        ),
        "losses_finite": all(map(np.isfinite, map(partial(np.sum), losses.values()))),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
