"""DG-Net in JAX: joint discriminative and generative learning for person re-identification.

import dgnet_jax
metrics = dgnet_jax.train(config, "runs/mine")
metrics = dgnet_jax.evaluate(config, "runs/mine")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgnet_jax.evaluation.evaluator import evaluate, evaluate_fully
    from dgnet_jax.losses import reconstruction_loss
    from dgnet_jax.training.trainer import train

__all__ = ["evaluate", "evaluate_fully", "reconstruction_loss", "train"]
__version__ = "0.1.0"

_HOMES = {
    "evaluate": "evaluation.evaluator",
    "evaluate_fully": "evaluation.evaluator",
    "reconstruction_loss": "losses",
    "train": "training.trainer",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: a data tool or a converter does not wait for the training code.
    if name == "ablation":
        return importlib.import_module("dgnet_jax.ablation")
    if name not in _HOMES:
        raise AttributeError(f"module 'dgnet_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"dgnet_jax.{_HOMES[name]}"), name)
