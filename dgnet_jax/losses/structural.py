"""Losses of images that compare more than one pixel at a time.

Images are (batch, height, width, channels); those of the similarities are ImageNet-normalised RGB.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from dgnet_jax.errors import InputError
from dgnet_jax.losses.arrays import Images, RgbImages, Scalar, magnitude, pair, sample_mean
from dgnet_jax.losses.parameters import check
from dgnet_jax.losses.similarity import GAUSSIAN, similarities

WINDOW = GAUSSIAN.size
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363)
"""Of the first four of the five scales of Wang et al. (2003)."""

# Normalised images to values of 0 to 1, the range that SSIM's constants are for.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# A scale's share below it, which may be negative, counts as so much: its power has a gradient.
_LEAST_SHARE = 1e-4


def ssim(target: RgbImages, output: RgbImages) -> Scalar:
    """1 - SSIM, between 0 and 2: 0 for equal images.

    Structural similarity of Wang et al., "Image Quality Assessment: From Error Visibility to
    Structural Similarity" (IEEE TIP 2004): a Gaussian window of 11 x 11 with sigma 1.5, K1 0.01,
    K2 0.03, population variances, mean over channels and the windows that lie inside; on values of
    0 to 1.

    Raises:
        InputError: images are smaller than the window.
    """
    target, output = _unnormalised(target, output)
    _check_size("ssim", target, 1)
    luminance, structure = similarities(target, output, 1.0)
    return jnp.mean(1 - sample_mean(luminance * structure))


def ms_ssim(target: RgbImages, output: RgbImages) -> Scalar:
    """1 - multi-scale SSIM, between 0 and 1: 0 for equal images.

    Wang et al., "Multiscale Structural Similarity for Image Quality Assessment" (Asilomar 2003), as
    a loss Zhao et al., "Loss Functions for Image Restoration with Neural Networks" (IEEE TCI 2017).
    Scales are halved by 2 x 2 means. Of the published five weights the first ones are taken, made
    to sum to 1: for as many scales as hold the window, four at most (256 x 128 holds four, 128 x 64
    three). At each scale but the last the contrast and structure, at the last the whole SSIM, is
    the mean over windows and channels, at least 1e-4.

    Raises:
        InputError: images are smaller than the window.
    """
    target, output = _unnormalised(target, output)
    scales = num_scales(*target.shape[1:3])
    _check_size("ms_ssim", target, scales)
    weights = np.array(SCALE_WEIGHTS[:scales])
    weights /= weights.sum()
    total: Any = 1.0
    for scale, weight in enumerate(weights.tolist()):
        if scale:
            target, output = _halved(target), _halved(output)
        luminance, structure = similarities(target, output, 1.0)
        share = structure if scale + 1 < scales else luminance * structure
        total = total * jnp.maximum(sample_mean(share), _LEAST_SHARE) ** weight
    return jnp.mean(1 - total)


def num_scales(height: int, width: int) -> int:
    """How many scales, four at most, have images that hold SSIM's window; 0 if none has."""
    return sum(min(height, width) >> scale >= WINDOW for scale in range(len(SCALE_WEIGHTS)))


def gradient_difference(target: Images, output: Images, alpha: ArrayLike = 1.0) -> Scalar:
    """Mean of ||dx| - |dy||^alpha, dx and dy being differences of neighbouring pixels.

    Over vertical and horizontal neighbours, each pair of neighbours counting once. Mathieu et al.,
    "Deep multi-scale video prediction beyond mean square error" (ICLR 2016), equation 6, which
    sums. It knows edges and no brightness: it wants a loss of pixels beside it.

    Args:
        target: the images to reconstruct.
        output: the reconstruction.
        alpha: the exponent, 1 to 8.

    Raises:
        InputError: if alpha is out of its range, or images are a single pixel.
    """
    check("gradient_difference", alpha=alpha)
    target, output = pair(target, output)
    if target.shape[1] * target.shape[2] < 2:
        raise InputError("gradient_difference: images of one pixel have no neighbours")
    alpha = jnp.asarray(alpha, output.dtype)
    parts = []
    for axis in (1, 2):
        edges = [_absolute(jnp.diff(images, axis=axis)) for images in (target, output)]
        parts.append(_power(_absolute(edges[1] - edges[0]), alpha).reshape(len(output), -1))
    return jnp.mean(jnp.mean(jnp.concatenate(parts, axis=1), axis=1))


def focal_frequency(target: Images, output: Images, alpha: ArrayLike = 1.0) -> Scalar:
    """Focal frequency loss: mean of w |F(x) - F(y)|^2 over the frequencies of each channel.

    F is the orthonormal discrete Fourier transform of rows and columns and w = |F(x) - F(y)|^alpha,
    divided by its maximum over the frequencies of the image's channel and without gradient: the
    frequencies that are worst count most. Jiang et al., "Focal Frequency Loss for Image
    Reconstruction and Synthesis" (ICCV 2021), equations 8 to 10. With alpha 0 it is the mean
    squared error (Parseval).

    Args:
        target: the images to reconstruct.
        output: the reconstruction.
        alpha: the exponent of w, 0 to 8.

    Raises:
        InputError: if alpha is out of its range.
    """
    check("focal_frequency", alpha=alpha)
    target, output = pair(target, output)
    difference = output - target
    scale = magnitude(difference)
    square = _power_spectrum(difference / scale)
    largest = jnp.max(square, axis=(1, 2), keepdims=True)
    ratio = square / jnp.where(largest == 0, 1.0, largest)
    weight = lax.stop_gradient(ratio ** (0.5 * jnp.asarray(alpha, output.dtype)))
    return jnp.mean(sample_mean(jnp.square(scale) * weight * square))


def _unnormalised(target: Images, output: Images) -> tuple[Array, Array]:
    target, output = pair(target, output)
    mean, std = (jnp.asarray(values, output.dtype) for values in (_MEAN, _STD))
    return target * std + mean, output * std + mean


def _check_size(name: str, images: Array, scales: int) -> None:
    height, width = images.shape[1:3]
    if scales < 1 or min(height, width) < WINDOW:
        raise InputError(
            f"{name}: images of {height} x {width} pixels are smaller than its window of "
            f"{WINDOW} x {WINDOW}; raise --config.data.height and .width, or take another loss"
        )


def _power_spectrum(images: Float[Array, "batch height width channels"]) -> Array:
    """|F|^2 of each channel, F orthonormal.

    By products with the matrices of the transforms: XLA's FFT would gather a batch that is divided
    over devices on each of them.
    """
    waves = [_fourier_matrix(length) for length in images.shape[1:3]]
    (row_cos, row_sin), (column_cos, column_sin) = (
        (jnp.asarray(wave.real, images.dtype), jnp.asarray(wave.imag, images.dtype))
        for wave in waves
    )

    def product(subscripts: str, x: Array, wave: Array) -> Array:
        return jnp.einsum(subscripts, x, wave, precision=lax.Precision.HIGHEST)

    real, imaginary = (product("bhwc,uh->buwc", images, wave) for wave in (row_cos, row_sin))
    columns = partial(product, "buwc,vw->buvc")
    both = (
        columns(real, column_cos) - columns(imaginary, column_sin),
        columns(real, column_sin) + columns(imaginary, column_cos),
    )
    return jnp.square(both[0]) + jnp.square(both[1])


def _fourier_matrix(length: int) -> np.ndarray:
    """Of the orthonormal discrete Fourier transform, complex."""
    return np.fft.fft(np.eye(length), norm="ortho")


def _halved(images: Float[Array, "batch height width 3"]) -> Array:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    batch, height, width, channels = images.shape
    rows, columns = height // 2, width // 2
    even = images[:, : 2 * rows, : 2 * columns]
    return even.reshape(batch, rows, 2, columns, 2, channels).mean((2, 4))


def _absolute(values: Array) -> Array:
    """|v| with gradient 0 at 0."""
    return values * lax.stop_gradient(jnp.sign(values))


def _power(values: Array, alpha: Array) -> Array:
    """values^alpha of values of 0 or more, alpha of 1 or more, with gradient 0 at 0."""
    is_zero = values == 0
    return jnp.where(is_zero, 0.0, jnp.where(is_zero, 1.0, values) ** alpha)
