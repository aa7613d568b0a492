"""Weights from PyTorch and back: names, layouts, files.

`python -m dgnet_jax.convert` is the command. PyTorch is needed to read and to write its files,
nowhere else; what is converted is a .safetensors file in PyTorch's names and layout.
"""

from dgnet_jax.convert.loading import (
    Loaded,
    Released,
    load_backbone,
    load_released,
    load_teacher_weights,
)
from dgnet_jax.convert.names import (
    Conversion,
    Location,
    Network,
    convert_state_dict,
    is_unused,
    locate,
    lookup,
    state_dict,
    to_flax_layout,
    to_torch_layout,
)

__all__ = [
    "Conversion",
    "Loaded",
    "Location",
    "Network",
    "Released",
    "convert_state_dict",
    "is_unused",
    "load_backbone",
    "load_released",
    "load_teacher_weights",
    "locate",
    "lookup",
    "state_dict",
    "to_flax_layout",
    "to_torch_layout",
]
