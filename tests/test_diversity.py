"""SSIM diversity against scikit-image; pairs of the same identity; identity consistency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_market import smooth_image

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.consistency import identity_consistency
from dgnet_jax.evaluation.diversity import (
    dissimilarity,
    diversity,
    rgb_to_lab,
    same_identity_pairs,
    ssim,
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([np.asarray(smooth_image(seed, 48, 24)) for seed in range(6)])


def test_lab_is_scikit_images() -> None:
    color = pytest.importorskip("skimage.color")
    levels = np.array([0, 1, 9, 10, 11, 64, 128, 200, 255], np.uint8)
    images = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    np.testing.assert_allclose(rgb_to_lab(jnp.asarray(images)), color.rgb2lab(images), atol=2e-3)


def test_lab_of_known_colours() -> None:
    """White, black and sRGB red in CIE Lab (D65)."""
    colours = jnp.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], jnp.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]
    np.testing.assert_allclose(rgb_to_lab(colours), expected, atol=0.02)


def test_ssim_is_scikit_images(images: np.ndarray) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    color = pytest.importorskip("skimage.color")
    first, second = images[:3], images[3:]
    second = np.concatenate([second[:2], (first[2:] // 2 + second[2:] // 2)])
    expected = [
        (
            1
            - metrics.structural_similarity(
                color.rgb2lab(x),
                color.rgb2lab(y),
                data_range=100,
                channel_axis=-1,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
            )
        )
        / 2
        for x, y in zip(first, second, strict=True)
    ]
    found = dissimilarity(jnp.asarray(first), jnp.asarray(second))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ssim_of_flat_images() -> None:
    """Without structure: (2 m n + C1) / (m^2 + n^2 + C1), C1 = (0.01 * 100)^2."""
    first, second = jnp.full((1, 16, 12, 2), 30.0), jnp.full((1, 16, 12, 2), 50.0)
    np.testing.assert_allclose(ssim(first, second), 3001 / 3401, rtol=1e-4)
    np.testing.assert_allclose(ssim(first, first), 1, rtol=1e-6)


def test_diversity_is_the_mean_over_pairs(images: np.ndarray) -> None:
    pairs = np.array([[0, 1], [2, 3], [4, 5], [0, 0], [1, 4]])
    each = dissimilarity(jnp.asarray(images[pairs[:, 0]]), jnp.asarray(images[pairs[:, 1]]))
    for batch_size in (2, 64):
        found = diversity(images, pairs, batch_size=batch_size)
        assert found == pytest.approx(float(np.mean(each)), rel=1e-6)
    assert diversity(images, np.array([[2, 2]])) == pytest.approx(0, abs=1e-6)


def test_pairs_are_of_one_identity_and_two_images() -> None:
    identities = np.array([7, 3, 7, 9, 3, 7, -1])
    pairs = same_identity_pairs(identities, 600, seed=0)
    assert pairs.shape == (600, 2)
    assert np.all(identities[pairs[:, 0]] == identities[pairs[:, 1]])
    assert np.all(pairs[:, 0] != pairs[:, 1])
    # 9 and -1 have one image each; every ordered pair of the others turns up about as expected:
    # each of 5 images first with probability 1/5, each of its partners alike.
    found = {(int(i), int(j)): 0 for i, j in pairs}
    for i, j in pairs:
        found[int(i), int(j)] += 1
    assert set(found) == {(0, 2), (2, 0), (0, 5), (5, 0), (2, 5), (5, 2), (1, 4), (4, 1)}
    for (i, _), count in found.items():
        expected = 600 / 5 / (1 if i in (1, 4) else 2)
        assert abs(count - expected) < 5 * np.sqrt(expected)
    np.testing.assert_array_equal(pairs, same_identity_pairs(identities, 600, seed=0))
    assert not np.array_equal(pairs, same_identity_pairs(identities, 600, seed=1))


def test_no_pair_and_small_images_are_refused(images: np.ndarray) -> None:
    none = same_identity_pairs(np.arange(5))
    assert none.shape == (0, 2)
    with pytest.raises(InputError, match="no identity has two images"):
        diversity(images, none)
    with pytest.raises(InputError, match="10 x 24 pixels are smaller"):
        diversity(images[:, :10], np.array([[0, 1]]))


def test_identity_consistency_counts_rank_1() -> None:
    real = np.array([[1.0, 0], [0, 1], [-1, 0]])
    real_identities = np.array([5, 6, 7])
    # Nearest by cosine, whatever the length: 5, 6, 6, 7.
    generated = np.array([[9, 1], [0.1, 0.2], [-1, 1.5], [-3, 1]])
    identities = np.array([5, 6, 7, 7])
    found = identity_consistency(generated, identities, real, real_identities)
    assert found == 0.75


def test_identity_consistency_in_tiles() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.standard_normal((50, 4)), rng.standard_normal((3000, 4))
    labels, wanted = rng.integers(0, 5, 50), rng.integers(0, 5, 3000)
    cosine = generated @ (real / np.linalg.norm(real, axis=1, keepdims=True)).T
    expected = np.mean(labels[cosine.argmax(1)] == wanted)
    assert identity_consistency(generated, wanted, real, labels) == pytest.approx(expected)


@pytest.mark.usefixtures("unchecked")
def test_identity_consistency_refuses_what_does_not_fit() -> None:
    ones, labels = np.ones((3, 2)), np.arange(3)
    with pytest.raises(InputError, match="real: found features"):
        identity_consistency(ones, labels, ones, labels[:2])
    with pytest.raises(InputError, match="generated: features hold NaN"):
        identity_consistency(ones * np.nan, labels, ones, labels)


def test_dissimilarity_compiles_once(images: np.ndarray) -> None:
    before = dissimilarity._cache_size()
    jax.block_until_ready(diversity(images[:, :40], np.array([[0, 1]] * 7), batch_size=3))
    assert dissimilarity._cache_size() == before + 1
