"""Training steps on eight simulated devices, beside the same on one with split batch norms.

`python tests/spread_steps.py OUT.npz` is a process of its own: jax's number of devices is fixed
when it starts. OUT holds arrays named "case/form/path" with, for each case of `CASES`, the forms
"mesh" and "pmap", on the eight devices, and "by hand", on one. Cases of 64-bit numbers need
JAX_ENABLE_X64=1.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny import IDENTITIES, tiny_config, tiny_state, tiny_teacher

from dgnet_jax.models import build_networks, reid, resnet
from dgnet_jax.parallel import place
from dgnet_jax.shared import make_train_step, seed_key
from dgnet_jax.state import make_optimizers
from dgnet_jax.teacher import TeacherState, make_optimizer, make_step
from dgnet_jax.train_step import EVERY_TERM

DEVICES = 8
BATCH = 16
# Every ramped term acts.
STEP = 5
FIELDS = {"dtype": "float64", "batch_size": BATCH, "teacher.batch_size": BATCH}
# Fields of a step of DG-Net; None: a step of the teacher. Augmentation, erasing and dropout are on.
CASES: dict[str, dict[str, Any] | None] = {
    "published": {},
    "running statistics, gradient through the codes": {
        "appearance.train_bn": False,
        "appearance.cut_gradient": False,
    },
    "teacher": None,
}
Arrays = dict[str, np.ndarray]


class SplitBatchNorm(nn.Module):
    """`GroupedBatchNorm` as eight devices have it, each by its own eighth of the batch."""

    use_running_average: bool
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if self.use_running_average:
            deviation = jnp.sqrt(running_variance.value + 1e-5)
            return (x - running_mean.value) / deviation * scale + bias
        shares = x.reshape(DEVICES, -1, self.groups, *x.shape[1:])
        axes = (1, *range(3, shares.ndim - 1))
        mean, variance = shares.mean(axes, keepdims=True), shares.var(axes, keepdims=True)
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            means, variances = shares.mean(axes), shares.var(axes, ddof=1)
            for running, found in ((running_mean, means), (running_variance, variances)):
                for of_group in found.mean(0):
                    running.value = 0.9 * running.value + 0.1 * of_group
        return ((shares - mean) / jnp.sqrt(variance + 1e-5) * scale + bias).reshape(x.shape)


@contextmanager
def split_batch_norms() -> Iterator[None]:
    """All batch norms are `SplitBatchNorm`."""
    whole = resnet.GroupedBatchNorm
    resnet.GroupedBatchNorm = reid.GroupedBatchNorm = SplitBatchNorm
    try:
        yield
    finally:
        resnet.GroupedBatchNorm = reid.GroupedBatchNorm = whole


def wide(tree: Any) -> Any:
    """Floats as float64, on the host."""

    def widened(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array

    return jax.tree.map(widened, tree)


def named(tree: Any) -> Arrays:
    """The leaves of a tree by their paths."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def spread(
    parallel: str, make: Callable[..., Any], state: Any, batch: Any, others: tuple[Any, ...]
) -> tuple[Any, Any]:
    """One step as the trainer compiles it; it takes the state, (the teacher), the batch, others."""
    placement = place(parallel)
    assert placement.mesh.size == DEVICES
    *before, after = others
    given = placement.put_state((state, *before))
    rows = placement.put_batch(BATCH, lambda rows: jax.tree.map(lambda leaf: leaf[rows], batch))
    arguments = (*given, rows, *placement.put_state(after))
    step = placement.compile_step(make, len(arguments), len(given))
    found = step(*arguments)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given[0])), "the state is donated"
    for name, leaf in jax.tree_util.tree_flatten_with_path(found)[0]:
        first, *rest = (np.asarray(part.data) for part in leaf.addressable_shards)
        assert len(rest) == DEVICES - 1
        assert all(np.array_equal(first, other) for other in rest), f"{name} differs by device"
    return found


def run_case(fields: dict[str, Any] | None) -> dict[str, Arrays]:
    """The step's new state and losses in each form."""
    rng = np.random.default_rng(0)
    config = tiny_config({**FIELDS, **(fields or {})})
    networks = build_networks(config, IDENTITIES)
    if fields is None:
        optimizer: optax.GradientTransformation = make_optimizer(config)
        variables = wide(tiny_teacher(networks))
        state: Any = TeacherState(
            step=np.int32(STEP),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            optimizer=wide(optimizer.init(variables["params"])),
        )
        make: Callable[..., Any] = partial(make_step, config, networks.teacher, optimizer)
        lead: tuple[int, ...] = (BATCH,)
        others: tuple[Any, ...] = ((),)
    else:
        optimizers = make_optimizers(config)
        state = wide(tiny_state(networks, optimizers, STEP))
        make = partial(make_train_step, config, networks, optimizers, EVERY_TERM)
        lead = (BATCH, 4)
        others = (wide(tiny_teacher(networks)), (seed_key(config),))
    batch = {
        "images": rng.integers(0, 256, (*lead, 32, 16, 3), np.uint8),
        "labels": rng.integers(0, IDENTITIES, (BATCH, 2) if len(lead) > 1 else BATCH, np.int32),
    }
    found = {name: spread(name, make, state, batch, others) for name in ("mesh", "pmap")}
    with split_batch_norms():
        *before, after = others
        found["by hand"] = jax.jit(make(None))(state, *before, batch, *after)
    return {name: named({"state": new, "losses": losses}) for name, (new, losses) in found.items()}


def main(out: Path) -> None:
    arrays = {
        f"{case}/{form}/{path}": array
        for case, fields in CASES.items()
        for form, tree in run_case(fields).items()
        for path, array in tree.items()
    }
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
