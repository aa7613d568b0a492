"""The terms of DG-Net's objective as pure functions of arrays (docs/method.md, section 3).

A *pair* array has the two directions on its second axis, of length 2: index 0 for `a` and 1 for
`b`. For generated images the index is that of the appearance: x_ba (appearance of a on the
structure of b) is 0. Terms are means over the batch for each direction.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dgnet_jax.errors import InputError

# The formulas are the same for both.
Array = jax.Array | np.ndarray
Term = Float[jax.Array, "2"]
GanLoss = Literal["lsgan", "nsgan"]
LABEL_STYLES = (0, 1, 2, 3, 4)


def check_choices(gan_loss: str, label_style: int) -> None:
    """Raises InputError for a GAN loss or teacher label style that does not exist."""
    if gan_loss not in ("lsgan", "nsgan"):
        raise InputError(f"--config.gan_loss: {gan_loss!r} is neither 'lsgan' nor 'nsgan'")
    if label_style not in LABEL_STYLES:
        raise InputError(
            f"--config.teacher.label_style: {label_style!r} is none of {LABEL_STYLES}: soft, "
            "argmax, appearance identity, uniform, soft over the two source identities"
        )


def _per_direction(values: Float[Array, "batch 2 *rest"]) -> Term:
    """Mean over everything but the direction axis."""
    return jnp.mean(values, (0, *range(2, values.ndim)))


def reconstruction(
    loss: Callable[..., Float[jax.Array, ""]],
    target: Float[Array, "batch 2 *values"],
    output: Float[Array, "batch 2 *values"],
) -> Term:
    """The loss R, a `losses.ReconstructionLoss`, of each direction."""
    return jax.vmap(loss, in_axes=1)(target, output)


def discriminator_terms(
    fake_scores: Float[Array, "batch 2 h w 1"],
    real_scores: Float[Array, "batch 2 h w 1"],
    squared_norm: Float[Array, "batch 2"],
    gan: GanLoss,
    penalty: float,
) -> Term:
    """D's loss at one scale (docs/method.md, section 3.2).

    Args:
        fake_scores: of images without gradient.
        real_scores: of real images.
        squared_norm: of the gradient of the sum of the real scores (nsgan: of their
            sigmoids) with respect to each real image.
        penalty: weight of its mean.
    """
    if gan == "lsgan":
        values = _per_direction(fake_scores**2) + _per_direction((real_scores - 1) ** 2)
    else:
        values = _per_direction(jax.nn.softplus(fake_scores))
        values = values + _per_direction(jax.nn.softplus(-real_scores))
    return values + penalty * squared_norm.mean(0)


def adversarial(scores: Sequence[Float[Array, "batch 2 _h _w 1"]], gan: GanLoss) -> Term:
    """The generator's adversarial term, summed over the scales of D."""
    if gan == "lsgan":
        return sum((2 * _per_direction((score - 1) ** 2) for score in scores), jnp.zeros(2))
    return sum((_per_direction(jax.nn.softplus(-score)) for score in scores), jnp.zeros(2))


def cross_entropy(
    logits: Float[Array, "batch 2 identities"], labels: Int[Array, "batch 2"]
) -> Term:
    """Of the softmax of logits with labels."""
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)
    return -_per_direction(chosen)


def teacher_labels(
    logits: Float[Array, "batch 2 identities"],
    mirrored_logits: Float[Array, "batch 2 identities"],
    style: int,
    appearance: Int[Array, "batch 2"],
    structure: Int[Array, "batch 2"],
) -> Float[jax.Array, "batch 2 identities"]:
    """The distribution that the prime head learns on generated images.

    Args:
        logits, mirrored_logits: the teacher's on the images and their mirrors.
        style: 0 the normalised sum of both softmaxes; 1 one-hot of its argmax; 2 one-hot of the
            appearance's identity; 3 uniform (LSRO); 4 that sum restricted to the two source
            identities and renormalised.
        appearance, structure: the source identities.
    """
    identities = logits.shape[-1]
    # In logarithms, so that a share that is 0 in float32 can still be renormalised.
    both = jnp.logaddexp(jax.nn.log_softmax(logits), jax.nn.log_softmax(mirrored_logits))
    if style == 1:
        labels = jax.nn.one_hot(both.argmax(-1), identities, dtype=both.dtype)
    elif style == 2:
        labels = jax.nn.one_hot(appearance, identities, dtype=both.dtype)
    elif style == 3:
        labels = jnp.full_like(both, 1 / identities)
    else:
        if style == 4:
            index = jnp.arange(identities)
            sources = (index == appearance[..., None]) | (index == structure[..., None])
            both = jnp.where(sources, both, -jnp.inf)
        labels = jax.nn.softmax(both)
    return jax.lax.stop_gradient(labels)


def kl_divergence(
    labels: Float[Array, "batch 2 identities"], logits: Float[Array, "batch 2 identities"]
) -> Term:
    """KL(labels || softmax(logits)), summed over classes, with 0 log 0 = 0."""
    safe = jnp.where(labels > 0, labels, 1)
    values = labels * (jnp.log(safe) - jax.nn.log_softmax(logits))
    return _per_direction(values.sum(-1))
