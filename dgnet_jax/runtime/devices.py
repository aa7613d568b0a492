"""Devices and processes: data parallelism, work of the first process, the compilation cache.

A step is compiled by `jit` over a mesh of all devices, the state replicated and the batch sharded
on its first axis; or by `pmap` over the same devices. BUILD.md says how they differ.
"""

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dgnet_jax.errors import DiskFullError, InputError, disk_full

T = TypeVar("T")
AXIS = "data"
# Fewer images a device train badly under pmap (BUILD.md).
_FEW_IMAGES = 4
Step = Callable[..., Any]
# A device's part of an array, as jax describes it.
Index = tuple[slice, ...] | None
# Bytes; a shorter message is filled up, so that few lengths are compiled.
_SHORTEST_MESSAGE = 1024


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

    def abstract_batch(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """The shape and type of an array of a batch, as `trace_step` takes it.

        Args:
            shape: of the global array, rows first.
        """
        if self.parallel == "mesh":
            return jax.ShapeDtypeStruct(shape, dtype, sharding=self.sharded)
        # pmap traces one process's part.
        lead = self.mesh.local_mesh.size, shape[0] // self.mesh.size
        return jax.ShapeDtypeStruct((*lead, *shape[1:]), dtype)

    def trace_step(self, step: Step, arguments: Sequence[Any]) -> None:
        """Traces a step of `compile_step` with `abstract` arguments, and compiles nothing.

        jax keeps the trace for the step itself, but for that of several processes under pmap.
        """
        if self.parallel == "pmap" and self.mesh.is_multi_process:
            # What `_global_outputs` does needs the arrays themselves.
            step = step.__wrapped__  # type: ignore[attr-defined]
        jax.eval_shape(step, *arguments)

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
        """A function that makes arrays, compiled so that they are made on all devices.

        It runs once: on a CPU it is compiled fast rather than to a fast program.
        """
        on_a_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_a_cpu else None
        return jax.jit(function, out_shardings=self.replicated, compiler_options=options)

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

        @wraps(mapped)
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


def join_processes(
    coordinator: str | None, processes: int | None, index: int | None, timeout: int
) -> None:
    """Makes this one of several processes; comes before anything that touches a device.

    Args:
        coordinator: host:port of process 0. None, here as below, takes what the cluster says.
        processes: their number.
        index: of this one.
        timeout: seconds to wait for process 0, and as many for all to be there.

    Raises:
        InputError: process 0 does not answer, or a setting is missing or wrong. If process 0
            answers but not all processes come in time, jax itself ends the process.
    """
    if coordinator is not None:
        host, port = _address(coordinator)
        if index:
            # jax ends the process on its own, with a page about its insides.
            _wait_for_coordinator(host, port, timeout)
    try:
        jax.distributed.initialize(coordinator, processes, index, initialization_timeout=timeout)
    except ValueError as error:
        raise InputError(
            f"--distributed: {error} Give --coordinator_address, --num_processes and --process_id, "
            "unless a cluster gives them (Slurm, a TPU pod, MPI)"
        ) from error


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(
            f"--coordinator_address={coordinator}: give host:port, such as 10.0.0.1:12355"
        )
    return host.strip("[]"), int(port)


def _wait_for_coordinator(host: str, port: int, timeout: float) -> None:
    """Returns as soon as something listens there; raises InputError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            socket.create_connection((host, port), max(left, 0.1)).close()
            return
        except OSError as error:
            if time.monotonic() + 1 >= deadline:
                raise InputError(
                    f"--coordinator_address={host}:{port}: process 0 could not be reached in "
                    f"{timeout} s ({error.strerror or error}). Start it, check address, port and "
                    "firewall, or wait longer with --initialization_timeout"
                ) from error
        time.sleep(1)


def on_first_process(work: Callable[[], T]) -> T:
    """What `work()` returns in process 0, where alone it runs, in every process.

    Each process has to call it. It is for what depends on, or changes, files: all processes go the
    same way then, and none waits for one that has met an error.

    Args:
        work: returns something that pickle can hold.

    Raises:
        InputError, DiskFullError: the same one in every process, if `work` raises it.
        DiskFullError: in the other processes, if another error of `work` came from a full disk.
        RuntimeError: in the other processes, if `work` raises any other error.
    """
    if jax.process_count() == 1:
        return work()
    # Result, error, and the full disk that the error came from.
    outcome: tuple[Any, Exception | None, DiskFullError | None] = None, None, None
    error: Exception | None = None
    message = b""
    if jax.process_index() == 0:
        try:
            outcome = work(), None, None
            message = pickle.dumps(outcome)
        except Exception as found:
            error = found
            full = disk_full(found)
            known = found
            if not isinstance(found, InputError):
                text = f"the first process met {type(found).__name__}: {found}"
                known = full or RuntimeError(text)
            message = pickle.dumps((None, known, full))
    message = _broadcast(message)
    if error is not None:
        raise error
    if jax.process_index() != 0:
        outcome = pickle.loads(message)
    result, first_error, full = outcome
    if first_error is not None:
        raise first_error from (None if first_error is full else full)
    return result


def _broadcast(message: bytes) -> bytes:
    """Process 0's message, in every process."""
    length = from_first_process(len(message))
    row = np.zeros(max(_SHORTEST_MESSAGE, 1 << (length - 1).bit_length()), np.uint8)
    row[: len(message)] = np.frombuffer(message, np.uint8)
    return multihost_utils.broadcast_one_to_all(row)[:length].tobytes()


def from_first_process(value: int) -> int:
    """Process 0's `value`, in every process; each has to call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def to_host(tree: Any) -> Any:
    """Replicated device arrays as NumPy, in one transfer."""
    return jax.device_get(tree)


def map_batches(
    function: Callable[..., Any],
    *arrays: np.ndarray,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Iterator[Any]:
    """Yields function(*rows) for consecutive rows of the arrays, as NumPy.

    Every batch has the same shape, so that `function` is compiled once: the last one is filled up
    with zeros, whose results are cut off. A batch is dispatched before the results of the one
    before are fetched, so the device does not wait for the host.

    Args:
        function: jitted; (batch_size, ...) arrays to a tree of (batch_size, ...) arrays. What it
            computes for one row must not depend on the others.
        arrays: of equal length, at least 1, on the host; the same in every process.
        batch_size: rows per call over all devices.
        sharding: how a batch lies on the devices; one device if None. May span processes.

    Raises:
        InputError: the batch size is below 1 or cannot be sharded so.
    """
    count = len(arrays[0])
    if any(len(array) != count for array in arrays):
        raise ValueError(f"arrays of unequal lengths: {[len(array) for array in arrays]}")
    _check_batch_size(batch_size, arrays[0].shape[1:], sharding)
    waiting: tuple[Any, int] | None = None
    for start in range(0, count, batch_size):
        rows = [_padded(array[start : start + batch_size], batch_size) for array in arrays]
        dispatched = function(*(_to_device(row, sharding) for row in rows))
        if waiting is not None:
            yield _fetch(*waiting)
        waiting = dispatched, min(batch_size, count - start)
    if waiting is not None:
        yield _fetch(*waiting)


def run_batches(
    function: Callable[..., jax.Array],
    *arrays: np.ndarray,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> np.ndarray:
    """All rows that `map_batches` yields, as one array."""
    return np.concatenate(
        list(map_batches(function, *arrays, batch_size=batch_size, sharding=sharding))
    )


def _padded(rows: np.ndarray, batch_size: int) -> np.ndarray:
    missing = batch_size - len(rows)
    if not missing:
        return rows
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def _check_batch_size(
    batch_size: int, row_shape: tuple[int, ...], sharding: jax.sharding.Sharding | None
) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size: found {batch_size}. Give 1 or more.")
    if sharding is None:
        return
    try:
        sharding.shard_shape((batch_size, *row_shape))
    except ValueError as error:
        raise InputError(
            f"batch_size: {batch_size} images do not divide over {sharding.num_devices} devices."
            " Give a multiple of the number of devices."
        ) from error


def _to_device(batch: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None:
        return jnp.asarray(batch)
    # Each process holds the whole batch and hands over the rows of its own devices.
    return jax.make_array_from_callback(batch.shape, sharding, lambda index: batch[index])


def _fetch(tree: Any, count: int) -> Any:
    return jax.tree.map(lambda array: _gathered(array)[:count], tree)


def _gathered(array: jax.Array) -> np.ndarray:
    if not (array.is_fully_addressable or array.is_fully_replicated):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _cache_folder() -> str | None:
    return getattr(jax.config, "jax_compilation_cache_dir", None)


def use_compilation_cache() -> None:
    """Turns the cache on, in JAX_COMPILATION_CACHE_DIR or ~/.cache/dgnet_jax/xla.

    XDG_CACHE_HOME takes the place of ~/.cache.
    An empty JAX_COMPILATION_CACHE_DIR turns it off. A folder set through `jax.config` stays. What
    is kept in it is jax's to say, and its variables' (JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS,
    by default 1).
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or _cache_folder():
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(base / "dgnet_jax" / "xla"))
