"""The data set of a run."""

import os
from functools import partial
from pathlib import Path

import ml_collections
from absl import logging

from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.readers import cuhk03, duke, market1501
from dgnet_jax.data.readers.counts import warn_of_unmatched
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.records.prepared import find_prepared
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.paths import user_path

ENVIRONMENT = "DGNET_DATA"
"""The environment variable that names a folder of data sets."""

PLACES = ("data", "~/datasets")
"""Where data sets are looked for besides."""

# The released folders' names; their zips have the same names, or names that begin like them.
_FOLDERS = {
    "market1501": market1501.FOLDER_NAME,
    "duke": duke.DUKE.folder_name,
    "msmt17": "MSMT17",
    "cuhk03_detected": cuhk03.DETECTED.folder_name,
    "cuhk03_labeled": cuhk03.LABELED.folder_name,
}


def open_data(config: ml_collections.ConfigDict) -> ReidData:
    """The data set of `config.data`; "quickstart" is drawn first, if it is not there yet.

    Raises:
        InputError: from the reader, naming what is wrong.
    """
    settings = config.data
    dataset = list_data(config)
    cameras = settings.get("cameras", True)  # of runs that are older than the field
    return ReidData(dataset, settings.cache_height, settings.cache_width, cameras)


def list_data(config: ml_collections.ConfigDict) -> ReidDataset:
    """The files of `config.data`; no image is read.

    Without `config.data.root` a published data set is looked for with `find_root`. A warning counts
    the queries that ranking will find no match for.

    Raises:
        InputError: as `open_data`.
    """
    name, root = config.data.name, config.data.root
    if name == "quickstart":
        if not root:
            raise InputError("--config.data.root: a folder is needed to draw the data set in")
        on_first_process(partial(draw_dataset, root, **config.data.get("drawing", {})))
        # In Market-1501's form, but without its counts.
        name = "folder"
    root = root or find_root(name)
    dataset = load_dataset(name, root)
    warn_of_unmatched(dataset, root, config.data.get("cameras", True))
    return dataset


def find_root(name: str) -> str:
    """The place of a published data set whose root is not given.

    Looks into the folder that the environment variable DGNET_DATA names (or at the data set, if it
    names that), then into `data` and `~/datasets`, for the released folder's name, its zip, and
    what `python -m dgnet_jax.data.prepare` has made.

    Returns:
        A root for `load_dataset`; "" for one's own data, which have no usual name.

    Raises:
        InputError: it is in none of these places; says which, and what the data set is.
    """
    if name not in _FOLDERS:
        return ""
    given = os.environ.get(ENVIRONMENT, "")
    if given:
        place = user_path(given)
        if not place.exists():
            raise InputError(f"{ENVIRONMENT}={given}: does not exist. Name a folder of data sets")
        found = _inside(place, name) or place
        logging.info("data.root is empty: %s from %s=%s", name, ENVIRONMENT, found)
        return str(found)
    for place in map(user_path, PLACES):
        inside = _inside(place, name)
        if inside:
            logging.info("data.root is empty: found %s", inside)
            return str(inside)
    try:
        load_dataset(name, "")
    except InputError as error:
        looked = "\n".join(f"    {user_path(place).absolute()}" for place in PLACES)
        raise InputError(
            f"{error}\n\nWithout --config.data.root and the environment variable {ENVIRONMENT} (a "
            f"folder of data sets), {_FOLDERS[name]} or its zip was looked for in\n{looked}"
        ) from error
    raise AssertionError("a data set without a root")


def _inside(place: Path, name: str) -> Path | None:
    """The data set's folder or zip in a folder of several; the folder itself if prepared there."""
    folder = _FOLDERS[name]
    stem = folder.partition("-")[0].lower()
    try:
        entries = sorted(place.iterdir()) if place.is_dir() else []
    except OSError:
        return None
    for entry in entries:
        if entry.name.lower() in (folder.lower(), f"{folder.lower()}.zip"):
            return entry
    for entry in entries:
        lower = entry.name.lower()
        if lower.startswith((f"{stem}-", f"{stem}_")) or (
            lower.startswith(stem) and lower.endswith(".zip")
        ):
            return entry
    return place if find_prepared(name, place) else None
