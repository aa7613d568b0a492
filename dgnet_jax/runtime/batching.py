"""Compiled functions over arrays on the host, a batch of one shape at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from dgnet_jax.errors import InputError


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
    return jax.tree.map(lambda array: _to_host(array)[:count], tree)


def _to_host(array: jax.Array) -> np.ndarray:
    if not (array.is_fully_addressable or array.is_fully_replicated):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
