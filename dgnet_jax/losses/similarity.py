"""Structural similarity of pairs of images (Wang et al., IEEE TIP 2004), for losses and measures.

SSIM is the mean, over the windows that lie inside the image and over channels, of

    (2 m1 m2 + C1) / (m1^2 + m2^2 + C1) * (2 s12 + C2) / (s1^2 + s2^2 + C2)

with the windows' means m, variances s^2 and covariance s12, C1 = (0.01 range)^2, C2 = (0.03
range)^2. The paper's window is Gaussian; many programs use a uniform one.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

K1, K2 = 0.01, 0.03


class Window(NamedTuple):
    """What a pixel's neighbourhood is.

    Attributes:
        weights: along rows, and along columns; they sum to 1.
        sample: whether variances and the covariance are those of a sample of N = len(weights)^2
            values, N / (N - 1) times those of a population.
    """

    weights: tuple[float, ...]
    sample: bool

    @property
    def size(self) -> int:
        """Its height and width in pixels; images are at least as large."""
        return len(self.weights)


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
    weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return tuple((weights / weights.sum()).tolist())


GAUSSIAN = Window(_gaussian(11, 1.5), sample=False)
"""Wang et al.'s own: 11 x 11 with sigma 1.5, population variances."""

UNIFORM = Window((1 / 7,) * 7, sample=True)
"""7 x 7 equal weights, sample variances: scikit-image's default."""


def ssim(
    first: Float[Array, "batch height width channels"],
    second: Float[Array, "batch height width channels"],
    data_range: float,
    window: Window = GAUSSIAN,
) -> Float[Array, " batch"]:
    """Mean structural similarity of pairs of images, in [-1, 1].

    Height and width are at least `window.size`.
    """
    luminance, structure = similarities(first, second, data_range, window)
    return (luminance * structure).mean((1, 2, 3))


def similarities(
    first: Float[Array, "batch height width channels"],
    second: Float[Array, "batch height width channels"],
    data_range: float,
    window: Window = GAUSSIAN,
) -> tuple[
    Float[Array, "batch rows columns channels"], Float[Array, "batch rows columns channels"]
]:
    """The two factors of SSIM at every window: luminance, and contrast times structure."""
    values = window.size**2
    scale = values / (values - 1) if window.sample else 1.0
    means = partial(_means, window)
    mean1, mean2 = means(first), means(second)
    variance1 = scale * (means(first * first) - mean1 * mean1)
    variance2 = scale * (means(second * second) - mean2 * mean2)
    covariance = scale * (means(first * second) - mean1 * mean2)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1 * mean1 + mean2 * mean2 + c1)
    return luminance, (2 * covariance + c2) / (variance1 + variance2 + c2)


def _means(window: Window, x: Float[Array, "batch height width channels"]) -> Array:
    """Of every place where the window lies inside."""
    if len(set(window.weights)) == 1:
        # Faster than the products below.
        for shape in ((1, window.size, 1, 1), (1, 1, window.size, 1)):
            x = lax.reduce_window(x, 0.0, lax.add, shape, (1, 1, 1, 1), "VALID")
        return x / window.size**2
    for axis, subscripts in ((1, "bhwc,oh->bowc"), (2, "bhwc,ow->bhoc")):
        places = jnp.asarray(_places(window, x.shape[axis]), x.dtype)
        x = jnp.einsum(subscripts, x, places, precision=lax.Precision.HIGHEST)
    return x


def _places(window: Window, size: int) -> Float[np.ndarray, "places {size}"]:
    """A row for every place along an axis where the window lies inside."""
    matrix = np.zeros((size - window.size + 1, size))
    for row in range(len(matrix)):
        matrix[row, row : row + window.size] = window.weights
    return matrix
