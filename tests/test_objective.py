"""The terms of the objective against closed forms in NumPy float64 (docs/method.md, section 3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import FAST_COMPILATION

from dgnet_jax.errors import InputError
from dgnet_jax.losses import l1
from dgnet_jax.models.discriminator import PatchDiscriminator
from dgnet_jax.training import objective
from dgnet_jax.training.passes import score_and_slope

GAN_LOSSES = ("lsgan", "nsgan")
BATCH, IDENTITIES = 3, 6


pytestmark = pytest.mark.usefixtures("float64")


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def by_direction(values):
    """The mean of each direction of (batch, 2, ...)."""
    return np.array([values[:, 0].mean(), values[:, 1].mean()])


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_the_least_squares_discriminator():
    fake, real, squared_norm = draw(BATCH, 2, 4, 2, 1), draw(BATCH, 2, 4, 2, 1), draw(BATCH, 2) ** 2
    expected = by_direction(fake**2) + by_direction((real - 1) ** 2)
    expected += 0.01 * by_direction(squared_norm)
    close(objective.discriminator_terms(fake, real, squared_norm, "lsgan", 0.01), expected)


def test_the_non_saturating_discriminator():
    fake, real, squared_norm = draw(BATCH, 2, 4, 2, 1), draw(BATCH, 2, 4, 2, 1), draw(BATCH, 2) ** 2
    expected = by_direction(-np.log(1 - sigmoid(fake))) + by_direction(-np.log(sigmoid(real)))
    expected += 0.01 * by_direction(squared_norm)
    close(objective.discriminator_terms(fake, real, squared_norm, "nsgan", 0.01), expected)


def test_the_adversarial_term_is_summed_over_scales_and_doubled_for_least_squares_only():
    scores = [draw(BATCH, 2, 8, 4, 1), draw(BATCH, 2, 4, 2, 1, seed=1)]
    least_squares = sum(2 * by_direction((score - 1) ** 2) for score in scores)
    close(objective.adversarial(scores, "lsgan"), least_squares)
    cross_entropy = sum(by_direction(-np.log(sigmoid(score))) for score in scores)
    close(objective.adversarial(scores, "nsgan"), cross_entropy)


def test_non_saturating_terms_are_finite_for_a_certain_discriminator():
    certain = np.full((1, 2, 1, 1, 1), 1e4)
    wrong = objective.discriminator_terms(certain, -certain, np.zeros((1, 2)), "nsgan", 0.0)
    close(wrong, [2e4, 2e4])
    close(objective.adversarial([-certain], "nsgan"), [1e4, 1e4])


def linear_score(weights):
    """Scores of a map of one value: sum(weights * image)."""
    return lambda images: (weights * images).sum((1, 2, 3))[:, None, None, None]


def test_the_penalty_of_a_linear_discriminator_is_the_squared_norm_of_its_weights():
    weights, images = jnp.asarray(draw(2, 2, 3)), jnp.asarray(draw(BATCH, 2, 2, 3, seed=1))
    scores, squared_norm = score_and_slope(linear_score(weights), images, "lsgan")
    close(scores[:, 0, 0, 0], (np.asarray(images) * weights).sum((1, 2, 3)))
    close(squared_norm, np.full(BATCH, np.sum(np.square(weights))))
    gradient = jax.grad(lambda w: score_and_slope(linear_score(w), images, "lsgan")[1].mean())
    close(gradient(weights), 2 * weights)


def test_the_non_saturating_penalty_is_that_of_the_sigmoid():
    weights, images = jnp.asarray(draw(2, 2, 3)), jnp.asarray(draw(BATCH, 2, 2, 3, seed=1))
    scores, squared_norm = score_and_slope(linear_score(weights), images, "nsgan")
    score = (np.asarray(images) * weights).sum((1, 2, 3))
    close(scores[:, 0, 0, 0], score)
    slope = sigmoid(score) * (1 - sigmoid(score))
    close(squared_norm, slope**2 * np.sum(np.square(weights)))


@pytest.mark.parametrize("gan", GAN_LOSSES)
def test_the_penalty_trains_the_discriminator_as_double_backward_does(gan):
    model = PatchDiscriminator(dim=2, num_residual=1, dtype=jnp.float64)
    images = jnp.asarray(draw(2, 8, 8, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), shapes)

    def judged(variables, images):
        scores = model.apply(variables, images)
        return (jax.nn.sigmoid(scores) if gan == "nsgan" else scores).sum()

    def double_backward(variables):
        slope = jax.grad(judged, argnums=1)(variables, images)
        return jnp.square(slope).sum((1, 2, 3)).mean()

    def ours(variables):
        return score_and_slope(lambda x: model.apply(variables, x), images, gan)[1].mean()

    # Compiling takes longer than running: without optimisation.
    (expected_value, expected), (value, gradient) = (
        jax.jit(jax.value_and_grad(function), compiler_options=FAST_COMPILATION)(variables)
        for function in (double_backward, ours)
    )
    assert float(value) == pytest.approx(float(expected_value), rel=1e-12)
    assert float(value) > 0
    for leaf, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        scale = np.abs(wanted).max() + 1e-12
        np.testing.assert_allclose(leaf / scale, wanted / scale, atol=1e-10)


def test_cross_entropy():
    logits, labels = draw(BATCH, 2, IDENTITIES), np.array([[0, 5], [3, 3], [1, 2]])
    chosen = np.take_along_axis(softmax(logits), labels[..., None], -1)[..., 0]
    close(objective.cross_entropy(logits, labels), by_direction(-np.log(chosen)))


def test_reconstruction_measures_each_direction_on_its_own():
    target, output = draw(BATCH, 2, 4, 2, 3), draw(BATCH, 2, 4, 2, 3, seed=1)
    close(objective.reconstruction(l1, target, output), by_direction(np.abs(target - output)))


@pytest.fixture
def teacher():
    """The teacher's logits on images and mirrors, and the two source identities."""
    logits, mirrored = 2 * draw(BATCH, 2, IDENTITIES), 2 * draw(BATCH, 2, IDENTITIES, seed=1)
    appearance = np.array([[0, 5], [3, 3], [1, 2]])
    # The second item of the first direction has one identity as both of its sources.
    return logits, mirrored, appearance, np.array([[5, 0], [3, 4], [2, 1]])


def labels_of(style, teacher):
    logits, mirrored, appearance, structure = teacher
    return objective.teacher_labels(logits, mirrored, style, appearance, structure)


def test_soft_labels_are_the_normalised_sum_of_both_views(teacher):
    both = softmax(teacher[0]) + softmax(teacher[1])
    close(labels_of(0, teacher), both / 2)


def test_hard_labels_are_the_argmax_of_that_sum(teacher):
    both = softmax(teacher[0]) + softmax(teacher[1])
    close(labels_of(1, teacher), np.eye(IDENTITIES)[both.argmax(-1)])


def test_appearance_labels_are_the_identity_of_the_clothes(teacher):
    close(labels_of(2, teacher), np.eye(IDENTITIES)[teacher[2]])


def test_uniform_labels_spread_over_all_identities(teacher):
    close(labels_of(3, teacher), np.full((BATCH, 2, IDENTITIES), 1 / IDENTITIES))


def test_source_labels_are_the_sum_restricted_to_the_two_identities(teacher):
    both = softmax(teacher[0]) + softmax(teacher[1])
    expected = np.zeros_like(both)
    for item in range(BATCH):
        for direction in range(2):
            sources = {int(teacher[2][item, direction]), int(teacher[3][item, direction])}
            total = sum(both[item, direction, source] for source in sources)
            for source in sources:
                expected[item, direction, source] = both[item, direction, source] / total
    labels = labels_of(4, teacher)
    close(labels, expected)
    np.testing.assert_array_equal(labels[1, 0], np.eye(IDENTITIES)[3])


def test_source_labels_survive_a_teacher_that_is_certain_of_somebody_else():
    # In float32 the softmax of both sources is 0.
    logits = jnp.zeros((1, 2, IDENTITIES), jnp.float32).at[..., 0].set(200)
    labels = objective.teacher_labels(logits, logits, 4, jnp.array([[1, 2]]), jnp.array([[2, 1]]))
    np.testing.assert_allclose(labels[0, 0], [0, 0.5, 0.5, 0, 0, 0], atol=1e-6)


def test_labels_carry_no_gradient(teacher):
    _, mirrored, *sources = teacher
    gradient = jax.grad(
        lambda logits: jnp.square(objective.teacher_labels(logits, mirrored, 0, *sources)).sum()
    )(jnp.asarray(teacher[0]))
    assert not np.any(gradient)


def test_kl_divergence_with_zeros_in_the_labels():
    logits = draw(BATCH, 2, IDENTITIES)
    labels = softmax(draw(BATCH, 2, IDENTITIES, seed=1))
    labels[:, :, ::2] = 0
    labels[0, 0] = np.eye(IDENTITIES)[1]
    labels /= labels.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = labels * (np.log(labels) - np.log(softmax(logits)))
    terms = np.where(labels == 0, 0, terms).sum(-1)
    close(objective.kl_divergence(labels, jnp.asarray(logits)), by_direction(terms))
    gradient = jax.grad(lambda x: objective.kl_divergence(labels, x).sum())(jnp.asarray(logits))
    # Of each of the two means: (softmax(logits) - labels) / batch.
    close(gradient, (softmax(logits) - labels) / BATCH)


def test_kl_divergence_is_zero_where_the_student_says_what_the_teacher_says():
    logits = draw(BATCH, 2, IDENTITIES)
    close(objective.kl_divergence(softmax(logits), logits), [0, 0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "gan, style, named",
    [
        ("wgan", 0, "--config.gan_loss: 'wgan'"),
        ("lsgan", 5, "--config.teacher.label_style: 5"),
        ("lsgan", "soft", "--config.teacher.label_style: 'soft'"),
    ],
)
def test_an_unknown_choice_is_named(gan, style, named):
    with pytest.raises(InputError, match=named):
        objective.check_choices(gan, style)
