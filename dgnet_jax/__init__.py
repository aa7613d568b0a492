"""DG-Net in JAX: joint discriminative and generative learning for person re-identification.

import dgnet_jax
metrics = dgnet_jax.train(config, "runs/mine")
metrics = dgnet_jax.evaluate(config, "runs/mine")
"""

from dgnet_jax.losses import reconstruction_loss
from dgnet_jax.trainer import evaluate, train

__all__ = ["evaluate", "reconstruction_loss", "train"]
__version__ = "0.1.0"
