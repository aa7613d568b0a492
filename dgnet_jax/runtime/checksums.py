"""CRC-32 of the arrays of a state, to find bytes that changed on a disk."""

import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

# zlib lets other threads run meanwhile; more than these wait for the memory.
_THREADS = min(8, os.cpu_count() or 1)


def checksums(leaves: Mapping[str, Any]) -> dict[str, str]:
    """`zlib.crc32` of each array's bytes in C order, as 8 hexadecimal digits.

    An array that is spread over several processes, so that this one does not see it whole, is left
    out. A state of this package is replicated: every process has all of it.

    Args:
        leaves: arrays and plain numbers by name.
    """
    whole = {name: leaf for name, leaf in leaves.items() if _is_whole(leaf)}
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(whole, pool.map(_crc32, whole.values()), strict=True))


def changed(leaves: Mapping[str, Any], recorded: Mapping[str, str]) -> list[str]:
    """The names of the arrays whose checksum is not the recorded one; others have none to check."""
    known = {name: leaf for name, leaf in leaves.items() if name in recorded}
    return [name for name, found in checksums(known).items() if found != recorded[name]]


def _is_whole(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array):
        return True
    return leaf.is_fully_replicated or leaf.is_fully_addressable


def _crc32(leaf: Any) -> str:
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    array = np.ascontiguousarray(leaf)
    return f"{zlib.crc32(array.reshape(-1).view(np.uint8).data):08x}"
