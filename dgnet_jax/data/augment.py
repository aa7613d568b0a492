"""Augmentation on the device.

Every image draws its own random numbers, all of them for the whole (global) batch from one key: any
number of devices gives the same images (`randomness`). The leading axes are arbitrary, the batch
first; (batch, height, width, 3) is the usual case.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, PRNGKeyArray, UInt8

from dgnet_jax.data.randomness import WHOLE, Share

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)


def augment(
    key: PRNGKeyArray,
    images: UInt8[Array, "*batch rows columns 3"],
    *,
    height: int,
    width: int,
    pad: int,
    mirror_probability: float,
    crop: bool = True,
    share: Share = WHOLE,
) -> Float32[Array, "*batch {height} {width} 3"]:
    """Mirror, bicubic resize, edge padding, crop, normalisation (docs/method.md, section 6.3).

    Args:
        key: one key for the batch.
        images: (..., rows, columns, 3) uint8 RGB.
        height, width: pixels of the result.
        pad: pixels added on each side before the crop.
        mirror_probability: of each image.
        crop: False leaves padding and crop out.
        share: which rows of the batch `images` are.

    Returns:
        (..., height, width, 3) float32, ImageNet-normalised.
    """
    mirror_key, top_key, left_key = jax.random.split(key, 3)
    lead = images.shape[:-3]
    mirrored = share.draw(
        lambda shape: jax.random.bernoulli(mirror_key, mirror_probability, shape), lead
    )
    images = jnp.where(mirrored[..., None, None, None], jnp.flip(images, axis=-2), images)
    images = resize(images, height, width)
    if crop and pad:
        limits = jnp.full(lead, 2 * pad + 1, jnp.int32)
        top, left = share.randint(top_key, limits), share.randint(left_key, limits)
        images = _padded_crop(images, top, left, pad)
    return normalise(images)


def preprocess(
    images: UInt8[Array, "*batch rows columns 3"], height: int, width: int
) -> Float32[Array, "*batch {height} {width} 3"]:
    """Bicubic resize and normalisation, for evaluation.

    Args:
        images: (..., rows, columns, 3) uint8 RGB.
        height, width: pixels of the result.

    Returns:
        (..., height, width, 3) float32, ImageNet-normalised.
    """
    return normalise(resize(images, height, width))


def resize(
    images: UInt8[Array, "*batch rows columns 3"], height: int, width: int
) -> UInt8[Array, "*batch {height} {width} 3"]:
    """Bicubic resize as Pillow does it: (..., rows, columns, 3) to (..., height, width, 3) uint8.

    Pillow resizes the columns, rounds to uint8, resizes the rows and rounds again; so does this.
    On Market-1501 the result is Pillow's but for one value in thousands, by at most 2 levels (a
    single pass without the rounding between is up to 9 off). Pillow's kernel widens when shrinking,
    which JAX calls antialiasing. An image of the right size is returned as it is.
    """
    lead = images.shape[:-3]
    for axis, size in ((-2, width), (-3, height)):
        if images.shape[axis] != size:
            rows, columns = (images.shape[-3], size) if axis == -2 else (size, images.shape[-2])
            shape = (*lead, rows, columns, 3)
            resized = jax.image.resize(images.astype(jnp.float32), shape, "cubic", antialias=True)
            images = _round_to_uint8(resized)
    return images


def normalise(images: UInt8[Array, "*shape 3"]) -> Float32[Array, "*shape 3"]:
    """uint8 RGB to float32 with the ImageNet mean and standard deviation."""
    mean = jnp.array(IMAGENET_MEAN, jnp.float32)
    std = jnp.array(IMAGENET_STD, jnp.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std


def to_uint8(images: ArrayT, truncate: bool = False) -> ArrayT:
    """Undoes `normalise`: (..., 3) floats to clipped uint8 RGB; NumPy stays NumPy.

    Levels are rounded to the nearest, or cut down to the whole level below, as DG-Net's FID has it.
    """
    xp = jnp if isinstance(images, jax.Array) else np
    mean = np.array(IMAGENET_MEAN, np.float32)
    std = np.array(IMAGENET_STD, np.float32)
    levels = (xp.asarray(images, np.float32) * std + mean) * 255
    return xp.clip(xp.floor(levels) if truncate else xp.round(levels), 0, 255).astype(np.uint8)


def random_erasing(
    key: PRNGKeyArray,
    images: Float[Array, "*batch height width 3"],
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: float = 0.3,
    attempts: int = 100,
    share: Share = WHOLE,
) -> Float[Array, "*batch height width 3"]:
    """Random erasing (Zhong et al., AAAI 2020) with 0, the mean colour of a normalised image.

    A try draws the erased share of the image uniformly in `area` and height / width uniformly in
    [aspect, 1 / aspect]; the first that is smaller than the image both ways is placed uniformly.
    An image without one in `attempts` tries stays whole.

    Args:
        key: one key for the batch.
        images: (..., height, width, 3), normalised.
        probability: of each image.
        area: smallest and largest erased share.
        aspect: smallest height / width; the largest is its inverse.
        attempts: tries per image.
        share: which rows of the batch `images` are.

    Returns:
        As `images`.
    """
    lead = images.shape[:-3]
    height, width, _ = images.shape[-3:]
    chosen_key, area_key, aspect_key, top_key, left_key = jax.random.split(key, 5)
    tries = (*lead, attempts)

    def uniform(key: jax.Array, low: float, high: float) -> jax.Array:
        return share.draw(
            lambda shape: jax.random.uniform(key, shape, minval=low, maxval=high), tries
        )

    target = uniform(area_key, *area) * height * width
    ratio = uniform(aspect_key, aspect, 1 / aspect)
    heights = jnp.round(jnp.sqrt(target * ratio)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(target / ratio)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits, axis=-1, keepdims=True)
    box_height = jnp.take_along_axis(heights, first, axis=-1)[..., 0]
    box_width = jnp.take_along_axis(widths, first, axis=-1)[..., 0]
    top = share.randint(top_key, jnp.maximum(height - box_height + 1, 1))
    left = share.randint(left_key, jnp.maximum(width - box_width + 1, 1))

    chosen = share.draw(lambda shape: jax.random.bernoulli(chosen_key, probability, shape), lead)
    erased = chosen & jnp.any(fits, axis=-1)
    in_rows = _between(jnp.arange(height), top, top + box_height)
    in_columns = _between(jnp.arange(width), left, left + box_width)
    box = erased[..., None, None] & in_rows[..., :, None] & in_columns[..., None, :]
    return jnp.where(box[..., None], jnp.zeros((), images.dtype), images)


def _between(values: jax.Array, start: jax.Array, stop: jax.Array) -> jax.Array:
    return (values >= start[..., None]) & (values < stop[..., None])


def _round_to_uint8(images: jax.Array) -> jax.Array:
    # Pillow rounds halves up; jnp.round takes them to the even neighbour.
    return jnp.clip(jnp.floor(images + 0.5), 0, 255).astype(jnp.uint8)


def _padded_crop(images: jax.Array, top: jax.Array, left: jax.Array, pad: int) -> jax.Array:
    """Pads with edge values and cuts the original size at each image's own (top, left)."""
    shape = images.shape[-3:]

    def cut(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (row, column, 0), shape)

    for _ in top.shape:
        cut = jax.vmap(cut)
    widths = [(0, 0)] * (images.ndim - 3) + [(pad, pad), (pad, pad), (0, 0)]
    return cut(jnp.pad(images, widths, mode="edge"), top, left)
