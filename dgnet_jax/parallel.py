"""One-dimensional data parallelism: where the state and the batch live.

`jit` over a mesh of all devices, the state replicated and the batch sharded on its first axis.
BUILD.md says why this and not `pmap`.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dgnet_jax.errors import InputError


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


def from_first_process(value: int) -> int:
    """Process 0's `value`, in every process; each has to call it."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def to_host(tree: Any) -> Any:
    """Replicated device arrays as NumPy."""
    return jax.tree.map(np.asarray, tree)
