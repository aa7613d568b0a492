"""Ramps and learning rates at the steps where they change.

docs/method.md, sections 5.1 and 5.3.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from dgnet_jax.training.schedules import first_active_step, ramp, ramped_weight, step_decay
from dgnet_jax.training.state import reid_sgd
from dgnet_jax.training.train_step import active_terms, term_weights
from dgnet_jax.training.trainer import inactive_terms

WARM, SCALE = 30_000, 0.0005


@pytest.mark.parametrize(
    "step, value", [(0, 0), (29_999, 0), (30_000, 0), (30_001, 0.0005), (30_002, 0.001)]
)
def test_a_ramp_starts_after_the_warm_up(step, value):
    assert float(ramp(step, 1.0, WARM, SCALE)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "step, value", [(30_000, 0), (30_001, 0), (30_002, 0.001), (30_003, 0.0015)]
)
def test_a_term_waits_one_step_for_its_ramp(step, value):
    assert float(ramped_weight(step, 1.0, WARM, SCALE)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "step, maximum, value",
    [
        (31_999, 1.0, 0.9995),
        (32_000, 1.0, 1.0),
        (32_001, 1.0, 1.0),
        (33_999, 2.0, 1.9995),
        (34_000, 2.0, 2.0),
        (99_999, 2.0, 2.0),
    ],
)
def test_a_ramp_ends_at_its_maximum(step, maximum, value):
    assert float(ramp(step, maximum, WARM, SCALE)) == pytest.approx(value, rel=1e-6)
    assert float(ramped_weight(step, maximum, WARM, SCALE)) == pytest.approx(value, rel=1e-6)


def test_the_published_terms_at_the_start_of_their_ramps():
    config = base.get_config()
    weights = {
        step: {name: float(value) for name, value in term_weights(config, jnp.int32(step)).items()}
        for step in (0, 30_001, 30_002, 60_000)
    }
    constant = {"generated_identity": 0.5}
    nothing = constant | dict(structure_code=0, appearance_code=0, cycle=0, teacher=0, fine=0)
    assert weights[0] == nothing
    # w of the fine head is 0.2 times the plain ramp of the step before, without the gate.
    assert weights[30_001] == nothing
    begun = dict.fromkeys(("structure_code", "appearance_code", "cycle", "teacher"), 0.001)
    assert weights[30_002] == pytest.approx(begun | constant | {"fine": 0.2 * 0.0005}, rel=1e-6)
    assert weights[60_000] == pytest.approx(
        constant | dict(structure_code=1, appearance_code=1, cycle=2, teacher=2, fine=0.4),
        rel=1e-6,
    )


def test_the_identity_of_generated_images_can_get_its_weight_little_by_little():
    config = base.get_config()
    config.ramp.generated_identity_start, config.ramp.generated_identity_steps = 2, 4
    weights = [
        float(term_weights(config, jnp.int32(step))["generated_identity"]) for step in range(8)
    ]
    np.testing.assert_allclose(weights, [0, 0, 0, 0.125, 0.25, 0.375, 0.5, 0.5])


def test_the_fine_head_begins_with_the_teacher_term_and_half_a_ramp_behind_it():
    config = base.get_config()
    config.ramp.start, config.ramp.scale = 3, 0.1
    steps = [term_weights(config, jnp.int32(step)) for step in range(8)]
    teacher = [0, 0, 0, 0, 0, 0.2, 0.3, 0.4]
    np.testing.assert_allclose([step["teacher"] for step in steps], teacher, rtol=1e-6)
    fine = [0.2 * ramp for ramp in (0, 0, 0, 0, 0, 0.1, 0.2, 0.3)]
    np.testing.assert_allclose([step["fine"] for step in steps], fine, rtol=1e-6)


@pytest.mark.parametrize("delay", [4, -2])
def test_the_teachers_ramp_can_start_apart_from_the_others_and_the_fine_head_follows_it(delay):
    config, together = base.get_config(), base.get_config()
    config.ramp.start, config.ramp.scale, config.ramp.teacher_delay = 3, 0.1, delay
    together.ramp.start, together.ramp.scale = 3, 0.1
    apart = ("teacher", "fine")
    for step in range(2, 16):
        weights = term_weights(config, jnp.int32(step))
        others, same = (term_weights(together, jnp.int32(at)) for at in (step, step - delay))
        for name, weight in weights.items():
            expected = (same if name in apart else others)[name]
            assert float(weight) == pytest.approx(float(expected), rel=1e-6), (step, name)
        # The programs that are compiled and what is printed go by the same starts: 3 + 2, and
        # `delay` later.
        assert active_terms(config, step) == (step >= 5, step >= 5 + delay)
        waiting = {} if step >= 5 + delay else {"teacher": f"until step {6 + delay}"}
        if step < 5:
            names = ("structure_code", "appearance_code", "cycle")
            waiting |= dict.fromkeys(names, "until step 6")
        assert inactive_terms(config, step) == waiting


def test_a_teacher_may_start_behind_all_steps():
    config = base.get_config()
    config.ramp.start = config.ramp.teacher_delay = 2**31 - 1
    assert active_terms(config, 2**31 - 2) == (False, False)
    weights = term_weights(config, jnp.int32(2**31 - 2))
    assert weights["teacher"] == weights["fine"] == weights["cycle"] == 0


@pytest.mark.parametrize("maximum", [1.0, 0.01, 0.0])
@pytest.mark.parametrize("start", [-10, -2, -1, 0, 1, 7])
@pytest.mark.parametrize("scale", [0.05, 0.0])
def test_the_first_active_step_is_the_first_of_positive_weight(maximum, start, scale):
    weights = np.asarray(ramped_weight(jnp.arange(20), maximum, start, scale))
    active = np.flatnonzero(weights > 0)
    first = int(active[0]) if len(active) else None
    assert first_active_step(maximum, start, scale) == first


def test_a_term_is_shown_as_inactive_until_the_step_that_first_has_it():
    config = base.get_config()
    config.weights.cycle = 0.0
    shown = inactive_terms(config, 30_001)
    # The 0-based step 30,002 is the 30,003rd.
    assert shown == {
        "structure_code": "until step 30003",
        "appearance_code": "until step 30003",
        "teacher": "until step 30003",
        "cycle": "in this run",
    }
    assert inactive_terms(config, 30_002) == {"cycle": "in this run"}


def test_an_identity_term_of_rising_weight_is_inactive_until_it_has_one():
    config = base.get_config()
    config.ramp.generated_identity_start, config.ramp.generated_identity_steps = 300, 600
    for step in range(298, 304):
        weight = term_weights(config, jnp.asarray(step))["generated_identity"]
        shown = inactive_terms(config, step).get("generated_identity")
        assert shown == (None if weight > 0 else "until step 302"), step


@pytest.mark.parametrize(
    "step, rate",
    [
        (0, 1e-4),
        (59_998, 1e-4),
        (59_999, 1e-5),
        (60_000, 1e-5),
        (89_998, 1e-5),
        (89_999, 1e-6),
        (99_999, 1e-6),
    ],
)
def test_a_step_uses_the_learning_rate_of_the_count_after_it(step, rate):
    schedule = step_decay(1e-4, (60_000, 90_000), 0.1)
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)
    assert float(schedule(jnp.int32(step))) == pytest.approx(rate, rel=1e-5)


def test_the_warm_up_rises_linearly_and_ends_at_the_rate():
    schedule = step_decay(0.2, (7,), 0.5, warmup_steps=4)
    rates = [float(schedule(step)) for step in range(8)]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.1, 0.1], rel=1e-6)


def test_sgd_follows_the_rate_of_each_part_with_nesterov_momentum_and_l2():
    """buf = 0.9 buf + g, step g + 0.9 buf, weight decay in g; the rate drops at step 2."""
    optimizer = reid_sgd(
        step_decay(0.1, (3,), 0.1), step_decay(1.0, (3,), 0.1), momentum=0.9, weight_decay=0.5
    )
    params = {"backbone": jnp.float32(2.0), "prime": jnp.float32(-1.0)}
    state = optimizer.init(params)
    rates = {"backbone": [0.1, 0.1, 0.01], "prime": [1.0, 1.0, 0.1]}
    value, buffer = {"backbone": 2.0, "prime": -1.0}, {"backbone": 0.0, "prime": 0.0}
    for step, slope in enumerate((0.3, -0.7, 0.2)):
        updates, state = optimizer.update(
            {name: jnp.float32(slope) for name in params}, state, params
        )
        for name in params:
            gradient = slope + 0.5 * value[name]
            buffer[name] = 0.9 * buffer[name] + gradient
            moved = rates[name][step] * (gradient + 0.9 * buffer[name])
            assert float(updates[name]) == pytest.approx(-moved, rel=1e-5)
            value[name] -= moved
        params = {name: params[name] + updates[name] for name in params}
