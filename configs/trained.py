"""The configuration of a trained run, as its work directory holds it.

    python launch.py --mode=evaluate --workdir=runs/a

is short for `--config=configs/trained.py:runs/a`. Fields can be overridden like those of any other
configuration; so a network trained on one data set is evaluated on another:

    python launch.py --mode=evaluate --workdir=runs/a --config.data.name=msmt17 \
        --config.data.root=DIR
"""

import ml_collections

from configs import base
from dgnet_jax.runtime.workdir import load_config


def get_config(workdir: str) -> ml_collections.ConfigDict:
    """`workdir`: the folder of the run. Fields that are newer than it get the default."""
    config = load_config(workdir)
    fill(config, base.get_config())
    return config


def fill(config: ml_collections.ConfigDict, defaults: ml_collections.ConfigDict) -> None:
    """Gives a configuration, in place, the fields of `defaults` that it lacks."""
    for name, default in defaults.items():
        if name not in config:
            config[name] = default
        elif isinstance(default, ml_collections.ConfigDict):
            fill(config[name], default)
