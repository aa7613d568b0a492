"""The data sets by name."""

import difflib
import os
from collections.abc import Callable
from functools import partial

from dgnet_jax.data.readers import cuhk03, duke, market1501, msmt17
from dgnet_jax.data.readers.counts import Counts, warn_if_not_published
from dgnet_jax.data.readers.folders import read_folders
from dgnet_jax.data.readers.own import FOLDER, read_csv
from dgnet_jax.data.records.prepared import find_prepared, read_prepared
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.errors import InputError

READERS: dict[str, Callable[[str | os.PathLike[str]], ReidDataset]] = {
    "market1501": market1501.read_market1501,
    "duke": partial(read_folders, duke.DUKE),
    "msmt17": msmt17.read_msmt17,
    "cuhk03_detected": partial(read_folders, cuhk03.DETECTED),
    "cuhk03_labeled": partial(read_folders, cuhk03.LABELED),
    "folder": partial(read_folders, FOLDER),
    "csv": read_csv,
}

PUBLISHED: dict[str, Counts] = {
    "market1501": market1501.PUBLISHED,
    "duke": duke.PUBLISHED,
    "msmt17": msmt17.PUBLISHED,
    "cuhk03_detected": cuhk03.PUBLISHED_DETECTED,
    "cuhk03_labeled": cuhk03.PUBLISHED_LABELED,
}


def load_dataset(name: str, root: str | os.PathLike[str]) -> ReidDataset:
    """Lists a data set's files; one warning says if it is not as large as published.

    Args:
        name: a key of `READERS`.
        root: where it lies: what the reader accepts, or a folder or bucket with the data set as
            `python -m dgnet_jax.data.prepare` has stored it.

    Raises:
        InputError: unknown name, or nothing usable at the root.
    """
    check_name(name)
    prepared = find_prepared(name, root) if os.fspath(root) else None
    dataset = READERS[name](root) if prepared is None else read_prepared(name, prepared)
    if name in PUBLISHED:
        warn_if_not_published(dataset, PUBLISHED[name], os.fspath(root))
    return dataset


def check_name(name: str) -> None:
    """Raises InputError for a name that is not in `READERS`, with the nearest that is."""
    if name not in READERS:
        near = difflib.get_close_matches(name.lower(), READERS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"data.name: unknown data set {name!r}.{hint} Known: {', '.join(READERS)}."
        )
