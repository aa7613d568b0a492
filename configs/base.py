"""What the other files of this folder build on; `dgnet_jax.config` has every field and its meaning.

This file is no experiment of its own: `market.py`, `quickstart.py` and the others start from it.
"""

from dgnet_jax.config import apply_variant
from dgnet_jax.config import default_config as get_config

__all__ = ["apply_variant", "get_config"]
