"""What a training step draws from its seed and number: the coin (docs/method.md, section 3.3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import IDENTITIES, tiny_config

from dgnet_jax.models import build_networks
from dgnet_jax.training import session
from dgnet_jax.training.state import TrainState, make_optimizers

STEPS = 400


def coins(monkeypatch: pytest.MonkeyPatch, **fields: object) -> np.ndarray:
    """The coins of the first steps of a training, (steps,)."""
    # In the place of the networks' update the randomness that they would get.
    monkeypatch.setattr(session, "make_update", lambda *_: lambda *arguments: arguments[3])
    config = tiny_config({"augment.erasing_probability": 0.0, **fields})
    networks = build_networks(config, IDENTITIES)
    step = session.make_train_step(config, networks, make_optimizers(config))
    batch = {
        "images": jnp.zeros((2, 4, 32, 16, 3), jnp.uint8),
        "labels": jnp.zeros((2, 2), jnp.int32),
    }

    def coin(number: jax.Array) -> jax.Array:
        state = TrainState(number, *[None] * (len(TrainState.__dataclass_fields__) - 1))
        return step(state, {}, batch).train_structure_encoder

    return np.asarray(jax.jit(jax.vmap(coin))(np.arange(STEPS)))


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_the_coin_trains_e_s_with_its_probability(probability, monkeypatch):
    thrown = coins(monkeypatch, **{"structure_encoder.train_probability": probability})
    # Four standard deviations of a mean of 400 throws.
    assert abs(thrown.mean() - probability) <= 4 * np.sqrt(probability * (1 - probability) / STEPS)
    assert len(set(thrown)) == (1 if probability in (0, 1) else 2)


def test_another_seed_throws_other_coins(monkeypatch):
    assert (coins(monkeypatch) != coins(monkeypatch, seed=1)).any()
    np.testing.assert_array_equal(coins(monkeypatch), coins(monkeypatch))


def test_the_published_coin_is_the_one_of_earlier_releases(monkeypatch):
    def throw(step: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), 4)
        return jax.random.bernoulli(keys[3])

    expected = np.asarray(jax.vmap(throw)(np.arange(STEPS)))
    np.testing.assert_array_equal(coins(monkeypatch), expected)
