"""One-dimensional data parallelism: where the state and the batch live.

`jit` over a mesh of all devices, the state replicated and the batch sharded on its first axis.
BUILD.md says why this and not `pmap`.
"""

import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dgnet_jax.errors import InputError

T = TypeVar("T")
# Bytes; a shorter message is filled up, so that few lengths are compiled.
_SHORTEST_MESSAGE = 1024


class Placement(NamedTuple):
    """The mesh ('data',) over all devices, and the two shardings in use."""

    mesh: Mesh
    replicated: NamedSharding
    sharded: NamedSharding

    def check_batch(self, field: str, batch_size: int) -> None:
        """Raises InputError unless `batch_size` divides over the devices."""
        if batch_size < 1 or batch_size % self.mesh.size:
            raise InputError(
                f"--config.{field}: a batch of {batch_size} does not divide over "
                f"{self.mesh.size} devices; use a multiple of {self.mesh.size}"
            )

    def round_up(self, field: str, batch_size: int) -> int:
        """`batch_size` or the next multiple of the devices; InputError if it is below 1."""
        if batch_size < 1:
            raise InputError(f"--config.{field}: found {batch_size}. Give 1 or more.")
        return -(-batch_size // self.mesh.size) * self.mesh.size

    def put_state(self, tree: Any) -> Any:
        """Replicates host or device arrays on all devices."""
        if jax.process_count() > 1:
            # Of an array on the only device of a process, jax 0.10 makes one that cannot be saved.
            tree = to_host(tree)
        return jax.device_put(tree, self.replicated)

    def put_batch(self, tree: Any) -> Any:
        """This process's rows of a batch to a global array, sharded on the first axis."""
        return jax.tree.map(
            lambda rows: jax.make_array_from_process_local_data(self.sharded, rows), tree
        )


def place() -> Placement:
    """A placement over all devices of all processes."""
    # Auto axes: with the default of make_mesh (Explicit), indexing and reshaping would fail.
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    return Placement(
        mesh, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    )


def join_processes(
    coordinator: str | None, processes: int | None, index: int | None, timeout: int
) -> None:
    """Makes this one of several processes; comes before anything that touches a device.

    Args:
        coordinator: host:port of process 0. None, here as below, leaves it to the cluster to tell.
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
            "unless a cluster tells them (Slurm, a TPU pod, MPI)"
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
        InputError: the same one in every process, if `work` raises it.
        RuntimeError: in the other processes, if `work` raises any other error.
    """
    if jax.process_count() == 1:
        return work()
    outcome: tuple[Any, Exception | None] = None, None
    error: Exception | None = None
    message = b""
    if jax.process_index() == 0:
        try:
            outcome = work(), None
            message = pickle.dumps(outcome)
        except Exception as found:
            error = found
            told = found
            if not isinstance(found, InputError):
                told = RuntimeError(f"the first process met {type(found).__name__}: {found}")
            message = pickle.dumps((None, told))
    message = _broadcast(message)
    if error is not None:
        raise error
    if jax.process_index() != 0:
        outcome = pickle.loads(message)
    result, told_error = outcome
    if told_error is not None:
        raise told_error
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
    """Replicated device arrays as NumPy."""
    return jax.tree.map(np.asarray, tree)
