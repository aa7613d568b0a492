"""Feature extraction: every image once, both views, the score of docs/method.md, section 7.1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from processes import run_script

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.features import ranking_features
from dgnet_jax.inference import embed
from dgnet_jax.models.embedding import combine_views, embed_two_views, normalise


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 4, 2, 3), np.uint8)


def first_and_last_row(images):
    """A stand-in network whose embeddings can be read off the image."""
    images = images.astype(jnp.float32)
    return images[:, 0].reshape(len(images), -1), images[:, -1].reshape(len(images), -1)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
def test_every_image_counts_once_whatever_the_batch_size(images, batch_size):
    features = embed(jax.jit(first_and_last_row), images, batch_size=batch_size)
    assert features.shape == (7, 2, 6)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, 0], images[:, 0].reshape(7, 6))
    np.testing.assert_array_equal(features[:, 1], images[:, -1].reshape(7, 6))


def test_all_batches_share_one_compilation(images):
    function = jax.jit(lambda images: first_and_last_row(images))
    embed(function, images, batch_size=3)
    assert function._cache_size() == 1


def test_a_batch_is_dispatched_before_the_one_before_is_fetched(images):
    events = []

    class Output:
        is_fully_addressable = True

        def __init__(self, batch):
            self.batch = batch

        def __array__(self, dtype=None, copy=None):
            events.append(f"fetch {self.batch}")
            return np.zeros((2, 1), dtype)

    def function(_):
        batch = sum(event.startswith("dispatch") for event in events)
        events.append(f"dispatch {batch}")
        return Output(batch), Output(batch)

    embed(function, images[:6], batch_size=2)
    order = list(dict.fromkeys(events))
    assert order == ["dispatch 0", "dispatch 1", "fetch 0", "dispatch 2", "fetch 1", "fetch 2"]


def test_a_sharded_batch_gives_the_same_features(images):
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    function = jax.jit(first_and_last_row)
    np.testing.assert_array_equal(
        embed(function, images, batch_size=2 * len(devices), sharding=sharding),
        embed(function, images, batch_size=4),
    )


def test_views_are_normalised_summed_and_normalised_again():
    view, mirrored = np.random.default_rng(1).standard_normal((2, 5, 512))
    expected = unit(unit(view) + unit(mirrored))
    np.testing.assert_allclose(
        combine_views(jnp.array(view), jnp.array(mirrored)), expected, atol=1e-7
    )


def test_both_views_of_both_embeddings_are_used(images):
    prime, fine = jax.jit(lambda x: embed_two_views(first_and_last_row, x))(images)
    for embedding, row in ((prime, 0), (fine, -1)):
        view = images[:, row].astype(np.float64)
        mirrored = view[:, ::-1].reshape(7, 6)
        expected = unit(unit(view.reshape(7, 6)) + unit(mirrored))
        np.testing.assert_allclose(embedding, expected, rtol=1e-5)


def test_an_image_and_its_mirror_have_the_same_features(images):
    features = embed_two_views(first_and_last_row, jnp.array(images))
    mirrored = embed_two_views(first_and_last_row, jnp.array(images[:, :, ::-1]))
    for embedding, other in zip(features, mirrored, strict=True):
        np.testing.assert_allclose(embedding, other, rtol=1e-6)


def test_a_zero_embedding_stays_finite():
    assert not np.any(normalise(jnp.zeros((1, 4))))
    assert not np.any(combine_views(jnp.ones((1, 4)), -jnp.ones((1, 4))))


def test_bfloat16_embeddings_are_normalised_in_float32():
    embedding = normalise(jnp.ones((1, 512), jnp.bfloat16))
    assert embedding.dtype == jnp.float32
    np.testing.assert_allclose(embedding, 512**-0.5, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_the_inner_product_weighs_fine_by_alpha(alpha):
    prime, fine = unit(np.random.default_rng(2).standard_normal((2, 6, 512)))
    features = ranking_features(prime, fine, alpha)
    assert features.shape == (6, 1024 if alpha else 512)
    np.testing.assert_allclose(
        features @ features.T, prime @ prime.T + alpha * fine @ fine.T, atol=1e-12
    )


def test_fine_alone_scores_by_fine_alone():
    prime, fine = unit(np.random.default_rng(3).standard_normal((2, 6, 512)))
    np.testing.assert_array_equal(ranking_features(prime, fine, fine_only=True), fine)


def test_weighting_keeps_float32():
    half = np.ones((2, 512), np.float32)
    assert ranking_features(half, half, 0.5).dtype == np.float32


@pytest.mark.parametrize("alpha", [-0.5, np.nan, np.inf])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(InputError, match="alpha: found"):
        ranking_features(np.ones((1, 2)), np.ones((1, 2)), alpha)


def test_no_images_are_refused(images):
    with pytest.raises(InputError, match="images: found shape"):
        embed(first_and_last_row, images[:0], batch_size=2)


_SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dgnet_jax.errors import InputError
from dgnet_jax.inference import embed

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec("data"))
mean = jax.jit(lambda images: (images.mean((1, 2)), images.mean((1, 2))))
images = np.arange(20 * 4, dtype=np.uint8).reshape(20, 2, 2, 1).repeat(3, -1)
whole = embed(mean, images, batch_size=20)
assert (embed(mean, images, batch_size=8, sharding=sharding) == whole).all()
try:
    embed(mean, images, batch_size=9, sharding=sharding)
except InputError as error:
    print(error)
"""


def test_a_batch_size_that_devices_do_not_divide_is_refused(tmp_path):
    script = tmp_path / "sharded.py"
    script.write_text(_SHARDED)
    said = run_script(str(script), devices=8)
    assert "multiple of the number of devices" in said


def test_an_impossible_batch_size_is_refused(images):
    with pytest.raises(InputError, match="batch_size: found 0"):
        embed(first_and_last_row, images, batch_size=0)
