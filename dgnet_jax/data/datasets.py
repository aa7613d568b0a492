"""The data sets by name."""

import difflib
import os
from collections.abc import Callable

from dgnet_jax.data.market1501 import read_market1501
from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.errors import InputError

__all__ = ["READERS", "ReidDataset", "Split", "load_dataset"]

READERS: dict[str, Callable[[str | os.PathLike[str]], ReidDataset]] = {
    "market1501": read_market1501,
}


def load_dataset(name: str, root: str | os.PathLike[str]) -> ReidDataset:
    """Lists a data set's files.

    Args:
        name: a key of `READERS`.
        root: where it lies; what is accepted is the reader's business.

    Raises:
        InputError: unknown name, or nothing usable at the root.
    """
    if name not in READERS:
        near = difflib.get_close_matches(name.lower(), READERS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"data.name: unknown data set {name!r}.{hint} Known: {', '.join(READERS)}."
        )
    return READERS[name](root)
