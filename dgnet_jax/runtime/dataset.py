"""The data set of a run."""

from functools import partial

import ml_collections

from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.devices import on_first_process


def open_data(config: ml_collections.ConfigDict) -> ReidData:
    """The data set of `config.data`; "quickstart" is drawn first, if it is not there yet.

    Raises:
        InputError: from the reader, naming what is wrong.
    """
    name = config.data.name
    if name == "quickstart":
        if not config.data.root:
            raise InputError("--config.data.root: a folder is needed to draw the data set in")
        on_first_process(partial(draw_dataset, config.data.root, **config.data.drawing))
        # In Market-1501's form, but without its counts.
        name = "folder"
    dataset = load_dataset(name, config.data.root)
    return ReidData(dataset, config.data.cache_height, config.data.cache_width)
