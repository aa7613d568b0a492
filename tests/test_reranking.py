"""k-reciprocal re-ranking against torchreid's numbers and the paper's definitions, written out."""

import json

import numpy as np
import pytest
from test_ranking import load_market_problem

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.ranking import evaluate_ranking
from dgnet_jax.evaluation.reranking import KReciprocal


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_torchreid_on_market_labels(market_zip, shared, dtype):
    problem = load_market_problem(market_zip)
    query, query_ids, query_cameras = (values[:400] for values in problem[:3])
    kept = np.flatnonzero(problem[4] != -1)[:3000]
    gallery, gallery_ids, gallery_cameras = (values[kept] for values in problem[3:])
    result = evaluate_ranking(
        query.astype(dtype),
        query_ids,
        query_cameras,
        gallery.astype(dtype),
        gallery_ids,
        gallery_cameras,
        scorer=KReciprocal(20, 6, 0.3).scores,
    )
    expected = json.loads((shared / "reference" / "retrieval.json").read_text())
    after = expected["rerank_subset"]["after"]
    assert result["mAP_standard"] == pytest.approx(after["mAP"], abs=1e-6)
    # torchreid leaves the queries without a match out of Rank@1, Market's program does not.
    assert result["rank1"] * 400 / 49 == pytest.approx(after["rank1"], abs=1e-6)


def distances_by_definition(query, gallery, k1, k2, lambda_value):
    """The paper's sets and vectors with loops over dense float64 matrices."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    items = len(x)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    original = squared**2 / (squared**2).max(axis=1, keepdims=True)
    order = np.argsort(squared, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    encoding = np.zeros((items, items))
    for i in range(items):
        extended = mine = reciprocal(i, k1)
        for candidate in mine:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(mine & theirs) > 2 / 3 * len(theirs):
                extended = extended | theirs
        members = sorted(extended)
        weights = np.exp(-original[i, members])
        encoding[i, members] = weights / weights.sum()
    encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(items)])
    smaller = np.minimum(encoding[: len(query), None], encoding[None, len(query) :]).sum(-1)
    larger = np.maximum(encoding[: len(query), None], encoding[None, len(query) :]).sum(-1)
    jaccard = 1 - smaller / larger
    return (1 - lambda_value) * jaccard + lambda_value * original[: len(query), len(query) :]


def clusters(seed, queries=9, gallery=60, identities=8, dim=5):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, dim))

    def sample(count):
        return centres[rng.integers(0, identities, count)] + 0.5 * rng.standard_normal((count, dim))

    return sample(queries), sample(gallery)


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value"), [(6, 3, 0.3), (5, 1, 0.0), (7, 2, 0.7), (1, 4, 0.3), (20, 6, 1.0)]
)
def test_agrees_with_the_definition(k1, k2, lambda_value):
    query, gallery = clusters(k1)
    tiles = list(KReciprocal(k1, k2, lambda_value).scores(query, gallery))
    expected = distances_by_definition(query, gallery, k1, k2, lambda_value)
    np.testing.assert_allclose(-np.concatenate(tiles), expected, atol=1e-9)


def test_the_tile_size_changes_nothing_and_tiles_are_small():
    query, gallery = clusters(0)
    settings = KReciprocal(6, 3)
    whole = np.concatenate([tile.copy() for tile in settings.scores(query, gallery)])
    tiles = list(settings.scores(query, gallery, tile_bytes=8 * len(gallery) * 2))
    assert [len(tile) for tile in tiles] == [2, 2, 2, 2, 1]
    np.testing.assert_allclose(np.concatenate(tiles), whole, atol=1e-12)


def test_lambda_1_is_the_order_of_the_distances():
    query, gallery = clusters(1)
    (scores,) = KReciprocal(6, 3, 1.0).scores(query, gallery)
    distances = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(np.argsort(-scores), np.argsort(distances))


@pytest.mark.parametrize("k2", [1, 6])
def test_more_equal_images_than_neighbours_have_distance_0(k2):
    query, gallery = np.ones((2, 3)), np.ones((50, 3))
    (scores,) = KReciprocal(20, k2).scores(query, gallery)
    assert np.isfinite(scores).all()
    different = np.concatenate([gallery, -np.ones((5, 3))])
    (scores,) = KReciprocal(20, k2).scores(query, different)
    assert (scores[:, :50].min(axis=1) >= scores[:, 50:].max(axis=1)).all()


def test_fewer_images_than_neighbours_are_ranked():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [0.9, 0.1]])
    (scores,) = KReciprocal(20, 6).scores(query, gallery)
    assert scores[0, 1] > scores[0, 0]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (KReciprocal(k1=0), "k1 0, k2 6"),
        (KReciprocal(k2=0), "k1 20, k2 0"),
        (KReciprocal(lambda_value=1.5), "lambda 1.5"),
    ],
)
def test_settings_out_of_range_are_named(settings, complaint):
    with pytest.raises(InputError, match=complaint):
        list(settings.scores(np.ones((1, 2)), np.ones((2, 2))))
