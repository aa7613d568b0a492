"""What a step of DG-Net trains, and that it is compiled once (docs/method.md, sections 3 and 3.4).

`test_reference_step.py` holds its numbers against the released program's.
"""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from compilation import FAST_COMPILATION
from tiny import IDENTITIES, tiny_config, tiny_state, tiny_teacher

from dgnet_jax.ablation import Study
from dgnet_jax.ablation.points import assign
from dgnet_jax.ablation.runner import Runner
from dgnet_jax.config_fields import expressions
from dgnet_jax.losses import Expression, parse, teacher_features
from dgnet_jax.models import build_networks
from dgnet_jax.runtime.devices import place
from dgnet_jax.training.passes import Generator
from dgnet_jax.training.session import Session, make_train_step
from dgnet_jax.training.state import PARTS, make_optimizers
from dgnet_jax.training.train_step import (
    EVERY_TERM,
    Batch,
    StepRandomness,
    active_terms,
    make_update,
)

pytestmark = pytest.mark.slow

RAMPED = ("structure_code", "appearance_code", "cycle", "teacher")
WITHOUT_DROPOUT_OF_E_A = {"appearance.dropout_prime": 0.0, "appearance.dropout_fine": 0.0}
WITHOUT_DROPOUT = {**WITHOUT_DROPOUT_OF_E_A, "teacher.label_dropout": False}
NO_WEIGHTS = {name: 0.0 for name in tiny_config().weights}
STEP = 5


def draw_batch(erased=True):
    rng = np.random.default_rng(3)
    images = rng.standard_normal((4, 4, 32, 16, 3)).astype(np.float32)
    holes = images.copy()
    holes[:, :, 8:20, 4:12] = 0
    labels = jnp.array([[0, 1], [2, 3], [4, 4], [1, 0]], jnp.int32)
    return Batch(jnp.asarray(images), jnp.asarray(holes) if erased else None, labels)


class Laboratory:
    """A compiled step whose weights of terms, losses' numbers and weight decay are arguments."""

    def __init__(self, fields):
        self.config = tiny_config({"batch_size": 4, **fields})
        self.networks = build_networks(self.config, IDENTITIES)
        self.optimizers = make_optimizers(self.config)
        self.state = tiny_state(self.networks, self.optimizers, STEP)
        self.teacher = tiny_teacher(self.networks)

        def step(state, batch, coin, weights, decay, key, inputs):
            config = ml_collections.ConfigDict(self.config.to_dict(), type_safe=False)
            config.weights = ml_collections.ConfigDict(weights, type_safe=False)
            config.optimizer.weight_decay = decay
            update = make_update(config, self.networks, make_optimizers(config))
            return update(state, self.teacher, batch, StepRandomness(key, coin), inputs)

        self._step = jax.jit(step, compiler_options=FAST_COMPILATION)

    def step(self, weights, coin=True, decay=0.0, key=7, losses=None):
        batch = draw_batch(bool(self.config.augment.erasing_probability))
        weights = NO_WEIGHTS | weights
        inputs = {use: one.inputs for use, one in (losses or expressions(self.config)).items()}
        return self._step(self.state, batch, coin, weights, decay, jax.random.key(key), inputs)

    def learners(self, weights, coin):
        """Which parts one step with these weights changes; D always learns."""
        state, _ = self.step(weights, coin)
        before, after = parts_of(self.state), parts_of(state)
        assert changed(before.pop("discriminator"), after.pop("discriminator"))
        return {name for name in before if changed(before[name], after[name])}


def parts_of(state):
    decoder = state.generator["decoder"]
    return {
        "structure encoder": state.generator["structure_encoder"],
        "decoder": {name: leaf for name, leaf in decoder.items() if "mlp" not in name},
        "MLPs": {name: leaf for name, leaf in decoder.items() if "mlp" in name},
        **state.appearance,
        "discriminator": state.discriminator,
    }


def changed(before, after):
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any(not np.array_equal(old, new) for old, new in pairs)


@cache
def released() -> Laboratory:
    """The released program's step: the appearance code is cut from the gradient."""
    return Laboratory(WITHOUT_DROPOUT)


@cache
def papers_equations() -> Laboratory:
    """Without the cut; with average pooling, and without random erasing besides.

    With the teacher's dropout when it labels, as published; with its features as a loss of images.
    """
    return Laboratory(
        {
            **WITHOUT_DROPOUT_OF_E_A,
            "reconstruction_loss": "l1+huber(0.5)",
            "reconstruction.images": "l1+huber(0.5)+teacher_features",
            "appearance.cut_gradient": False,
            "appearance.pooling": "average",
            "augment.erasing_probability": 0.0,
            "teacher.label_style": 4,
        }
    )


GENERATOR = {"structure encoder", "decoder", "MLPs"}
IMAGE_FIXED, IMAGE_TRAINED = True, False


@pytest.mark.parametrize(
    "term, coin, learners",
    [
        ("gan", IMAGE_TRAINED, GENERATOR),
        ("self_reconstruction", IMAGE_TRAINED, GENERATOR),
        ("same_identity_reconstruction", IMAGE_TRAINED, GENERATOR),
        # The image is fixed: E_s learns to find in it the structure that it was painted on.
        ("structure_code", IMAGE_FIXED, {"structure encoder"}),
        # The image is trained, and with it what it was made of: E_s by its first pass alone.
        ("structure_code", IMAGE_TRAINED, GENERATOR),
        ("appearance_code", IMAGE_FIXED, set()),
        ("appearance_code", IMAGE_TRAINED, set()),
        ("cycle", IMAGE_FIXED, GENERATOR),
        ("cycle", IMAGE_TRAINED, GENERATOR),
        ("identity", IMAGE_TRAINED, {"backbone", "prime"}),
        ("same_identity", IMAGE_TRAINED, {"backbone", "prime"}),
        ("generated_identity", IMAGE_TRAINED, GENERATOR),
        # w = 0: only the primary features are taught.
        ("teacher", IMAGE_TRAINED, {"backbone", "prime"}),
    ],
)
def test_with_the_cut_each_term_trains_its_networks_and_no_image_loss_trains_e_a(
    term, coin, learners
):
    assert released().learners({term: 1.0}, coin) == learners


@pytest.mark.parametrize(
    "term, coin, learners",
    [
        ("gan", IMAGE_TRAINED, GENERATOR | {"backbone"}),
        ("self_reconstruction", IMAGE_TRAINED, GENERATOR | {"backbone"}),
        ("same_identity_reconstruction", IMAGE_TRAINED, GENERATOR | {"backbone"}),
        ("structure_code", IMAGE_FIXED, {"structure encoder"}),
        ("structure_code", IMAGE_TRAINED, GENERATOR | {"backbone"}),
        # f(x_ba) trains the image, which trains the code that it was painted with.
        ("appearance_code", IMAGE_FIXED, GENERATOR | {"backbone"}),
        ("cycle", IMAGE_FIXED, GENERATOR | {"backbone"}),
        ("cycle", IMAGE_TRAINED, GENERATOR | {"backbone"}),
        ("identity", IMAGE_TRAINED, {"backbone", "prime"}),
        ("generated_identity", IMAGE_TRAINED, GENERATOR | {"backbone"}),
        ("teacher", IMAGE_TRAINED, {"backbone", "prime"}),
    ],
)
def test_without_the_cut_image_losses_train_e_a_through_the_appearance_code(term, coin, learners):
    assert papers_equations().learners({term: 1.0}, coin) == learners


def test_the_fine_head_learns_with_the_teacher_term_from_real_and_from_generated_images():
    e_a = {"backbone", "prime", "fine"}
    assert released().learners({"teacher": 1.0, "fine": 0.2}, IMAGE_TRAINED) == e_a
    everything = {name: 1.0 for name in NO_WEIGHTS}
    assert released().learners(everything, IMAGE_TRAINED) == GENERATOR | e_a


def test_weight_decay_acts_on_a_fine_head_without_gradient():
    laboratory = released()
    state, _ = laboratory.step({"identity": 1.0}, decay=5e-4)
    # Nesterov's first step is 1.9 gradients; the heads' rate is 0.02.
    shrunk = 1 - 0.02 * 1.9 * 5e-4
    for before, after in zip(
        jax.tree.leaves(laboratory.state.appearance["fine"]),
        jax.tree.leaves(state.appearance["fine"]),
        strict=True,
    ):
        np.testing.assert_allclose(after, before * shrunk, rtol=1e-6, atol=1e-9)


def test_the_total_is_the_weighted_sum_of_the_table():
    weights = {name: 0.3 + 0.1 * index for index, name in enumerate(NO_WEIGHTS)}
    _, losses = released().step(weights)
    losses = {name: np.asarray(value, np.float64).sum() for name, value in losses.items()}
    # 0.5 = scale * step: the weights above it are still on their ramp.
    effective = {n: min(w, 0.5) if n in RAMPED else w for n, w in weights.items() if n != "fine"}
    effective["adversarial"] = effective.pop("gan")
    total = sum(weight * losses[name] for name, weight in effective.items())
    assert losses["generator"] == pytest.approx(total, rel=1e-5)
    assert losses["discriminator"] == pytest.approx(losses["discriminator_terms"], rel=1e-6)
    assert set(losses) == set(effective) | {"generator", "discriminator", "discriminator_terms"}


def test_the_teachers_dropout_makes_its_labels_random_and_nothing_else():
    def losses_by(laboratory, key):
        return laboratory.step({"teacher": 1.0}, key=key)[1]

    first, second = (losses_by(papers_equations(), key) for key in (7, 8))
    assert set(first) == {name for name in first if np.isfinite(first[name]).all()}
    differing = {name for name in first if not np.array_equal(first[name], second[name])}
    assert differing == {"teacher", "generator"}
    first, second = (losses_by(released(), key) for key in (7, 8))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    return np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels])


@cache
def passes():
    """E_a over the step's batches, one by one: (running statistics, prime and fine logits)."""
    laboratory = released()
    networks, state, batch = laboratory.networks, laboratory.state, draw_batch()
    encoder = networks.appearance_encoder

    @jax.jit
    def one(stats, images):
        (features, prime, fine), updated = encoder.apply(
            {"params": state.appearance, "batch_stats": stats},
            images,
            use_running_average=False,
            mutable=["batch_stats"],
        )
        return updated["batch_stats"], features.code, prime.logits, fine.logits

    stats, codes, logits = state.appearance_stats, [], []
    for images in (batch.images, batch.erased):
        for group in range(4):
            stats, code, *both = one(stats, images[:, group])
            codes.append(code)
            logits.append(both)
    codes = jnp.stack(codes[:4], axis=1)
    painted, _ = Generator(networks).forward(state.generator, batch.images[:, :2], codes)
    for group in range(2):
        stats, *_ = one(stats, painted[:, group])
    return stats, logits


def test_running_statistics_move_by_each_batch_in_the_published_order():
    """x_a, x_b, xp_a, xp_b, the same erased, then x_ba and x_ab for the student."""
    stats, _ = passes()
    state, _ = released().step({"teacher": 1.0})
    for ours, expected in zip(
        jax.tree.leaves(state.appearance_stats), jax.tree.leaves(stats), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-5)


def test_identity_logits_come_from_the_erased_copies():
    _, logits = passes()
    labels = np.asarray(draw_batch().labels)
    _, losses = released().step({"teacher": 1.0, "fine": 0.2})
    # w = 0.2 * ramp(step - 1).
    expected = [
        cross_entropy(logits[4 + i][0], labels[:, i])
        + 0.2 * 0.4 * cross_entropy(logits[4 + i][1], labels[:, i])
        for i in range(2)
    ]
    np.testing.assert_allclose(losses["identity"], expected, rtol=1e-3)
    expected = [cross_entropy(logits[6 + i][0], labels[:, i]) for i in range(2)]
    np.testing.assert_allclose(losses["same_identity"], expected, rtol=1e-3)


def test_bfloat16_keeps_float32_where_it_matters_and_the_losses_near():
    weights = tiny_config().weights.to_dict()
    state, losses = Laboratory({**WITHOUT_DROPOUT, "dtype": "bfloat16"}).step(weights)
    _, exact = released().step(weights)
    floats = [leaf.dtype for leaf in jax.tree.leaves((state, losses)) if leaf.dtype != jnp.int32]
    assert set(floats) == {jnp.dtype("float32")}
    for name, value in exact.items():
        np.testing.assert_allclose(np.sum(losses[name]), np.sum(value), rtol=0.05, err_msg=name)


# Settings that are not of the published recipe, together in a few runs: a compilation each.
VARIANTS = {
    "published": {},
    "nsgan, argmax labels, running statistics": {
        "gan_loss": "nsgan",
        "teacher.label_style": 1,
        "appearance.train_bn": False,
        "freeze": ("structure_encoder", "appearance_encoder"),
    },
    "appearance labels, two scales, no erasing": {
        "teacher.label_style": 2,
        "discriminator.num_scales": 2,
        "augment.erasing_probability": 0.0,
        "reconstruction_loss": "l1_cos",
        "freeze": ("decoder", "discriminator"),
    },
    "uniform labels, average pooling": {
        "teacher.label_style": 3,
        "appearance.pooling": "average",
        "teacher.pooling": "max",
        "reconstruction_loss": "0.5*huber+2*rmse",
    },
}
RAMP_START, STEPS = 1, 6


@cache
def run(variant, steps=STEPS, always_every_term=False):
    """Steps over the start of the ramps, compiled as the trainer does: (losses, traces, states).

    `always_every_term`: before the ramps too, by the program that the steps after them are of.
    """
    config = tiny_config({"batch_size": 2, "ramp.start": RAMP_START, **VARIANTS[variant]})
    networks, optimizers = build_networks(config, IDENTITIES), make_optimizers(config)
    placement = place()
    traced = []

    @cache
    def compiled(active):
        step = make_train_step(config, networks, optimizers, active)

        def counted(*arguments):
            traced.append(len(losses))
            return step(*arguments)

        return jax.jit(
            counted,
            in_shardings=(placement.replicated, placement.replicated, placement.sharded),
            out_shardings=placement.replicated,
            donate_argnums=0,
            compiler_options=FAST_COMPILATION,
        )

    first = tiny_state(networks, optimizers, 0)
    before = jax.tree.map(np.array, first)
    teacher = placement.put_state(tiny_teacher(networks))
    state, losses, donated = placement.put_state(first), [], []
    for index in range(steps):
        rng = np.random.default_rng(index)
        images = rng.integers(0, 256, (2, 4, 32, 16, 3), np.uint8)
        labels = rng.integers(0, IDENTITIES, (2, 2), np.int32)
        given, arrays = state, {"images": images, "labels": labels}
        active = EVERY_TERM if always_every_term else active_terms(config, index)
        state, found = compiled(active)(
            given, teacher, placement.put_batch(2, lambda rows, whole=arrays: whole)
        )
        losses.append(jax.tree.map(np.asarray, found))
        donated.append(all(leaf.is_deleted() for leaf in jax.tree.leaves(given)))
    return losses, traced, donated, before, jax.tree.map(np.asarray, state)


def test_the_step_is_traced_before_and_after_the_ramps_begin_and_donates_its_state():
    _, traced, donated, _, state = run("published")
    assert traced == [0, RAMP_START + 2]
    assert all(donated)
    assert state.step == STEPS


def test_a_step_without_the_ramped_terms_is_the_whole_one_where_they_have_no_weight():
    (losses,), *_, state = run("published", steps=1)
    (by_the_whole,), *_, expected = run("published", steps=1, always_every_term=True)
    for name in losses.keys() - set(RAMPED):
        np.testing.assert_allclose(losses[name], by_the_whole[name], rtol=1e-3, err_msg=name)
    # Where there is no teacher, nothing of generated images moves the running statistics.
    state, expected = (tree.replace(appearance_stats=None) for tree in (state, expected))
    for leaf, whole in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        # Adam's first step is 1e-4 times a gradient's sign, however small that gradient is.
        np.testing.assert_allclose(leaf, whole, rtol=0, atol=1e-3 * np.abs(whole).max() + 3e-4)


def test_a_term_is_exactly_0_before_its_ramp():
    losses, *_ = run("published")
    for name in RAMPED:
        active = [bool(np.any(step[name] != 0)) for step in losses]
        assert active == [step >= RAMP_START + 2 for step in range(STEPS)], name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting_runs_with_finite_losses(variant):
    losses, traced, *_, state = run(variant)
    assert traced == [0, RAMP_START + 2]
    for leaf in jax.tree.leaves((losses, state)):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "freeze" in VARIANTS[name]])
def test_frozen_parts_stay_to_the_bit_and_the_others_learn(variant):
    *_, before, after = run(variant)

    def parts(state):
        return {
            **state.generator,
            "appearance_encoder": (state.appearance, state.appearance_stats),
            "discriminator": state.discriminator,
        }

    before, after = parts(before), parts(after)
    frozen = {name for name in PARTS if not changed(before[name], after[name])}
    assert frozen == set(VARIANTS[variant]["freeze"])


FACTORS = {"images": 2.0, "structure_code": 3.0, "appearance_code": 4.0, "cycle": 5.0}
OF_TERM = {
    "self_reconstruction": "images",
    "same_identity_reconstruction": "images",
    "structure_code": "structure_code",
    "appearance_code": "appearance_code",
    "cycle": "cycle",
}


def test_weights_and_parameters_are_inputs_of_the_step():
    """Ten weightings compile once; multiples of R for single terms give multiples of the terms."""
    laboratory = papers_equations()
    chosen = expressions(laboratory.config)
    _, common = laboratory.step({})
    multiples = {
        use: Expression(tuple(t._replace(weight=FACTORS[use] * t.weight) for t in one.terms))
        for use, one in chosen.items()
    }
    _, apart = laboratory.step({}, losses=multiples)
    for term, use in OF_TERM.items():
        assert (common[term] > 0).all()
        np.testing.assert_allclose(apart[term], FACTORS[use] * common[term], rtol=1e-5)
    np.testing.assert_allclose(apart["adversarial"], common["adversarial"], rtol=1e-6)
    weighted = []
    for i in range(1, 11):
        one = parse(f"{0.1 * i}*l1+{i}*huber({i})")
        weighted.append(laboratory.step({}, losses=chosen | {"cycle": one})[1]["cycle"])
    assert len({value.tobytes() for value in map(np.asarray, weighted)}) == 10
    assert laboratory._step._cache_size() == 1


def test_the_teachers_features_are_a_loss_of_images():
    """They are by running statistics, and without dropout."""
    laboratory = papers_equations()
    alone = parse("teacher_features").padded(parse("l1+huber"))
    chosen = expressions(laboratory.config) | {"images": alone}
    _, losses = laboratory.step({}, losses=chosen)
    networks, params = laboratory.networks, laboratory.state.generator
    real = draw_batch().images[:, :2]
    images = draw_batch().images
    (features, _, _), _ = networks.appearance_encoder.apply(
        laboratory.state.appearance_variables,
        images.reshape(-1, *images.shape[2:]),
        groups=4,
        use_running_average=False,
        mutable=["batch_stats"],
    )
    codes = features.code.reshape(4, 4, -1)[:, :2]
    structure = Generator(networks).structure_codes(params, real)
    rebuilt = Generator(networks).decode(params, structure, codes)

    def seen(images):
        return networks.teacher.apply(laboratory.teacher, images, method="feature_maps")

    expected = [teacher_features(real[:, i], rebuilt[:, i], features=seen) for i in range(2)]
    assert min(expected) > 0
    np.testing.assert_allclose(losses["self_reconstruction"], expected, rtol=1e-3)


def test_a_study_of_ten_weightings_has_one_program(tmp_path):
    """One before and one after the ramps; another set of losses has its own."""
    weightings = [f"{i}*l1+huber({i})" for i in range(1, 11)]
    config = tiny_config({"ramp.start": 4})
    study = Study(config, [*weightings, "l1+mse"], seeds=[0, 1], workdir=tmp_path)
    runs = [
        Runner(study.config, tmp_path).config_of(*pair) for pair in assign(study.points, [0, 1])
    ]
    session = Session(study.config)
    session.__dict__["data"] = SimpleNamespace(num_identities=IDENTITIES)
    programs = {}
    for run in runs:
        for step in range(run.total_steps):
            losses = [part.name for part in session.reconstruction(run)["images"].form]
            programs.setdefault("+".join(losses), set()).add(session.step(run, step))
    assert {losses: len(found) for losses, found in programs.items()} == {
        "l1+huber": 2,
        "l1+mse": 2,
    }
    assert not set.intersection(*programs.values())


def test_losses_of_one_session_are_together_with_weight_0():
    """A search's runs share a program whatever losses each has; codes get those that fit them."""
    together = parse("l1+rmse+ssim")
    specs = ("l1", "0.5*rmse+ssim")
    code = {f"reconstruction.{use}": "l1" for use in ("structure_code", "appearance_code")}
    configs = [tiny_config({"reconstruction_loss": spec, **code}) for spec in specs]
    session = Session(configs[0], together=together)
    first, second = (session.reconstruction(config) for config in configs)
    for use in FACTORS:
        assert first[use].form == second[use].form
        names = [part.name for part in first[use].form]
        assert names == (["l1", "rmse"] if use.endswith("code") else ["l1", "rmse", "ssim"])
    assert [term.weight for term in second["cycle"].terms] == [0, 0.5, 1]
