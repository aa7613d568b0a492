"""Every layer against its definition in NumPy float64."""

from math import prod

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models import blocks
from dgnet_jax.models.discriminator import average_pool
from dgnet_jax.models.reid import AppearanceEncoder, pool_parts
from dgnet_jax.models.resnet import GroupedBatchNorm, max_pool


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_batch_norm_keeps_the_groups_of_a_pass_apart(float64):
    batch, groups, channels = 3, 2, 4
    # Item i of group g is row i * groups + g: the group index runs fastest.
    grouped = draw(batch, groups, 5, 2, channels) * 3 + np.arange(groups)[:, None, None, None]
    x = grouped.reshape(batch * groups, 5, 2, channels)
    params = {"scale": 1 + draw(channels, seed=1), "bias": draw(channels, seed=2)}
    stats = {"mean": draw(channels, seed=3), "var": 1 + draw(channels, seed=4) ** 2}

    variables = jax.tree.map(jnp.asarray, {"params": params, "batch_stats": stats})
    y, updated = GroupedBatchNorm(use_running_average=False, groups=groups).apply(
        variables, jnp.asarray(x), mutable=["batch_stats"]
    )

    expected, mean, variance = np.empty_like(grouped), stats["mean"], stats["var"]
    for g in range(groups):
        values = grouped[:, g].reshape(-1, channels)
        normalised = (grouped[:, g] - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
        expected[:, g] = params["scale"] * normalised + params["bias"]
        mean = 0.9 * mean + 0.1 * values.mean(0)
        variance = 0.9 * variance + 0.1 * values.var(0, ddof=1)
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(updated["batch_stats"]["var"], variance, rtol=1e-12)


def test_batch_norm_with_running_statistics_neither_mixes_images_nor_moves(float64):
    x = draw(4, 3, 2, 5)
    stats = {"mean": draw(5, seed=1), "var": np.full(5, 0.25)}
    norm = GroupedBatchNorm(use_running_average=True, groups=2)
    variables = {"params": {"scale": np.ones(5), "bias": np.zeros(5)}, "batch_stats": stats}
    y, updated = norm.apply(variables, jnp.asarray(x), mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - stats["mean"]) / np.sqrt(0.25 + 1e-5), rtol=1e-12)
    np.testing.assert_array_equal(updated["batch_stats"]["mean"], stats["mean"])
    np.testing.assert_array_equal(updated["batch_stats"]["var"], stats["var"])


def test_batch_norm_refuses_a_single_value_a_channel():
    norm = GroupedBatchNorm(use_running_average=False, groups=2)
    with pytest.raises(ValueError, match="a batch needs 2 or more"):
        norm.init(jax.random.key(0), jnp.zeros((2, 7)))


def test_instance_norm_takes_the_biased_variance_of_each_image_and_channel(float64):
    x = 0.01 * draw(2, 3, 4, 5)
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(blocks.instance_norm(jnp.asarray(x)), expected, rtol=1e-12)


def test_adain_multiplies_by_its_scale_alone(float64):
    x, scale, shift = draw(2, 3, 4, 5), draw(2, 5, seed=1), draw(2, 5, seed=2)
    y = blocks.adaptive_instance_norm(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(shift))
    normalised = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    expected = normalised * scale[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    # With "1 +" a scale of 0 would leave the image in.
    erased = blocks.adaptive_instance_norm(jnp.asarray(x), jnp.zeros((2, 5)), jnp.asarray(shift))
    np.testing.assert_array_equal(erased, np.broadcast_to(shift[:, None, None], x.shape))


def test_the_decoders_layer_norm_adds_epsilon_to_the_unbiased_deviation(float64):
    # So faint that the place of epsilon, inside or outside the root, shows.
    x = 1e-4 * draw(2, 3, 2, 4)
    gamma, beta = draw(4, seed=1), draw(4, seed=2)
    y = blocks.ImageLayerNorm().apply({"params": {"gamma": gamma, "beta": beta}}, jnp.asarray(x))
    axes = (1, 2, 3)
    deviation = x.std(axes, ddof=1, keepdims=True)
    expected = (x - x.mean(axes, keepdims=True)) / (deviation + 1e-5) * gamma + beta
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def windows(x, pad_with):
    """Every 3 x 3 window of stride 2 over an image padded by 1: (batch, h, w, 9, channels)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad_with)
    rows, columns = (x.shape[1] - 1) // 2 + 1, (x.shape[2] - 1) // 2 + 1
    found = [
        [padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for j in range(columns)]
        for i in range(rows)
    ]
    found = np.array(found).transpose(2, 0, 1, 3, 4, 5)
    return found.reshape(*found.shape[:3], 9, -1)


POOLED_SIZES = [(8, 4), (7, 5), (6, 3), (1, 1), (2, 1)]


@pytest.mark.parametrize("height, width", POOLED_SIZES)
def test_average_pooling_does_not_count_the_padding(float64, height, width):
    x = draw(2, height, width, 3)
    expected = np.nanmean(windows(x, np.nan), axis=3)
    np.testing.assert_allclose(average_pool(jnp.asarray(x)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("height, width", POOLED_SIZES)
def test_max_pooling_never_takes_the_padding(height, width):
    x = (draw(2, height, width, 3) - 10).astype(np.float32)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), windows(x, -np.inf).max(axis=3))


@pytest.mark.parametrize("pooling, reduce", [("max", np.max), ("average", np.mean)])
def test_parts_of_an_indivisible_height_overlap_as_in_adaptive_pooling(float64, pooling, reduce):
    x = draw(2, 10, 3, 5)
    # Rows floor(10 i / 4) to ceil(10 (i + 1) / 4).
    rows = [(0, 3), (2, 5), (5, 8), (7, 10)]
    expected = np.stack([reduce(x[:, top:end], axis=(1, 2)) for top, end in rows], axis=1)
    np.testing.assert_allclose(pool_parts(jnp.asarray(x), 4, pooling), expected, rtol=1e-12)


def test_the_gradient_of_a_maximum_goes_to_its_first_place_alone(float64):
    x = draw(2, 4, 3, 5).round(1)
    x[0, :2, :, 0] = 0.7
    weights = draw(2, 2, 5, seed=1)
    gradient = jax.grad(lambda x: (weights * pool_parts(x, 2, "max")).sum())(jnp.asarray(x))
    expected = np.zeros_like(x)
    for image, part, channel in np.ndindex(2, 2, 5):
        stripe = x[image, 2 * part : 2 * part + 2, :, channel]
        row, column = np.unravel_index(stripe.argmax(), stripe.shape)
        expected[image, 2 * part + row, column, channel] = weights[image, part, channel]
    np.testing.assert_array_equal(gradient, expected)


def test_the_gradient_of_max_pooling_goes_to_one_place_of_each_window(float64):
    x = jnp.asarray(draw(1, 5, 4, 2))
    flat = jnp.ones((1, 6, 6, 1))
    assert jax.grad(lambda x: max_pool(x).sum())(flat).sum() == 9
    found = jax.grad(lambda x: (jnp.arange(1, 13).reshape(1, 3, 2, 2) * max_pool(x)).sum())(x)
    expected, padded = np.zeros((1, 7, 6, 2)), np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "edge")
    padded[:, [0, -1]], padded[:, :, [0, -1]] = -np.inf, -np.inf
    for row, column, channel in np.ndindex(3, 2, 2):
        window = padded[0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3, channel]
        i, j = np.unravel_index(window.argmax(), window.shape)
        weight = 1 + (row * 2 + column) * 2 + channel
        expected[0, 2 * row + i, 2 * column + j, channel] += weight
    np.testing.assert_array_equal(found, expected[:, 1:-1, 1:-1])


class PassThrough(nn.Module):
    """A backbone that takes the last feature map for its images."""

    features: int

    def __call__(self, images, groups=1, use_running_average=True):
        return images


# The stand-in is no ResNet.
@pytest.mark.usefixtures("unchecked")
def test_the_appearance_code_is_laid_out_channel_major(float64):
    x = draw(2, 8, 3, 6)
    encoder = AppearanceEncoder(PassThrough(6), num_identities=5)
    features = encoder.apply({}, jnp.asarray(x), method="features")
    assert encoder.code_size == 24
    for channel in range(6):
        for part in range(4):
            stripe = x[:, 2 * part : 2 * part + 2, :, channel]
            np.testing.assert_array_equal(features.code[:, channel * 4 + part], stripe.max((1, 2)))
    np.testing.assert_array_equal(features.pooled, x.max((1, 2)))


def convolve(x, kernel, stride=1, dilation=1):
    """The definition, position by position, without padding."""
    rows, columns = kernel.shape[:2]
    reach = dilation * (rows - 1), dilation * (columns - 1)
    height = (x.shape[1] - reach[0] - 1) // stride + 1
    width = (x.shape[2] - reach[1] - 1) // stride + 1
    y = np.empty((len(x), height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            top, left = i * stride, j * stride
            seen = x[:, top : top + reach[0] + 1 : dilation, left : left + reach[1] + 1 : dilation]
            y[:, i, j] = seen.reshape(len(x), -1) @ kernel.reshape(-1, kernel.shape[-1])
    return y


def gradients(bilinear, x, kernel, cotangent):
    """Of sum(cotangent * bilinear(x, kernel)): its value at every unit array."""

    def gradient(function, shape):
        units = np.eye(prod(shape)).reshape(-1, *shape)
        return np.array([np.sum(cotangent * function(unit)) for unit in units]).reshape(shape)

    return (
        gradient(lambda unit: bilinear(unit, kernel), x.shape),
        gradient(lambda unit: bilinear(x, unit), kernel.shape),
    )


# kernel size, stride, dilation, height, width of the padded input.
GEOMETRIES = [
    (1, 1, 1, 4, 3),
    (1, 2, 1, 5, 4),
    (3, 1, 1, 5, 6),
    (3, 2, 1, 8, 6),
    (3, 2, 1, 7, 5),
    (3, 1, 6, 14, 13),
    (5, 1, 1, 6, 5),
    (7, 4, 1, 14, 9),
]
# The forms that `blocks.convolve` chooses from: (type, forward mode).
FORMS = {
    "canonical": (np.float32, False),
    "large maps": (np.float32, False),
    "huge maps": (np.float32, False),
    "forward mode": (np.float32, True),
    "matmuls": (np.float64, False),
    "matmuls in forward mode": (np.float64, True),
    "accelerator": (np.float32, True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size, stride, dilation, height, width", GEOMETRIES)
def test_every_form_of_the_convolution_is_the_definition(
    float64, monkeypatch, form, size, stride, dilation, height, width
):
    dtype, forward_mode = FORMS[form]
    if form == "huge maps":
        monkeypatch.setattr(blocks, "_HUGE_MAP", 1)
        monkeypatch.setattr(blocks, "_IMAGES_AT_ONCE", 1)
    if form == "large maps":
        monkeypatch.setattr(blocks, "_LARGE_MAP", 1)
        monkeypatch.setattr(blocks, "_MANY_CHANNELS", 1)
    x, kernel = draw(2, height, width, 2), draw(size, size, 2, 3, seed=1)
    expected = convolve(x, kernel, stride, dilation)
    cotangent = draw(*expected.shape, seed=2)

    geometry = blocks.Geometry(stride, dilation)

    def ours(x, kernel):
        if form == "accelerator":
            return blocks._plainly(x, kernel, geometry)
        return blocks.convolve(x, kernel, geometry, forward_mode)

    arguments = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    y, pull = jax.vjp(ours, *arguments)
    assert y.dtype == dtype
    tolerance = dict(atol=1e-11) if dtype == np.float64 else dict(atol=2e-4)
    np.testing.assert_allclose(y, expected, **tolerance)
    wanted = gradients(
        lambda x, kernel: convolve(x, kernel, stride, dilation), x, kernel, cotangent
    )
    for ours_gradient, gradient in zip(pull(jnp.asarray(cotangent, dtype)), wanted, strict=True):
        np.testing.assert_allclose(ours_gradient, gradient, **tolerance)
    if forward_mode:
        # Linear in the image: the derivative along a direction is the direction, convolved.
        direction = draw(*x.shape, seed=3)
        _, along = jax.jvp(
            lambda x: ours(x, arguments[1]), arguments[:1], (jnp.asarray(direction, dtype),)
        )
        np.testing.assert_allclose(
            along, convolve(direction, kernel, stride, dilation), **tolerance
        )


@pytest.mark.parametrize("form", [blocks.convolve, blocks._plainly])
@pytest.mark.parametrize("height, width", [(2, 2), (2, 3), (5, 4)])
def test_upsampling_in_one_is_upsampling_padding_and_convolving(form, height, width):
    geometry = blocks.Geometry(padding=(2, 2), reflect=True, upsample=True)

    def in_three(x, kernel):
        doubled = x.repeat(2, axis=1).repeat(2, axis=2)
        padded = np.pad(doubled, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
        return convolve(padded, kernel)

    @jax.jit
    def ours(x, kernel, cotangent):
        y, pull = jax.vjp(lambda x, kernel: form(x, kernel, geometry), x, kernel)
        return y, *pull(cotangent)

    x, kernel = draw(2, height, width, 2), draw(5, 5, 2, 3, seed=1)
    y = in_three(x, kernel)
    cotangent = draw(*y.shape, seed=2)
    expected = y, *gradients(in_three, x, kernel, cotangent)
    found = ours(*(jnp.asarray(array, jnp.float32) for array in (x, kernel, cotangent)))
    for array, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, wanted, atol=2e-4)


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_conv_block_pads_by_reflection_and_a_resnet_with_zeros(float64, dilation):
    x, kernel, bias = draw(2, 6, 5, 2), draw(3, 3, 2, 3, seed=1), draw(3, seed=2)
    widths = ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0))
    for reflect, mode in ((True, "reflect"), (False, "constant")):
        layer = blocks.Conv(
            3, 3, padding=dilation, dilation=dilation, reflect=reflect, dtype=jnp.float64
        )
        params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
        y = layer.apply({"params": params}, jnp.asarray(x))
        expected = convolve(np.pad(x, widths, mode=mode), kernel, dilation=dilation) + bias
        np.testing.assert_allclose(y, expected, atol=1e-11)
