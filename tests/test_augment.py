"""Augmentation against NumPy, Pillow and the laws it has to follow."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgnet_jax.data.augment import augment, preprocess, random_erasing, resize, to_uint8
from dgnet_jax.data.cache import decode
from dgnet_jax.data.readers.market1501 import read_market1501
from tests.drawn_market import smooth_image

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
PAD = 10


def images_of(count: int, height: int, width: int) -> np.ndarray:
    return np.stack([np.asarray(smooth_image(i, height, width)) for i in range(count)])


def pillow_resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    bicubic = Image.Resampling.BICUBIC
    return np.stack(
        [np.asarray(Image.fromarray(i).resize((width, height), bicubic)) for i in images]
    )


def candidates(image: np.ndarray) -> dict[tuple[bool, int, int], np.ndarray]:
    """Every image that mirroring, padding and cropping may give: (mirrored, top, left) -> image."""
    height, width, _ = image.shape
    result = {}
    for mirrored in (False, True):
        source = image[:, ::-1] if mirrored else image
        padded = np.pad(source, ((PAD, PAD), (PAD, PAD), (0, 0)), mode="edge")
        for top in range(2 * PAD + 1):
            for left in range(2 * PAD + 1):
                window = padded[top : top + height, left : left + width]
                result[mirrored, top, left] = window
    return result


def test_every_image_gets_its_own_mirror_and_crop():
    count, height, width = 400, 24, 12
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    output = augment(
        jax.random.key(0),
        jnp.tile(image, (count, 1, 1, 1)),
        height=height,
        width=width,
        pad=PAD,
        mirror_probability=0.5,
    )
    assert output.shape == (count, height, width, 3)
    assert output.dtype == jnp.float32
    known = {window.tobytes(): place for place, window in candidates(image).items()}
    places = np.array([known[window.tobytes()] for window in to_uint8(np.asarray(output))])
    # Five standard deviations of the mean of 400 draws.
    np.testing.assert_allclose(places[:, 0].mean(), 0.5, atol=5 * 0.5 / 20)
    for offsets in places[:, 1:].T:
        assert set(offsets) == set(range(2 * PAD + 1))
        np.testing.assert_allclose(offsets.mean(), PAD, atol=5 * np.sqrt((21**2 - 1) / 12) / 20)


def test_normalisation_is_imagenets():
    images = images_of(2, 16, 8)
    expected = (images / 255 - MEAN) / STD
    np.testing.assert_allclose(preprocess(jnp.asarray(images), 16, 8), expected, atol=1e-6)
    plain = augment(
        jax.random.key(0),
        jnp.asarray(images),
        height=16,
        width=8,
        pad=PAD,
        mirror_probability=0.0,
        crop=False,
    )
    np.testing.assert_allclose(plain, expected, atol=1e-6)
    mirrored = augment(
        jax.random.key(0), jnp.asarray(images), height=16, width=8, pad=0, mirror_probability=1.0
    )
    np.testing.assert_allclose(mirrored, expected[:, :, ::-1], atol=1e-6)


def test_every_level_survives_normalisation():
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 3))
    normalised = preprocess(jnp.asarray(levels[None, None]), 1, 256)
    in_jax, in_numpy = to_uint8(normalised), to_uint8(np.asarray(normalised))
    assert isinstance(in_jax, jax.Array) and isinstance(in_numpy, np.ndarray)
    for output in (in_jax, in_numpy):
        assert output.dtype == np.uint8
        np.testing.assert_array_equal(output[0, 0], levels)
    np.testing.assert_array_equal(
        to_uint8(np.array([[-9.0, 0.0, 9.0]], np.float32)), [[0, 116, 255]]
    )


def test_levels_are_rounded_or_cut_down_to_the_level_below():
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    levels = np.array([-0.7, 0.3, 0.9, 126.2, 126.8, 254.6, 255.4, 300])
    images = ((levels[:, None] / 255 - mean) / std).astype(np.float32)
    for output in (to_uint8(images, truncate=True), to_uint8(jnp.asarray(images), truncate=True)):
        assert output.dtype == np.uint8
        # What astype(uint8) makes of clipped levels.
        expected = np.repeat([[0], [0], [0], [126], [126], [254], [255], [255]], 3, axis=1)
        np.testing.assert_array_equal(output, expected)
    expected = np.repeat([[0], [0], [1], [126], [127], [255], [255], [255]], 3, axis=1)
    np.testing.assert_array_equal(to_uint8(images), expected)


@pytest.mark.parametrize("size", [(256, 128), (384, 192), (64, 32), (100, 50), (128, 96)])
def test_resize_is_pillows_bicubic(size: tuple[int, int]):
    smooth = images_of(4, 128, 64)
    noise = np.random.default_rng(0).integers(0, 256, smooth.shape, np.uint8)
    for images in (smooth, noise):
        ours = np.asarray(resize(jnp.asarray(images), *size)).astype(int)
        difference = np.abs(ours - pillow_resize(images, *size))
        assert difference.max() <= 2
        assert difference.mean() < 0.01


def test_resize_is_pillows_bicubic_on_real_images(market_zip: Path):
    images = decode(read_market1501(market_zip).query.subset(np.arange(64)), 128, 64).images
    ours = np.asarray(resize(jnp.asarray(images), 256, 128)).astype(int)
    difference = np.abs(ours - pillow_resize(images, 256, 128))
    assert difference.max() <= 2
    assert np.mean(difference > 0) < 1e-3


def test_no_resize_is_compiled_for_images_of_the_right_size():
    images = jnp.asarray(images_of(1, 16, 8))
    assert resize(images, 16, 8) is images


def test_leading_axes_are_arbitrary():
    images = images_of(6, 16, 8)

    @jax.jit
    def prepare(images: jax.Array) -> jax.Array:
        first, second = jax.random.split(jax.random.key(3))
        images = augment(first, images, height=32, width=16, pad=4, mirror_probability=0.5)
        return random_erasing(second, images)

    flat = prepare(images)
    grouped = prepare(images.reshape(2, 3, 16, 8, 3))
    np.testing.assert_array_equal(grouped.reshape(flat.shape), flat)
    assert prepare(images[0]).shape == (32, 16, 3)


def erase(images: jax.Array, *, probability: float = 1.0, **settings) -> np.ndarray:
    erasing = jax.jit(partial(random_erasing, probability=probability, **settings))
    return np.asarray(erasing(jax.random.key(0), images))


Box = tuple[int, int, int, int]


def erased_boxes(output: np.ndarray) -> list[Box | None]:
    """(top, left, height, width) of what is 0 in images of ones, which has to be one full box."""
    boxes: list[Box | None] = []
    for image in output:
        rows, columns = np.nonzero((image == 0).all(axis=-1))
        if not len(rows):
            boxes.append(None)
            continue
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert (image == 0).sum() == 3 * len(rows) == 3 * height * width
        boxes.append((int(rows.min()), int(columns.min()), height, width))
    return boxes


@pytest.fixture(scope="module")
def boxes() -> list[Box | None]:
    """What is erased of 4,000 images of 64 x 32."""
    return erased_boxes(erase(jnp.ones((4000, 64, 32, 3)), probability=0.5))


def test_half_of_the_images_are_erased(boxes):
    share = np.mean([box is not None for box in boxes])
    np.testing.assert_allclose(share, 0.5, atol=5 * 0.5 / np.sqrt(4000))


def test_erased_boxes_have_the_papers_area_and_aspect(boxes):
    sizes = np.array([box[2:] for box in boxes if box], float)
    height, width = sizes.T
    assert height.max() < 64 and width.max() < 32
    # Both sides are rounded to whole pixels, by half a pixel at most.
    assert np.all((height - 0.5) * (width - 0.5) <= 0.4 * 64 * 32)
    assert np.all((height + 0.5) * (width + 0.5) >= 0.02 * 64 * 32)
    assert np.all((height - 0.5) / (width + 0.5) <= 1 / 0.3)
    assert np.all((height + 0.5) / (width - 0.5) >= 0.3)


def test_erased_boxes_are_distributed_as_in_the_loop_of_the_paper(boxes):
    """Algorithm 1 of Zhong et al., one image and one try at a time, in NumPy."""
    rng = np.random.default_rng(0)
    loop: list[Box] = []
    while len(loop) < 4000:
        target, ratio = rng.uniform(0.02, 0.4) * 64 * 32, rng.uniform(0.3, 1 / 0.3)
        height, width = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if height < 64 and width < 32:
            top, left = rng.integers(64 - height + 1), rng.integers(32 - width + 1)
            loop.append((top, left, height, width))
    ours = [box for box in boxes if box]
    for mine, theirs in zip(np.transpose(ours), np.transpose(loop), strict=True):
        deviation = np.std(theirs) * np.sqrt(1 / len(ours) + 1 / len(loop))
        np.testing.assert_allclose(np.mean(mine), np.mean(theirs), atol=5 * deviation)
        np.testing.assert_allclose(np.std(mine), np.std(theirs), rtol=0.1)


def test_erased_boxes_reach_every_edge(boxes):
    top, left, height, width = np.transpose([box for box in boxes if box])
    assert top.min() == left.min() == 0
    assert np.max(top + height) == 64
    assert np.max(left + width) == 32


def test_erasing_leaves_the_other_pixels_and_the_type_alone():
    images = jax.random.normal(jax.random.key(1), (50, 16, 8, 3), jnp.bfloat16)
    output = erase(images)
    assert output.dtype == jnp.bfloat16
    changed = output != np.asarray(images)
    assert changed.any(axis=(1, 2, 3)).all()
    assert not output[changed].any()
    np.testing.assert_array_equal(erase(images, probability=0.0), images)


def test_an_image_without_a_fitting_try_stays_whole():
    images = jnp.ones((20, 16, 16, 3))
    np.testing.assert_array_equal(erase(images, area=(1.5, 2.0)), images)

    # Less than half of all tries fit into so narrow an image.
    narrow = jnp.ones((200, 96, 8, 3))
    whole = [
        sum(box is None for box in erased_boxes(erase(narrow, attempts=attempts)))
        for attempts in (1, 100)
    ]
    assert whole[0] > 100
    assert whole[1] == 0


_ON_DEVICES = """
import sys, jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dgnet_jax.data.augment import augment, random_erasing

def prepare(key, images):
    first, second = jax.random.split(key)
    images = augment(first, images, height=32, width=16, pad=10, mirror_probability=0.5)
    return random_erasing(second, images)

mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
batch = NamedSharding(mesh, PartitionSpec("data"))
images = np.random.default_rng(0).integers(0, 256, (16, 16, 8, 3), np.uint8)
prepare = jax.jit(prepare, out_shardings=batch)
arguments = (jax.random.key(0), jax.device_put(images, batch))
compiled = prepare.lower(*arguments).compile()
assert "all-gather" not in compiled.as_text(), "each device prepares its own images"
np.save(sys.argv[1], np.asarray(compiled(*arguments)))
"""


def test_eight_devices_prepare_the_images_of_one(tmp_path: Path):
    results = []
    for devices in (1, 8):
        file = tmp_path / f"{devices}.npy"
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        subprocess.run(
            [sys.executable, "-c", _ON_DEVICES, str(file)],
            check=True,
            env=environment,
            cwd=Path(__file__).parents[1],
        )
        results.append(np.load(file))
    np.testing.assert_array_equal(*results)
