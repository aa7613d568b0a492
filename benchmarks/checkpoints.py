"""What the checksums of a checkpoint cost: seconds of saving and restoring, with and without.

    python -m benchmarks.checkpoints --config=configs/market.py:l1_rmse --repeats=3

fills the state of a config's DG-Net with random numbers, saves and restores it several times, and
prints one JSON line with the medians. `save` is how long the training waits, `commit` how long the
checkpoint takes to be complete in all, `restore` how long a start waits.
"""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from dgnet_jax.models import build_networks
from dgnet_jax.runtime import checkpoints as module
from dgnet_jax.runtime.checkpoints import Checkpoints
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.state import blank_state, make_optimizers

_CONFIG = config_flags.DEFINE_config_file("config")
_REPEATS = flags.DEFINE_integer("repeats", 3, "How often each is measured.")
_IDENTITIES = 751  # Market-1501's


def random_state(config: Any) -> Any:
    """The state of a config's DG-Net, of random bits, which do not compress."""
    networks = build_networks(config, _IDENTITIES)
    shapes = jax.eval_shape(
        partial(blank_state, config, networks, make_optimizers(config)), jax.random.key(0)
    )
    source, placement = np.random.default_rng(0), place()

    def fill(leaf: jax.ShapeDtypeStruct) -> Any:
        numbers = source.standard_normal(leaf.shape) * 100
        return placement.put_state(numbers.astype(leaf.dtype))

    return jax.tree.map(fill, shapes)


@contextlib.contextmanager
def without_checksums() -> Iterator[None]:
    """As if there were none: none is written, none compared."""
    with mock.patch.multiple(module, checksums=lambda _: {}, changed=lambda *_: []):
        yield


def measure(state: Any) -> dict[str, float]:
    """Seconds of one save, of its completion, and of one restoration."""
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        start = time.perf_counter()
        checkpoints.save(1, state)
        saved = time.perf_counter()
        checkpoints.wait()
        complete = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(state))
        restored = time.perf_counter()
    return {"save": saved - start, "commit": complete - start, "restore": restored - complete}


def main(_: list[str]) -> None:
    state = random_state(_CONFIG.value)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    found: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "arrays": len(jax.tree.leaves(state)),
        "megabytes": round(size / 1e6, 1),
    }
    measure(state)  # the first touches everything for the first time
    rows: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    for _repeat in range(_REPEATS.value):
        rows["with"].append(measure(state))
        with without_checksums():
            rows["without"].append(measure(state))
    for name, measured in rows.items():
        found[name] = {
            kind: round(statistics.median(row[kind] for row in measured), 3) for kind in measured[0]
        }
    print(json.dumps(found))


if __name__ == "__main__":
    app.run(main)
