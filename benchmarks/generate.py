"""Times generation: images/s of swaps, of a data set's pictures, of its files, and soft labels.

    python benchmarks/generate.py --config=configs/market.py:l1 --images=256 --batch=32

runs untrained networks of a config on random images and prints one JSON line. `swap` encodes an
appearance and a structure for every picture, as the FID protocol does; `repeated` encodes every
appearance once for --repeat pictures, as a large data set does; `files` writes JPEGs to a temporary
folder, which making a data set does at the same time as painting.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.generate.dataset import paint_rows
from dgnet_jax.generate.plan import plan_training_set
from dgnet_jax.generate.set_folder import SetFolder, csv_line
from dgnet_jax.inference import DGNet, TeacherModel
from dgnet_jax.models import build_networks
from dgnet_jax.models.initialization import init_parameters
from dgnet_jax.runtime.devices import place

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, with its variant.")
_BATCH = flags.DEFINE_integer("batch", None, "Images per call; evaluation.batch_size by default.")
_DTYPE = flags.DEFINE_string("dtype", None, "float32 or bfloat16; the config's by default.")
_IMAGES = flags.DEFINE_integer("images", 256, "Pictures per timed run.", lower_bound=1)
_RUNS = flags.DEFINE_integer("runs", 3, "Timed runs, after one that is not.", lower_bound=1)
_REPEAT = flags.DEFINE_integer("repeat", 10, "Pictures of each appearance.", lower_bound=1)
_IDENTITIES = 751


def main(_: list[str]) -> None:
    config = _CONFIG.value
    config.evaluation.batch_size = _BATCH.value or config.evaluation.batch_size
    config.dtype = _DTYPE.value or config.dtype
    placement = place()
    networks = build_networks(config, _IDENTITIES)
    init = partial(init_parameters, networks, config.data.height, config.data.width)
    generator, appearance, _ = placement.put_state(jax.jit(init)(jax.random.key(0)))
    model = DGNet(config, networks, generator, appearance, 0, "benchmark", placement)
    shape = (2, config.data.height, config.data.width, 3)
    variables = jax.jit(networks.teacher.init)(jax.random.key(0), jnp.zeros(shape))
    variables = placement.put_state(variables)
    teacher = TeacherModel(config, networks.teacher, variables, "benchmark", placement)

    rng = np.random.default_rng(0)
    count = _IMAGES.value
    size = (config.data.cache_height, config.data.cache_width)
    images = rng.integers(0, 256, (count, *size, 3), np.uint8)
    names = tuple(f"{index}.jpg" for index in range(count))
    split = CachedSplit(images, np.arange(1, count + 1), np.ones(count, int), names, names)
    plan = plan_training_set(split, 0, count * _REPEAT.value)
    rows = slice(0, count)
    lines = [csv_line(file, 1, 1, 0, "a.jpg", "b.jpg", 0) for file in plan.files[rows]]
    pictures = paint_rows(model, images, plan, rows)

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            files = SetFolder(Path(folder), lines, {"model": "benchmark"}, None, quality=75)
            files.prepare([0])
            files.write_block(0, pictures, None)

    swapped = images[rng.permutation(count)]
    rates = {
        "swap": _rate(lambda: model.swap(images, swapped)),
        "repeated": _rate(lambda: paint_rows(model, images, plan, rows)),
        "soft_labels": _rate(lambda: teacher.soft_labels(pictures)),
        "files": _rate(write),
    }
    device_memory = jax.devices()[0].memory_stats() or {}
    peak = device_memory.get("peak_bytes_in_use")
    result = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "image": [config.data.height, config.data.width],
        "images": count,
        "batch": model.batch_size,
        "dtype": config.dtype,
        "images_per_second": rates,
        "peak_memory_gib": round(peak / 2**30, 2) if peak else None,
        "peak_host_memory_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
        ),
    }
    print(json.dumps(result))


def _rate(task: Callable[[], object]) -> float:
    """Images a second: the median of several runs after one that compiles."""
    seconds = []
    for _ in range(_RUNS.value + 1):
        started = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - started)
    return round(_IMAGES.value / statistics.median(seconds[1:]), 1)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
