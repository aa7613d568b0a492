"""The reconstruction losses against closed forms in numpy float64, and the parser of names."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax import losses
from dgnet_jax.errors import InputError

# Closed forms of one flattened sample, as in the table of the thesis: target x, output y.
VALUES = {
    "l1": lambda x, y: np.mean(np.abs(x - y)),
    "huber": lambda x, y: np.mean(
        np.where(np.abs(x - y) <= 1, 0.5 * (x - y) ** 2, np.abs(x - y) - 0.5)
    ),
    "mse": lambda x, y: np.mean((x - y) ** 2),
    "mrae": lambda x, y: np.mean(np.sqrt(np.abs(x - y) + 1e-8)),
    "cos": lambda x, y: 1 - x @ y / np.sqrt((x @ x) * (y @ y)),
    "rmse": lambda x, y: np.sqrt(np.mean((x - y) ** 2)),
    "ml": lambda x, y: np.mean((x * y) ** 2),
    "rmse_printed": lambda x, y: np.sqrt(np.mean(np.sqrt((x - y) ** 2))),
    "huber_printed": lambda x, y: np.mean(
        np.where(np.abs(x * y) <= 1, 0.5 * (x * y) ** 2, np.abs(x * y) - 0.5)
    ),
    "charbonnier": lambda x, y: np.mean(np.sqrt((x - y) ** 2 + 1e-6)),
    "log_cosh": lambda x, y: np.mean(np.log(np.cosh(x - y))),
    "barron": lambda x, y: np.mean(np.log(0.5 * ((x - y) / 0.5) ** 2 + 1)),
}
# Their derivatives with respect to y.
GRADIENTS = {
    "l1": lambda x, y: np.sign(y - x) / x.size,
    "huber": lambda x, y: np.clip(y - x, -1, 1) / x.size,
    "mse": lambda x, y: 2 * (y - x) / x.size,
    "mrae": lambda x, y: np.sign(y - x) / (2 * np.sqrt(np.abs(y - x) + 1e-8)) / x.size,
    "cos": lambda x, y: (x @ y * y / (y @ y) - x) / np.sqrt((x @ x) * (y @ y)),
    "rmse": lambda x, y: (y - x) / np.sqrt(np.mean((x - y) ** 2)) / x.size,
    "ml": lambda x, y: 2 * x**2 * y / x.size,
    "rmse_printed": lambda x, y: np.sign(y - x) / (2 * np.sqrt(np.mean(np.abs(y - x)))) / x.size,
    "huber_printed": lambda x, y: x * np.clip(x * y, -1, 1) / x.size,
    "charbonnier": lambda x, y: (y - x) / np.sqrt((y - x) ** 2 + 1e-6) / x.size,
    "log_cosh": lambda x, y: np.tanh(y - x) / x.size,
    "barron": lambda x, y: 4 * (y - x) / (2 * (y - x) ** 2 + 1) / x.size,
}
FUSED = {
    "l1_cos_weighted": {"l1": 0.4, "cos": 0.6},
    "l1_mse": {"l1": 1, "mse": 1},
    "l1_mrae": {"l1": 1, "mrae": 1},
    "l1_rmse": {"l1": 1, "rmse": 1},
    "l1_cos": {"l1": 1, "cos": 1},
    "1e-2*ml + .5 * huber": {"ml": 0.01, "huber": 0.5},
    "l1_barron": {"l1": 1, "barron": 1},
}
WEIGHTS = {name: {name: 1} for name in VALUES} | FUSED
THESIS_ORDER = ("l1", "huber", "mse", "mrae", "cos", "rmse", "ml")
THESIS_FUSIONS = ("0.4*l1+0.6*cos", "l1+mse", "l1+mrae", "l1+rmse", "l1+cos")

# Losses of any arrays; those of images are in test_image_losses.py.
every_loss = pytest.mark.parametrize("name", VALUES)
every_spec = pytest.mark.parametrize("spec", WEIGHTS)


def draw(shape, dtype=np.float64):
    rng = np.random.default_rng(7)
    return rng.standard_normal(shape).astype(dtype), 2 * rng.standard_normal(shape).astype(dtype)


def flat_pairs(target, output):
    flat_target, flat_output = (array.reshape(len(array), -1) for array in (target, output))
    return list(zip(flat_target, flat_output, strict=True))


def closed_value(spec, target, output):
    samples = flat_pairs(target, output)
    return sum(
        weight * np.mean([VALUES[name](x, y) for x, y in samples])
        for name, weight in WEIGHTS[spec].items()
    )


def closed_gradient(spec, target, output):
    samples = flat_pairs(target, output)
    gradient = sum(
        weight * np.stack([GRADIENTS[name](x, y) for x, y in samples]) / len(samples)
        for name, weight in WEIGHTS[spec].items()
    )
    return gradient.reshape(target.shape)


@every_spec
@pytest.mark.parametrize("shape", [(5,), (3, 4, 5, 2)], ids=lambda shape: f"rank{len(shape)}")
def test_value_and_gradient_are_the_closed_forms(float64, spec, shape):
    target, output = draw(shape)
    value, gradient = jax.jit(jax.value_and_grad(losses.reconstruction_loss(spec), argnums=1))(
        target, output
    )
    assert value.shape == () and value.dtype == gradient.dtype == jnp.float64
    np.testing.assert_allclose(value, closed_value(spec, target, output), rtol=1e-12)
    np.testing.assert_allclose(
        gradient, closed_gradient(spec, target, output), rtol=1e-9, atol=1e-14
    )


@every_loss
def test_name_gives_the_public_function(name):
    assert losses.reconstruction_loss(name) is getattr(losses, name)


@every_spec
def test_float32_without_jit_agrees_too(spec):
    target, output = draw((3, 4, 5, 2), np.float32)
    value = losses.reconstruction_loss(spec)(target, output)
    assert value.dtype == jnp.float32
    expected = closed_value(spec, target.astype(np.float64), output.astype(np.float64))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@every_loss
def test_bfloat16_is_computed_in_float32(name):
    loss = jax.jit(jax.value_and_grad(losses.reconstruction_loss(name), argnums=1))
    target, output = (jnp.asarray(array, jnp.bfloat16) for array in draw((3, 1000)))
    value, gradient = loss(target, output)
    wide_value, wide_gradient = loss(target.astype(jnp.float32), output.astype(jnp.float32))
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, wide_value, rtol=1e-6)
    np.testing.assert_allclose(gradient.astype(np.float32), wide_gradient, rtol=2**-8)


@every_loss
def test_value_does_not_depend_on_the_split_of_the_batch(float64, name):
    loss = jax.jit(losses.reconstruction_loss(name))
    target, output = draw((6, 4, 3))
    whole = loss(target, output)
    uneven = (loss(target[:1], output[:1]) + 5 * loss(target[1:], output[1:])) / 6
    shards = jax.vmap(loss)(target.reshape(3, 2, 4, 3), output.reshape(3, 2, 4, 3))
    np.testing.assert_allclose([uneven, shards.mean()], [whole, whole], rtol=1e-13)


@every_loss
def test_target_carries_no_gradient(name):
    gradient = jax.jit(jax.grad(losses.reconstruction_loss(name)))(*draw((3, 7), np.float32))
    np.testing.assert_array_equal(gradient, 0)


@every_loss
def test_perfect_reconstruction(name):
    target = draw((3, 7), np.float32)[0]
    loss = jax.jit(jax.value_and_grad(losses.reconstruction_loss(name), argnums=1))
    value, gradient = loss(target, target)
    least = {"mrae": 1e-4, "charbonnier": 1e-3}.get(name, 0)
    at_zero = name in ("ml", "huber_printed")
    expected = closed_value(name, target, target) if at_zero else least
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-12)
    expected_gradient = closed_gradient(name, target, target) if at_zero else np.zeros_like(target)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


@every_loss
@pytest.mark.parametrize("zeros", ["target", "output", "both"])
def test_zero_vectors_have_finite_values_and_gradients(name, zeros):
    target, output = draw((3, 7), np.float32)
    if zeros != "output":
        target[1] = 0
    if zeros != "target":
        output[1] = 0
    loss = losses.reconstruction_loss(name)
    value, gradient = jax.jit(jax.value_and_grad(loss, argnums=1))(target, output)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    if name == "cos":
        np.testing.assert_allclose(loss(target[1:2], output[1:2]), 1)
        np.testing.assert_array_equal(gradient[1], 0)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("name", ["rmse", "cos", "rmse_printed"])
def test_squares_neither_underflow_nor_overflow(name, scale):
    target, output = draw((3, 7), np.float32)
    loss = jax.jit(jax.value_and_grad(losses.reconstruction_loss(name), argnums=1))
    value, gradient = loss(target, output)
    scaled_value, scaled_gradient = loss(scale * target, scale * output)
    root = scale**0.5
    value_factor, gradient_factor = {
        "rmse": (scale, 1),
        "cos": (1, 1 / scale),
        "rmse_printed": (root, 1 / root),
    }[name]
    np.testing.assert_allclose(scaled_value, value * value_factor, rtol=1e-5)
    np.testing.assert_allclose(scaled_gradient, gradient * gradient_factor, rtol=1e-4)


def test_small_angles_keep_their_digits_in_float32():
    angle = 1e-4
    value = losses.cos(np.float32([[1, 0]]), np.float32([[np.cos(angle), np.sin(angle)]]))
    np.testing.assert_allclose(value, 1 - np.cos(angle), rtol=1e-4)


@every_loss
def test_nan_is_never_hidden(name):
    target, output = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    output[1, 2] = np.nan
    assert np.isnan(losses.reconstruction_loss(name)(target, output))


def test_huber_delta():
    target, output = np.zeros((1, 2)), np.array([[1.0, 5.0]])
    np.testing.assert_allclose(losses.huber(target, output, delta=2), (0.5 + 2 * (5 - 1)) / 2)
    with pytest.raises(InputError, match="delta is 0"):
        losses.huber(target, output, delta=0)


@pytest.mark.parametrize(
    ("function", "parameters", "reason"),
    [
        (losses.huber_printed, {"delta": -1}, "huber_printed: delta is -1"),
        (losses.charbonnier, {"epsilon": 0}, "epsilon is 0"),
        (losses.barron, {"alpha": 2.5}, "alpha is 2.5"),
        (losses.barron, {"alpha": math.nan}, "alpha is nan"),
        (losses.barron, {"c": 0}, "c is 0"),
    ],
)
def test_parameters_out_of_their_range_are_errors(function, parameters, reason):
    with pytest.raises(InputError, match=reason):
        function(np.zeros((1, 2)), np.ones((1, 2)), **parameters)


# Barron (CVPR 2019), equation 8, of d / c.
BARRON = {
    2.0: lambda d: 0.5 * d**2,
    1.0: lambda d: np.sqrt(d**2 + 1) - 1,
    0.0: lambda d: np.log(0.5 * d**2 + 1),
    -2.0: lambda d: 2 * d**2 / (d**2 + 4),
    -math.inf: lambda d: 1 - np.exp(-0.5 * d**2),
}


@pytest.mark.parametrize("alpha", BARRON)
@pytest.mark.parametrize("traced", [False, True])
def test_barron_has_the_published_special_cases(float64, alpha, traced):
    target, output = draw((3, 7))

    def loss(output, alpha):
        return losses.barron(target, output, alpha, 0.3)

    gradient = jax.grad(loss)
    if traced:
        loss, gradient = jax.jit(loss), jax.jit(gradient)
    expected = np.mean(BARRON[alpha]((output - target) / 0.3))
    np.testing.assert_allclose(loss(output, alpha), expected, rtol=1e-12)
    step = 1e-6 * np.random.default_rng(0).standard_normal(output.shape)
    slope = (loss(output + step, alpha) - loss(output - step, alpha)) / 2
    np.testing.assert_allclose(np.sum(gradient(output, alpha) * step), slope, rtol=1e-6)


@pytest.mark.parametrize("alpha", [2 - 1e-6, 1e-6, -1e-6, 1e-40, -1e6, -1e12, -1e38])
def test_barron_keeps_its_digits_near_its_limits_in_float32(alpha):
    target, output = draw((3, 7), np.float32)
    nearest = min(BARRON, key=lambda limit: abs(limit - alpha) if alpha > -100 else limit)
    expected = np.mean(BARRON[nearest]((output - target).astype(np.float64)))
    np.testing.assert_allclose(losses.barron(target, output, alpha, 1.0), expected, rtol=2e-5)


@pytest.mark.parametrize(
    "spec",
    [
        *("huber(1e-6)", "huber_printed(1e-6)", "charbonnier(1e-6)", "huber(1e18)"),
        *(f"barron({alpha},1e-6)" for alpha in (2, 1, 0, 1e-40, -2, -1e38, "-inf")),
        *("barron(1,1e18)", "charbonnier(1e18)"),
    ],
)
def test_every_parameter_in_its_range_has_finite_gradients_in_float32(spec):
    expression = losses.parse(spec)
    target, output = draw((3, 7), np.float32)
    output[0, :2] = target[0, :2]

    @jax.jit
    def value_and_gradient(inputs):
        loss = functools.partial(losses.evaluate, expression.form, inputs, target)
        return jax.value_and_grad(loss)(output)

    value, gradient = value_and_gradient(expression.inputs)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_log_cosh_keeps_its_digits_in_float32():
    for size in (1e-3, 0.5, 1.0, 2.0, 40.0, 1e6):
        value = losses.log_cosh(np.zeros((1, 1), np.float32), np.full((1, 1), size, np.float32))
        expected = size + np.log1p(np.exp(-2 * size)) - np.log(2)
        if size < 0.1:
            expected = size**2 / 2 - size**4 / 12
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_cosine_over_channels_is_blind_to_brightness(float64):
    target, output = draw((3, 4, 5, 6))
    cosine = (target * output).sum(-1) / np.sqrt((target**2).sum(-1) * (output**2).sum(-1))
    np.testing.assert_allclose(losses.cos_channels(target, output), 1 - cosine.mean(), rtol=1e-12)
    brightness = np.abs(draw((3, 4, 5, 1))[0]) + 0.1
    np.testing.assert_allclose(losses.cos_channels(target, brightness * target), 0, atol=1e-15)
    assert losses.cos(target, brightness * target) > 0.1


def test_cosine_over_channels_at_zero_places():
    target, output = draw((2, 3, 3, 4), np.float32)
    output[0, 1] = 0
    target[1, 2] = 0
    value, gradient = jax.value_and_grad(losses.cos_channels, argnums=1)(target, output)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert not gradient[0, 1].any() and not gradient[1, 2].any()
    np.testing.assert_allclose(losses.cos_channels(target[1:, 2:], output[1:, 2:]), 1)
    np.testing.assert_allclose(losses.cos_channels(np.ones(3), -np.ones(3)), 2)


@pytest.mark.usefixtures("unchecked")
@every_loss
@pytest.mark.parametrize(
    ("target_shape", "output_shape", "reason"),
    [((3, 1), (3, 4), "does not broadcast"), ((), (), "batch"), ((0, 4), (0, 4), "at least one")],
)
def test_wrong_shapes_are_errors(name, target_shape, output_shape, reason):
    with pytest.raises(ValueError, match=reason):
        losses.reconstruction_loss(name)(np.ones(target_shape), np.ones(output_shape))


def test_names_are_in_the_order_of_the_thesis():
    assert losses.LOSSES == THESIS_ORDER
    assert tuple(losses.FUSIONS.values()) == THESIS_FUSIONS


@pytest.mark.parametrize(
    ("spec", "expression"),
    [
        ("l1", "l1"),
        ("l1_rmse", "l1+rmse"),
        ("l1_cos_weighted", "0.4*l1+0.6*cos"),
        (" 0.5 * l1 + 2*rmse ", "0.5*l1+2*rmse"),
        ("rmse+1.0*l1", "l1+rmse"),
        ("l1+l1", "2*l1"),
        ("1e-2*l1+1e+20*ml", "0.01*l1+1e+20*ml"),
        ("0.5*l1_mse+cos", "0.5*l1+0.5*mse+cos"),
        ("huber(0.5)", "huber(0.5)"),
        (" huber ( delta = 1e+0 ) + l1", "l1+huber"),
        ("2*barron(alpha=0,c=0.1)", "2*barron(alpha=0,c=0.1)"),
        ("barron(-inf)", "barron(alpha=-inf,c=0.5)"),
        ("barron(0, c=0.1)+barron(alpha=0,c=.10)", "2*barron(alpha=0,c=0.1)"),
        ("huber(2)+huber(0.5)", "huber(0.5)+huber(2)"),
        ("huber(1e+2)+l1", "l1+huber(100)"),
        ("charbonnier()", "charbonnier"),
        ("l1_ms_ssim_weighted", "0.16*l1+0.84*ms_ssim"),
        ("teacher_features(1,2)+l1_ssim", "l1+ssim+teacher_features(first=1,last=2)"),
    ],
)
def test_canonical_expression(spec, expression):
    assert losses.canonical_expression(spec) == expression
    assert losses.canonical_expression(expression) == expression


def test_callable_is_passed_through():
    def loss(target, output):
        return jnp.max(jnp.abs(target - output))

    assert losses.reconstruction_loss(loss) is loss


def test_a_registered_function_stands_wherever_a_name_does():
    losses.register("worst", lambda target, output: jnp.max(jnp.abs(target - output)))
    target, output = np.zeros((1, 4), np.float32), np.array([[1.0, 2.0, 3.0, 6.0]], np.float32)
    assert losses.canonical_expression("2*worst + l1") == "l1+2*worst"
    assert losses.reconstruction_loss("2*worst+l1")(target, output) == 2 * 6 + 3
    with pytest.raises(InputError, match=r"nearest is 'worst'; known losses: .*, worst;"):
        losses.reconstruction_loss("worts")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "function", "reason"),
    [
        ("l1", losses.mse, "taken"),
        ("l1_rmse", losses.mse, "taken"),
        ("mae", losses.mse, "taken"),
        ("2*l1", losses.mse, "letters, digits and underscores"),
        ("l2e", losses.mse, "ends like a number's exponent"),
        ("mine", 3, "not a function"),
        ("mine", lambda target: target.sum(), "TypeError"),
        ("mine", lambda target, output: target - output, "one real number"),
        ("mine", lambda target, output: (target == output).all(), "one real number"),
    ],
)
def test_what_is_no_loss_of_ones_own_is_not_registered(name, function, reason):
    before = dict(losses.registry.DEFINITIONS)
    with pytest.raises(InputError, match=reason):
        losses.register(name, function)
    assert before == losses.registry.DEFINITIONS


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [
        ("l1_rsme", "l1_rmse"),
        ("hubert", "huber"),
        ("L1", "l1"),
        ("mae", "l1"),
        ("L2", "mse"),
        ("0.5*l1+0.5*cosine", "cos"),
    ],
)
def test_unknown_name_lists_the_known_ones_and_suggests_the_nearest(spec, nearest):
    with pytest.raises(InputError, match=f"unknown loss .*nearest is '{nearest}'") as error:
        losses.reconstruction_loss(spec)
    for known in (*THESIS_ORDER, *losses.FUSIONS):
        assert known in str(error.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "known losses"),
        (None, "known losses"),
        ("l1+", "missing"),
        ("l1++cos", "missing"),
        ("0.4*", "missing"),
        ("*l1", "not a decimal number"),
        ("l1*0.4", "before the loss"),
        ("nan*l1", "not a decimal number"),
        ("inf*l1", "not a decimal number"),
        ("2*3*l1", "not a decimal number"),
        ("-0.5*l1", "negative"),
        ("0*l1+cos", "zero"),
        ("1e999*l1", "range of float32"),
        ("huber(", "brackets"),
        ("huber(0.5", "brackets"),
        ("huber)0.5(", "brackets"),
        ("huber(huber(1))", "brackets"),
        ("huber(0)", "delta is '0'; it has to be a finite number, 1e-06 or more"),
        ("huber(1e-50)", "delta is '1e-50'"),
        ("charbonnier(1e-19)", "epsilon is '1e-19'"),
        ("barron(c=1e-20)", "c is '1e-20'"),
        ("teacher_features(2,1)", "from stage 2 to 1 there is none"),
        ("3e38*l1+3e38*l1", "the weight 6e.38 of l1 is outside the range of float32"),
        ("1.5e-38*l1_cos_weighted", "of l1 is outside the range of float32"),
        ("huber(-inf)", "delta is '-inf'"),
        ("huber(nan)", "delta is 'nan'"),
        ("huber(a)", "delta is 'a'"),
        ("huber(1,2)", "'2' is unknown"),
        ("huber(sigma=1)", "'sigma=1' is unknown, or given twice; huber takes delta=1"),
        ("huber(delta=1,delta=2)", "given twice"),
        ("barron(alpha=0,0.1)", "'0.1' is unknown"),
        ("barron(3)", "a number up to 2, -inf included"),
        ("l1(1)", "l1 takes no parameters"),
        ("l1_rmse(1)", "is a sum and takes no parameters"),
        ("teacher_features(1.5)", "a whole number"),
    ],
)
def test_malformed_expression_says_why(spec, reason):
    with pytest.raises(InputError, match=reason):
        losses.reconstruction_loss(spec)


def test_parameters_reach_the_function(float64):
    target, output = draw((3, 7))
    found = losses.reconstruction_loss("0.5*huber(0.2)+2*barron(alpha=1,c=0.1)")(target, output)
    expected = 0.5 * losses.huber(target, output, 0.2) + 2 * losses.barron(target, output, 1.0, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_expressions_of_the_same_losses_share_one_program():
    """Their weights and parameters are its inputs."""
    target, output = draw((3, 7), np.float32)
    form = losses.parse("l1+huber+barron").form
    traced = []

    @jax.jit
    def loss(inputs):
        traced.append(inputs)
        return losses.evaluate(form, inputs, target, output)

    for spec in (
        "l1+huber+barron",
        "0.5*l1+2*huber(0.3)+barron(alpha=-inf,c=2)",
        "3*barron(alpha=2)+huber(9)+1e-3*l1",
    ):
        expression = losses.parse(spec)
        assert expression.form == form
        expected = losses.reconstruction_loss(spec)(target, output)
        np.testing.assert_allclose(loss(expression.inputs), expected, rtol=1e-6)
    assert len(traced) == 1
    assert losses.parse("l1+huber").form != form
    assert losses.parse("teacher_features(1,1)").form != losses.parse("teacher_features(1,2)").form


def test_a_padded_expression_is_the_same_loss_in_the_others_form():
    target, output = draw((3, 7), np.float32)
    others = losses.parse("l1+mse+huber(0.1)+cos")
    first, second = (
        losses.parse(spec).padded(others) for spec in ("2*rmse", "0.5*cos+rmse+huber(3)")
    )
    assert first.form == second.form
    assert [part.name for part in first.form] == ["l1", "huber", "mse", "cos", "rmse"]
    value = losses.evaluate(first.form, first.inputs, target, output)
    np.testing.assert_allclose(value, 2 * losses.rmse(target, output), rtol=1e-6)
    value = losses.evaluate(second.form, second.inputs, target, output)
    expected = losses.reconstruction_loss("0.5*cos+rmse+huber(3)")(target, output)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert [part.name for part in losses.parse("l1+ssim").on_codes().form] == ["l1"]
    twice = losses.parse("huber(0.1)+huber(0.2)")
    forms = {losses.parse(spec).padded(twice).form for spec in ("l1", "l1+huber(5)")}
    assert [[part.name for part in form] for form in forms] == [["l1", "huber", "huber"]]
