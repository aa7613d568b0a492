"""The reconstruction losses R(target, output): the thesis's, others, and their weighted sums.

Every loss is a pure function ``(target, output) -> scalar`` of two arrays of one shape: images or
codes. A value is computed per sample, over all n values of the sample; the loss is the mean over
the batch, so it does not depend on how a batch is split over devices. A rank-1 array is a batch of
samples of one value each (n = 1).

Arithmetic and result are float32 (bfloat16 and integers are widened first), or float64 where an
input is float64. The target carries no gradient. A NaN in either array gives a NaN loss.

Arrays of different shapes, without a batch axis, or empty raise a ValueError.
"""

from dgnet_jax.losses.expressions import (
    Expression,
    Term,
    canonical_expression,
    evaluate,
    parse,
    reconstruction_loss,
)
from dgnet_jax.losses.parameters import Parameter
from dgnet_jax.losses.perceptual import teacher_features
from dgnet_jax.losses.registry import (
    BEYOND,
    BEYOND_FUSIONS,
    FUSIONS,
    LOSSES,
    NAMES,
    PRINTED,
    ReconstructionLoss,
    fusions,
    parameters,
    register,
)
from dgnet_jax.losses.robust import barron, charbonnier, log_cosh
from dgnet_jax.losses.structural import (
    focal_frequency,
    gradient_difference,
    ms_ssim,
    num_scales,
    ssim,
)
from dgnet_jax.losses.thesis import (
    cos,
    cos_channels,
    huber,
    huber_printed,
    l1,
    ml,
    mrae,
    mse,
    rmse,
    rmse_printed,
)

__all__ = [
    "BEYOND",
    "BEYOND_FUSIONS",
    "FUSIONS",
    "LOSSES",
    "NAMES",
    "PRINTED",
    "Expression",
    "Parameter",
    "ReconstructionLoss",
    "Term",
    "barron",
    "canonical_expression",
    "charbonnier",
    "cos",
    "cos_channels",
    "evaluate",
    "focal_frequency",
    "fusions",
    "gradient_difference",
    "huber",
    "huber_printed",
    "l1",
    "log_cosh",
    "ml",
    "mrae",
    "ms_ssim",
    "mse",
    "num_scales",
    "parameters",
    "parse",
    "reconstruction_loss",
    "register",
    "rmse",
    "rmse_printed",
    "ssim",
    "teacher_features",
]
