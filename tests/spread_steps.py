"""Training steps on eight simulated devices, beside the same on one with split batch norms.

`python tests/spread_steps.py OUT.npz` is a process of its own: the number of devices is fixed when
jax starts. It needs JAX_ENABLE_X64=1. OUT holds arrays named "case/form/path": the new state and
the losses of each of `CASES` in the forms "pmap" and, for the teacher, "mesh" on the devices, "by
hand" on one, and, for the teacher, "one device" without that splitting.
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tiny import IDENTITIES, tiny_config, tiny_state, tiny_teacher

from dgnet_jax.models import build_networks, reid, resnet
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.session import make_train_step, run_inputs
from dgnet_jax.training.state import make_optimizers
from dgnet_jax.training.teacher import TeacherState, make_optimizer, make_step
from dgnet_jax.training.train_step import EVERY_TERM, ActiveTerms

DEVICES = 8
BATCH = 16
# Every ramped term acts.
STEP = 5
FIELDS = {
    "dtype": "float64",
    "batch_size": BATCH,
    "teacher.batch_size": BATCH,
    # Layers without batch norms, which only take time to compile.
    "structure_encoder.num_residual": 0,
    "structure_encoder.dilations": (1,),
    "discriminator.num_residual": 0,
}
PUBLISHED, RUNNING, TEACHER = "published", "running statistics", "teacher"
CASES = (PUBLISHED, RUNNING, TEACHER)
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
    resnet.GroupedBatchNorm = reid.GroupedBatchNorm = SplitBatchNorm  # type: ignore[misc]
    try:
        yield
    finally:
        resnet.GroupedBatchNorm = reid.GroupedBatchNorm = whole  # type: ignore[misc]


class Case(NamedTuple):
    """A step: `make(axis)` to the pure function of (state, *others, batch, *last)."""

    make: Callable[[str | None], Callable[..., Any]]
    state: Any
    others: tuple[Any, ...]
    batch: Any
    last: tuple[Any, ...]


def wide(tree: Any) -> Any:
    """Floats as float64, on the host."""

    def widened(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array

    return jax.tree.map(widened, tree)


def draw_batch(axes: tuple[int, ...], labels: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Images with these leading axes, and labels."""
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (*axes, 32, 16, 3), np.uint8),
        "labels": rng.integers(0, IDENTITIES, labels, np.int32),
    }


def make_case(name: str) -> Case:
    """Augmentation, erasing and dropout are on in each."""
    fields = {"appearance.train_bn": False} if name == RUNNING else {}
    config = tiny_config({**FIELDS, **fields})
    networks = build_networks(config, IDENTITIES)
    teacher = wide(tiny_teacher(networks))
    if name == TEACHER:
        optimizer = make_optimizer(config)
        state = TeacherState(np.int32(STEP), **teacher, optimizer=optimizer.init(teacher["params"]))
        make = partial(make_step, config, networks.teacher, optimizer)
        return Case(make, wide(state), (), draw_batch((BATCH,), (BATCH,)), ())
    optimizers = make_optimizers(config)
    # The program before the ramps compiles in half the time, and has what this case is about.
    active = ActiveTerms(False, False) if name == RUNNING else EVERY_TERM
    return Case(
        partial(make_train_step, config, networks, optimizers, active),
        wide(tiny_state(networks, optimizers, STEP)),
        (teacher,),
        draw_batch((BATCH, 4), (BATCH, 2)),
        (run_inputs(config),),
    )


def spread(parallel: str, case: Case) -> Any:
    """One step on all devices, as the trainer compiles and calls it: (new state, losses)."""
    placement = place(parallel)
    assert placement.mesh.size == DEVICES
    state, others, last = placement.put_state((case.state, case.others, case.last))
    batch = placement.put_batch(BATCH, lambda rows: jax.tree.map(lambda x: x[rows], case.batch))
    arguments = (state, *others, batch, *last)
    found = placement.compile_step(case.make, len(arguments), 1 + len(others))(*arguments)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state)), "the state is donated"
    for path, leaf in jax.tree_util.tree_flatten_with_path(found)[0]:
        first, *rest = (np.asarray(part.data) for part in leaf.addressable_shards)
        assert leaf.sharding == placement.replicated and len(rest) == DEVICES - 1, path
        assert all(np.array_equal(first, other) for other in rest), f"devices differ in {path}"
    return found


def run_case(name: str) -> dict[str, Arrays]:
    """The new state and the losses in each form, by their paths."""
    case = make_case(name)
    arguments = (case.state, *case.others, case.batch, *case.last)
    with split_batch_norms():
        lowered = jax.jit(case.make(None)).lower(*arguments)
    forms = ("mesh", "pmap") if name == TEACHER else ("pmap",)
    with ThreadPoolExecutor(1) as pool:
        compiled = pool.submit(lowered.compile)
        found = {form: spread(form, case) for form in forms}
    found["by hand"] = compiled.result()(*arguments)
    if name == TEACHER:
        found["one device"] = jax.jit(case.make(None))(*arguments)
    return {
        form: {
            jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(both)[0]
        }
        for form, both in found.items()
    }


def main(out: Path) -> None:
    np.savez(
        out,
        **{
            f"{name}/{form}/{path}": array
            for name in CASES
            for form, arrays in run_case(name).items()
            for path, array in arrays.items()
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
