"""The thesis's ablation of the reconstruction loss: many runs, their results, tables and report.

study = dgnet_jax.ablation.Study(config, losses=["l1", "l1_rmse"], seeds=[0, 1], workdir="study")
study.run()
study.report()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgnet_jax.ablation.study import Study

__all__ = ["Study"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a report is read and written without the training code.
    if name not in __all__:
        raise AttributeError(f"module 'dgnet_jax.ablation' has no attribute {name!r}")
    return getattr(importlib.import_module("dgnet_jax.ablation.study"), name)
