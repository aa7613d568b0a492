"""Data parallelism: where the state and the batch live, and how a step is compiled for that.

`jit` over a mesh of all devices, the state replicated and the batch sharded on its first axis; or
`pmap` over the same devices. BUILD.md says how they differ.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dgnet_jax.errors import InputError

AXIS = "data"
# Fewer images a device train badly under pmap (BUILD.md).
_FEW_IMAGES = 4
Step = Callable[..., Any]
# A device's part of an array, as jax describes it.
Index = tuple[slice, ...] | None


def _start(index: Index, size: int) -> int:
    """The first row of a device's part of an axis of `size` rows."""
    return index[0].indices(size)[0] if index else 0


class Placement(NamedTuple):
    """The mesh ('data',) over all devices, the two shardings in use, and the form of the step."""

    mesh: Mesh
    replicated: NamedSharding
    sharded: NamedSharding
    parallel: Literal["mesh", "pmap"] = "mesh"

    def check_batch(self, field: str, batch_size: int) -> None:
        """Raises InputError unless `batch_size` divides over the devices, and can be normalised.

        Warns of shares that `pmap` normalises badly.
        """
        if batch_size < 1 or batch_size % self.mesh.size:
            raise InputError(
                f"--config.{field}: a batch of {batch_size} does not divide over "
                f"{self.mesh.size} devices; use a multiple of {self.mesh.size}"
            )
        if batch_size == 1:
            raise InputError(
                f"--config.{field}: one image has no variance to normalise it with; use 2 or more"
            )
        if self.parallel == "pmap" and batch_size == self.mesh.size:
            raise InputError(
                f"--config.{field}: with --config.parallel=pmap a device normalises its own images,"
                f" and one image has no variance; use {2 * self.mesh.size} or more on "
                f"{self.mesh.size} devices, or --config.parallel=mesh"
            )
        share = batch_size // self.mesh.size
        if self.parallel == "pmap" and self.mesh.size > 1 and share < _FEW_IMAGES:
            logging.warning(
                "--config.%s: with --config.parallel=pmap a device normalises its own images, and "
                "has %d; the identities were hardly learnt from batch norms of 2 (BUILD.md). Use "
                "%d or more on %d devices, or --config.parallel=mesh",
                field,
                share,
                _FEW_IMAGES * self.mesh.size,
                self.mesh.size,
            )

    def round_up(self, field: str, batch_size: int) -> int:
        """`batch_size` or the next multiple of the devices; InputError if it is below 1."""
        if batch_size < 1:
            raise InputError(f"--config.{field}: found {batch_size}. Give 1 or more.")
        return -(-batch_size // self.mesh.size) * self.mesh.size

    def put_state(self, tree: Any) -> Any:
        """Replicates arrays, which every process has, on all devices; none goes between hosts."""

        def put(leaf: Any) -> jax.Array:
            if isinstance(leaf, jax.Array) and leaf.sharding == self.replicated:
                return leaf
            if self.mesh.is_multi_process:
                host = np.asarray(leaf)
                return jax.make_array_from_callback(
                    host.shape, self.replicated, lambda index: host[index]
                )
            return jax.device_put(leaf, self.replicated)

        return jax.tree.map(put, tree)

    def abstract(self, tree: Any) -> Any:
        """The shapes and types of a tree of arrays, replicated over the devices."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated),
            tree,
        )

    def put_batch(self, size: int, gather: Callable[[slice], Any]) -> Any:
        """A global batch for `compile_step`, each row on the device that the sharding gives it to.

        Args:
            size: rows over all devices, a multiple of their number.
            gather: a slice of the batch's rows to a tree of host arrays with these rows; it is
                asked for the rows of this process's devices only.
        """
        places = self.sharded.addressable_devices_indices_map((size,)).values()
        starts = {_start(index, size) for index in places}
        share = size // self.mesh.size
        parts = {start: gather(slice(start, start + share)) for start in sorted(starts)}
        # pmap has a leading axis of devices.
        mapped = self.parallel == "pmap"
        lead = (self.mesh.size, share) if mapped else (size,)

        def put(*leaves: np.ndarray) -> jax.Array:
            of = dict(zip(parts, leaves, strict=True))

            def part(index: Index) -> np.ndarray:
                start = _start(index, lead[0])
                return of[start * share][None] if mapped else of[start]

            shape = (*lead, *leaves[0].shape[1:])
            return jax.make_array_from_callback(shape, self.sharded, part)

        return jax.tree.map(put, *parts.values())

    def compile_init(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that makes arrays, compiled so that they are made on all devices."""
        return jax.jit(function, out_shardings=self.replicated)

    def compile_step(
        self, make_step: Callable[[str | None], Step], arguments: int, batch_argument: int
    ) -> Step:
        """A step (state, ...) -> (state, losses), compiled for all devices; the state is donated.

        Args:
            make_step: the name of the mapped axis, or None, to the pure step.
            arguments: how many it takes; all but the batch are replicated.
            batch_argument: which of them is the batch, as `put_batch` makes it.
        """
        if self.parallel == "mesh":
            shardings = [self.replicated] * arguments
            shardings[batch_argument] = self.sharded
            return jax.jit(
                make_step(None),
                in_shardings=tuple(shardings),
                out_shardings=self.replicated,
                donate_argnums=0,
            )
        axes: list[int | None] = [None] * arguments
        axes[batch_argument] = 0
        mapped = jax.pmap(
            make_step(AXIS),
            axis_name=AXIS,
            in_axes=tuple(axes),
            out_axes=None,
            devices=list(self.mesh.devices.flat),
            donate_argnums=0,
        )
        return self._global_outputs(mapped) if self.mesh.is_multi_process else mapped

    def _global_outputs(self, mapped: Step) -> Step:
        """A pmapped step whose outputs are arrays over the devices of all processes.

        Of several processes, pmap takes such arrays as they are, but each gets back arrays over
        its own devices alone. The buffers stay the same.
        """

        def whole(leaf: jax.Array) -> jax.Array:
            return jax.make_array_from_single_device_arrays(
                leaf.shape, self.replicated, [part.data for part in leaf.addressable_shards]
            )

        def step(*arguments: Any) -> Any:
            return jax.tree.map(whole, mapped(*arguments))

        return step


def place(parallel: str = "mesh") -> Placement:
    """A placement over all devices of all processes.

    Raises:
        InputError: `parallel` is neither "mesh" nor "pmap".
    """
    if parallel not in ("mesh", "pmap"):
        raise InputError(f"--config.parallel: {parallel!r} is neither 'mesh' nor 'pmap'")
    # Auto axes: with the default of make_mesh (Explicit), indexing and reshaping would fail.
    auto = (AxisType.Auto,)
    if parallel == "pmap":
        # pmap wants a process's devices side by side; make_mesh follows the wires of a TPU pod.
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        mesh = Mesh(np.array(devices), (AXIS,), axis_types=auto)
    else:
        mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=auto)
    return Placement(
        mesh,
        NamedSharding(mesh, PartitionSpec()),
        NamedSharding(mesh, PartitionSpec(AXIS)),
        parallel,  # type: ignore[arg-type]
    )


def from_first_process(value: int) -> int:
    """Process 0's `value`, in every process; each has to call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def to_host(tree: Any) -> Any:
    """Replicated device arrays as NumPy, in one transfer."""
    return jax.device_get(tree)
