"""SSIM diversity: how much images of one identity differ (DG-Net, section 4.2).

(1 - SSIM) / 2 in CIE Lab (D65), over random pairs of the same identity. SSIM is that of Wang et
al. (IEEE TIP 2004): a Gaussian window of 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, population
variances, the mean over the windows that lie inside the image. The paper does not give the
remaining settings; here L*, a* and b* are taken as they are, with a range of 100, and averaged.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.devices import run_batches

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
DATA_RANGE = 100.0
PAIRS = 1000

# Second word of the seed sequence, so that the choice is independent of other draws.
_PAIRS = 701

# Linear sRGB to XYZ, and the white point of D65 (2 degrees).
_RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)


def rgb_to_lab(images: UInt8[Array, "*pixels 3"]) -> Float32[Array, "*pixels 3"]:
    """sRGB to CIE Lab (L* 0 to 100, a* and b* about -100 to 100)."""
    rgb = images.astype(jnp.float32) / 255
    linear = jnp.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = jnp.einsum(
        "...c,dc->...d", linear, jnp.array(_RGB_TO_XYZ), precision=jax.lax.Precision.HIGHEST
    ) / jnp.array(_WHITE)
    root = jnp.where(xyz > 0.008856, jnp.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ssim(
    first: Float[Array, "batch height width channels"],
    second: Float[Array, "batch height width channels"],
    data_range: float = DATA_RANGE,
) -> Float[Array, " batch"]:
    """Mean structural similarity of pairs.

    Height and width are at least 11.
    """

    def blur(x: Array) -> Array:
        for axis, subscripts in ((1, "bhwc,oh->bowc"), (2, "bhwc,ow->bhoc")):
            window = jnp.asarray(_gaussian_windows(x.shape[axis]), x.dtype)
            x = jnp.einsum(subscripts, x, window, precision=jax.lax.Precision.HIGHEST)
        return x

    mean1, mean2 = blur(first), blur(second)
    variance1 = blur(first * first) - mean1 * mean1
    variance2 = blur(second * second) - mean2 * mean2
    covariance = blur(first * second) - mean1 * mean2
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1 * mean1 + mean2 * mean2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (luminance * structure).mean((1, 2, 3))


def _gaussian_windows(size: int) -> Float[np.ndarray, "{size}-10 {size}"]:
    """The window at every place where it lies inside."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    window /= window.sum()
    matrix = np.zeros((size - WINDOW + 1, size))
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = window
    return matrix


@jax.jit
def dissimilarity(
    first: UInt8[Array, "batch height width 3"], second: UInt8[Array, "batch height width 3"]
) -> Float[Array, " batch"]:
    """(1 - SSIM) / 2 in Lab of pairs of RGB images."""
    return (1 - ssim(rgb_to_lab(first), rgb_to_lab(second))) / 2


def same_identity_pairs(
    identities: Int[np.ndarray, " n"], pairs: int = PAIRS, seed: int = 0
) -> Int[np.ndarray, "chosen 2"]:
    """The indices of two different images of one identity, `pairs` times; none if there are none.

    The first is drawn from all images that have a partner, the second from its partners; a pair
    may be drawn again.
    """
    order = np.argsort(identities, kind="stable")
    _, starts, counts = np.unique(identities[order], return_index=True, return_counts=True)
    # Of each place in `order`: where its identity begins, and how many images it has.
    start, count = np.repeat(starts, counts), np.repeat(counts, counts)
    candidates = np.flatnonzero(count > 1)
    if not len(candidates):
        return np.zeros((0, 2), np.int64)
    rng = np.random.default_rng([seed, _PAIRS])
    first = rng.choice(candidates, pairs)
    step = rng.integers(1, count[first])
    second = start[first] + (first - start[first] + step) % count[first]
    return order[np.stack([first, second], axis=1)]


def diversity(
    images: UInt8[np.ndarray, "n height width 3"],
    pairs: Int[np.ndarray, "pairs 2"],
    *,
    batch_size: int = 64,
) -> float:
    """The mean (1 - SSIM) / 2 in Lab over pairs of images, in [0, 1].

    Args:
        images: RGB.
        pairs: indices, from `same_identity_pairs`.

    Raises:
        InputError: there is no pair, or images are smaller than the window.
    """
    if len(pairs) == 0:
        raise InputError("diversity: no identity has two images to compare")
    if min(images.shape[1:3]) < WINDOW:
        raise InputError(
            f"diversity: images of {images.shape[1]} x {images.shape[2]} pixels are smaller than "
            f"SSIM's window of {WINDOW} x {WINDOW}"
        )
    batch_size = min(batch_size, len(pairs))
    values = [
        run_batches(dissimilarity, images[rows[:, 0]], images[rows[:, 1]], batch_size=batch_size)
        for rows in np.array_split(pairs, -(-len(pairs) // batch_size))
    ]
    return float(np.concatenate(values).astype(np.float64).mean())
