"""Losses of images against scikit-image, NumPy's FFT and finite differences, in float64."""

import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from skimage.metrics import structural_similarity
from skimage.transform import downscale_local_mean

from dgnet_jax import losses
from dgnet_jax.errors import InputError

# ImageNet's, docs/dgnet.md.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
# Wang et al. (2003), the first four of five.
SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363])


def draw(shape=(2, 24, 16, 3), dtype=np.float64, seed=3):
    """Smooth normalised images, and others like them."""
    rng = np.random.default_rng(seed)
    target = np.cumsum(rng.standard_normal(shape), axis=1) / 3
    return target.astype(dtype), (target + 0.6 * rng.standard_normal(shape)).astype(dtype)


def maps(images):
    """Of a made-up network with three stages."""
    mix = jnp.array([[1.0, -1.0], [0.5, 1.0], [-1.0, 0.3]], images.dtype)
    first = jnp.maximum(images @ mix, 0)
    second = jnp.maximum(first[:, ::2, ::2] - 0.2, 0)
    return [first, second, second.sum(-1, keepdims=True)]


def teacher_features(target, output):
    return losses.teacher_features(target, output, features=maps)


IMAGE_LOSSES = {
    "ssim": losses.ssim,
    "ms_ssim": losses.ms_ssim,
    "gradient_difference": losses.gradient_difference,
    "focal_frequency": losses.focal_frequency,
    "teacher_features": teacher_features,
}
every_loss = pytest.mark.parametrize("name", IMAGE_LOSSES)


def published_ssim(target, output, **options):
    """scikit-image's, in the form of Wang et al. (2004), of normalised images."""
    return structural_similarity(
        target * STD + MEAN,
        output * STD + MEAN,
        data_range=1,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        **options,
    )


def test_ssim_is_scikit_images(float64):
    target, output = draw()
    expected = np.mean([1 - published_ssim(x, y) for x, y in zip(target, output, strict=True)])
    np.testing.assert_allclose(losses.ssim(target, output), expected, rtol=1e-10)
    assert 0.05 < expected < 0.95


@pytest.mark.parametrize(("size", "scales"), [((24, 16), 1), ((45, 23), 2), ((96, 88), 4)])
def test_ms_ssim_is_the_product_over_scales(float64, size, scales):
    """Contrast and structure alone are scikit-image's SSIM with a huge constant K1."""
    target, output = draw((2, *size, 3))
    weights = SCALE_WEIGHTS[:scales] / SCALE_WEIGHTS[:scales].sum()
    products = []
    for x, y in zip(target, output, strict=True):
        product = 1.0
        for scale, weight in enumerate(weights):
            if scale:
                rows, columns = (2 * (length // 2) for length in x.shape[:2])
                x, y = (downscale_local_mean(image[:rows, :columns], (2, 2, 1)) for image in (x, y))
            options = {} if scale + 1 == scales else {"K1": 1e8}
            product *= published_ssim(x, y, **options) ** weight
        products.append(product)
    assert losses.num_scales(*size) == scales
    np.testing.assert_allclose(losses.ms_ssim(target, output), 1 - np.mean(products), rtol=1e-9)


def test_scales_of_the_sizes_in_use():
    sizes = ((256, 128), (128, 64), (64, 32), (8, 8))
    assert [losses.num_scales(*size) for size in sizes] == [4, 3, 2, 0]


@pytest.mark.parametrize("alpha", [1, 2.5])
def test_gradient_difference_is_of_absolute_differences(float64, alpha):
    target, output = draw()
    found = losses.gradient_difference(target, output, alpha)
    edges = [
        np.abs(np.abs(np.diff(output, axis=axis)) - np.abs(np.diff(target, axis=axis))) ** alpha
        for axis in (1, 2)
    ]
    count = sum(part.size for part in edges)
    np.testing.assert_allclose(found, sum(part.sum() for part in edges) / count, rtol=1e-12)
    # It does not see brightness.
    np.testing.assert_allclose(losses.gradient_difference(target, target + 1), 0, atol=1e-15)


@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_focal_frequency_weighs_each_frequency_by_its_own_error(float64, alpha):
    target, output = draw()
    spectrum = np.fft.fft2(output - target, axes=(1, 2), norm="ortho")
    weight = np.abs(spectrum) ** alpha
    weight /= weight.max(axis=(1, 2), keepdims=True)
    expected = np.mean(weight * np.abs(spectrum) ** 2)
    value, gradient = jax.value_and_grad(losses.focal_frequency, argnums=1)(target, output, alpha)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    # The weight is a constant: the loss is a quadratic form, whose gradient is linear in spectra.
    of_form = 2 * np.fft.ifft2(weight * spectrum, axes=(1, 2), norm="ortho").real / output.size
    np.testing.assert_allclose(gradient, of_form, rtol=1e-8, atol=1e-14)
    if alpha == 0:
        np.testing.assert_allclose(value, np.mean((output - target) ** 2), rtol=1e-10)


@pytest.mark.parametrize(("first", "last"), [(1, 0), (2, 2), (1, 2)])
def test_teacher_features_compare_directions_of_channels(float64, first, last):
    target, output = draw()
    stages = list(zip(maps(target), maps(output), strict=True))
    distances = []
    for pair in stages[first - 1 : last or None]:
        u, v = (
            np.asarray(x) / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)
            for x in pair
        )
        distances.append(np.mean(np.sum((u - v) ** 2, -1)))
    value = losses.teacher_features(target, output, first, last, features=maps)
    np.testing.assert_allclose(value, np.mean(distances), rtol=1e-10)


@pytest.mark.parametrize(("first", "last"), [(4, 0), (1, 4), (3, 2)])
def test_stages_that_the_teacher_lacks_are_refused(first, last):
    target, output = draw(dtype=np.float32)
    with pytest.raises(InputError, match="the teacher has the stages 1 to 3"):
        losses.teacher_features(target, output, first, last, features=maps)


def test_teacher_features_without_a_teacher_are_refused():
    target, output = draw(dtype=np.float32)
    with pytest.raises(InputError, match="needs a trained teacher"):
        losses.reconstruction_loss("l1+teacher_features")(target, output)
    found = losses.reconstruction_loss("l1+teacher_features")(target, output, features=maps)
    expected = losses.l1(target, output) + teacher_features(target, output)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# The weight of `focal_frequency` counts as a constant, which finite differences do not know.
@pytest.mark.parametrize("name", sorted(IMAGE_LOSSES.keys() - {"focal_frequency"}))
def test_gradients_are_those_of_finite_differences(float64, name):
    target, output = draw((1, 24, 14, 3))
    check_grads(lambda y: IMAGE_LOSSES[name](target, y), (output,), 1, ["rev"], eps=1e-8)


@every_loss
def test_the_program_and_the_function_agree_in_float32(name):
    target, output = draw(dtype=np.float32)
    loss = IMAGE_LOSSES[name]
    value = loss(target, output)
    assert value.dtype == jnp.float32 and value.shape == ()
    np.testing.assert_allclose(jax.jit(loss)(target, output), value, rtol=1e-5)
    both = jax.vmap(loss, in_axes=1)(np.stack([target, target], 1), np.stack([output, target], 1))
    np.testing.assert_allclose(both, [value, loss(target, target)], rtol=1e-5, atol=1e-6)


@every_loss
def test_value_does_not_depend_on_the_split_of_the_batch(float64, name):
    target, output = draw((4, 24, 16, 3))
    loss = jax.jit(IMAGE_LOSSES[name])
    uneven = (loss(target[:1], output[:1]) + 3 * loss(target[1:], output[1:])) / 4
    np.testing.assert_allclose(uneven, loss(target, output), rtol=1e-12)


@every_loss
def test_target_carries_no_gradient(name):
    gradient = jax.jit(jax.grad(IMAGE_LOSSES[name]))(*draw(dtype=np.float32))
    np.testing.assert_array_equal(gradient, 0)


@every_loss
def test_equal_and_zero_images_have_finite_gradients(name):
    loss = jax.jit(jax.value_and_grad(IMAGE_LOSSES[name], argnums=1))
    target, output = draw(dtype=np.float32)
    value, gradient = loss(target, target)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    blank = np.zeros_like(target)
    for pair in ((blank, output), (target, blank), (blank, blank)):
        value, gradient = loss(*pair)
        assert np.isfinite(value) and np.isfinite(gradient).all()


@every_loss
def test_opposite_images_have_finite_gradients(name):
    """The contrast of a scale is negative there, and its power would not be a number."""
    target, _ = draw((2, 48, 48, 3), np.float32)
    value, gradient = jax.value_and_grad(IMAGE_LOSSES[name], argnums=1)(target, -target)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@every_loss
def test_bfloat16_is_computed_in_float32(name):
    loss = jax.jit(jax.value_and_grad(IMAGE_LOSSES[name], argnums=1))
    target, output = (jnp.asarray(images, jnp.bfloat16) for images in draw())
    value, gradient = loss(target, output)
    wide_value, wide_gradient = loss(target.astype(jnp.float32), output.astype(jnp.float32))
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, wide_value, rtol=1e-5)
    scale = float(jnp.abs(wide_gradient).max())
    np.testing.assert_allclose(
        gradient.astype(np.float32), wide_gradient, rtol=2**-7, atol=1e-4 * scale
    )


@every_loss
def test_nan_is_never_hidden(name):
    target, output = draw(dtype=np.float32)
    output[1, 2, 3, 1] = math.nan
    assert np.isnan(IMAGE_LOSSES[name](target, output))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_images_smaller_than_the_window_are_refused(name):
    images = np.zeros((2, 16, 8, 3), np.float32)
    with pytest.raises(InputError, match=f"{name}: images of 16 x 8 pixels"):
        IMAGE_LOSSES[name](images, images)


def test_every_loss_of_images_is_tested_here():
    of_images = [name for name in losses.BEYOND if losses.parse(name).images_only]
    assert sorted(of_images) == sorted(IMAGE_LOSSES)


COLLECTIVES = """
import re, jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dgnet_jax import losses

mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
divided = NamedSharding(mesh, PartitionSpec("devices"))
images = jax.ShapeDtypeStruct((8, 32, 16, 3), jnp.float32, sharding=divided)
for name in losses.BEYOND:
    loss = losses.reconstruction_loss(name)
    if name == "teacher_features":
        loss = lambda x, y, loss=loss: loss(x, y, features=lambda z: [z, z[:, ::2, ::2]])
    program = jax.jit(jax.value_and_grad(loss, argnums=1)).lower(images, images).compile()
    found = set(re.findall(r"(all-[a-z]+|collective-permute)\\(", program.as_text()))
    print(name, *sorted(found))
"""


@pytest.mark.slow
def test_a_batch_that_is_divided_over_devices_stays_so():
    """Only the mean over the batch crosses them."""
    found = subprocess.run(
        [sys.executable, "-c", COLLECTIVES],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines() == [f"{name} all-reduce" for name in losses.BEYOND]
