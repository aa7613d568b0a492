"""Identities and cameras of any integer types, compared as integers.

NumPy puts int64 and uint64 together as float64, in which neighbours beyond 2^53 are equal.
"""

import numbers

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike

from dgnet_jax.errors import InputError


def integers(values: ArrayLike, name: str) -> np.ndarray:
    """An array of integers: of NumPy's types, or of Python's (object) where none of these fits all.

    Raises:
        InputError: something else; names the argument `name`.
    """
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        exact = np.asarray(values, object)
        if not all(map(_is_integer, exact.flat)):
            raise InputError(f"{name}: found {array.dtype}. Give integers.")
        return exact
    return array


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def comparable(*labels: np.ndarray) -> tuple[Int64[np.ndarray, " _items"], ...]:
    """Numbers that are equal, and ordered, as the integers of all given arrays are.

    Args:
        labels: (items,) each, of any integer types, also different ones, or from `integers`.

    Returns:
        One array for each: the integers themselves, or consecutive numbers from 0 if some do not
        fit into int64.
    """
    limits = np.iinfo(np.int64)
    if all(not a.size or (limits.min <= a.min() and a.max() <= limits.max) for a in labels):
        return tuple(array.astype(np.int64, copy=False) for array in labels)
    everything = np.concatenate([array.astype(object) for array in labels])
    _, codes = np.unique(everything, return_inverse=True)
    return tuple(np.split(codes, np.cumsum([len(array) for array in labels[:-1]])))
