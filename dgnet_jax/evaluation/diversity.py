"""SSIM diversity: how much images of one identity differ (DG-Net, section 4.2).

(1 - SSIM) / 2 in CIE Lab (D65), over random pairs of the same identity: 10 pairs of each identity,
so that identities weigh equally, in 5 rounds, all averaged. SSIM has a uniform window of 7 x 7 and
sample variances, as scikit-image has it by default; L*, a* and b* are taken as they are, with a
range of 100, and averaged. The paper does not print these settings: they were reconstructed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from dgnet_jax.errors import InputError
from dgnet_jax.losses.similarity import UNIFORM, ssim
from dgnet_jax.runtime.devices import run_batches

DATA_RANGE = 100.0
PAIRS, ROUNDS = 10, 5

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
    # Not jnp.cbrt, which takes three times as long on a CPU, and as long as all the rest.
    root = jnp.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@jax.jit
def dissimilarity(
    first: UInt8[Array, "batch height width 3"], second: UInt8[Array, "batch height width 3"]
) -> Float[Array, " batch"]:
    """(1 - SSIM) / 2 in Lab of pairs of RGB images."""
    return (1 - ssim(rgb_to_lab(first), rgb_to_lab(second), DATA_RANGE, UNIFORM)) / 2


def same_identity_pairs(
    identities: Int[np.ndarray, " n"], seed: int = 0, pairs: int = PAIRS, rounds: int = ROUNDS
) -> Int[np.ndarray, "chosen 2"]:
    """The indices of two different images of one identity, `pairs` times for each and `rounds`.

    The first image is drawn from all of the identity, the second from the others; a pair may be
    drawn again. Identities of one image are left out.

    Returns:
        pairs * rounds rows for each identity, its rows side by side; none if no identity has two
        images.
    """
    order = np.argsort(identities, kind="stable")
    _, starts, counts = np.unique(identities[order], return_index=True, return_counts=True)
    several = counts > 1
    start, count = (np.repeat(x[several], pairs * rounds) for x in (starts, counts))
    if not len(start):
        return np.zeros((0, 2), np.int64)
    rng = np.random.default_rng([seed, _PAIRS])
    first = rng.integers(0, count)
    second = (first + rng.integers(1, count)) % count
    return order[np.stack([start + first, start + second], axis=1)]


def diversity(
    images: UInt8[np.ndarray, "n height width 3"],
    pairs: Int[np.ndarray, "pairs 2"],
    *,
    batch_size: int = 64,
) -> float:
    """The mean (1 - SSIM) / 2 in Lab over pairs of images, in [0, 1].

    A pair that comes again, in either order, counts again and is computed once.

    Args:
        images: RGB.
        pairs: indices, from `same_identity_pairs`.

    Raises:
        InputError: there is no pair, or images are smaller than the window.
    """
    if len(pairs) == 0:
        raise InputError("diversity: no identity has two images to compare")
    if min(images.shape[1:3]) < UNIFORM.size:
        raise InputError(
            f"diversity: images of {images.shape[1]} x {images.shape[2]} pixels are smaller than "
            f"SSIM's window of {UNIFORM.size} x {UNIFORM.size}"
        )
    different, counts = np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)
    batch_size = min(batch_size, len(different))
    values = [
        run_batches(dissimilarity, images[rows[:, 0]], images[rows[:, 1]], batch_size=batch_size)
        for rows in np.array_split(different, -(-len(different) // batch_size))
    ]
    return float(np.average(np.concatenate(values).astype(np.float64), weights=counts))
