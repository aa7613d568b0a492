"""The reconstruction losses against closed forms in numpy float64, and the parser of names."""

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
}
FUSED = {
    "l1_cos_weighted": {"l1": 0.4, "cos": 0.6},
    "l1_mse": {"l1": 1, "mse": 1},
    "l1_mrae": {"l1": 1, "mrae": 1},
    "l1_rmse": {"l1": 1, "rmse": 1},
    "l1_cos": {"l1": 1, "cos": 1},
    "1e-2*ml + .5 * huber": {"ml": 0.01, "huber": 0.5},
}
WEIGHTS = {name: {name: 1} for name in VALUES} | FUSED
THESIS_ORDER = ("l1", "huber", "mse", "mrae", "cos", "rmse", "ml")
THESIS_FUSIONS = ("0.4*l1+0.6*cos", "l1+mse", "l1+mrae", "l1+rmse", "l1+cos")

every_loss = pytest.mark.parametrize("name", THESIS_ORDER)
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
    expected = {"mrae": 1e-4, "ml": np.mean(target**4)}.get(name, 0)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-12)
    expected_gradient = 2 * target**3 / target.size if name == "ml" else np.zeros_like(target)
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
@pytest.mark.parametrize("name", ["rmse", "cos"])
def test_squares_neither_underflow_nor_overflow(name, scale):
    target, output = draw((3, 7), np.float32)
    loss = jax.jit(jax.value_and_grad(losses.reconstruction_loss(name), argnums=1))
    value, gradient = loss(target, output)
    scaled_value, scaled_gradient = loss(scale * target, scale * output)
    value_factor, gradient_factor = {"rmse": (scale, 1), "cos": (1, 1 / scale)}[name]
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
    ],
)
def test_malformed_expression_says_why(spec, reason):
    with pytest.raises(InputError, match=reason):
        losses.reconstruction_loss(spec)
