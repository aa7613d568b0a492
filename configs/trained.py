"""The configuration of a trained run, as its work directory holds it.

    python launch.py --mode=evaluate --workdir=runs/a

is short for `--config=configs/trained.py:runs/a`. Fields can be overridden like those of any other
configuration; so a network trained on one data set is evaluated on another:

    python launch.py --mode=evaluate --workdir=runs/a --config.data.name=msmt17 \
        --config.data.root=DIR
"""

from dgnet_jax.config import trained_config as get_config

__all__ = ["get_config"]
