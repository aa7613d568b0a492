"""Ranking metrics against Market's labels, closed forms and a sort-everything oracle."""

import functools
import json
import zipfile

import numpy as np
import pytest
from reference import seeded

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.metrics import (
    average_precision_standard,
    average_precision_trapezoid,
    cumulative_matches,
    inverse_negative_penalty,
    summarise,
)
from dgnet_jax.evaluation.ranking import evaluate_ranking, rank_hits, rank_hits_of_scores

ARGUMENTS = (
    "query_features",
    "query_ids",
    "query_cameras",
    "gallery_features",
    "gallery_ids",
    "gallery_cameras",
)


def market_labels(market_zip, folder):
    with zipfile.ZipFile(market_zip) as archive:
        paths = [name.split("/") for name in archive.namelist() if name.endswith(".jpg")]
    names = sorted(path[-1] for path in paths if path[-2] == folder)
    fields = [name.split("_") for name in names]
    return np.array([int(f[0]) for f in fields]), np.array([int(f[1][1]) for f in fields])


def reference_features(split, identities, cameras):
    identity_means = seeded("retrieval.ids").standard_normal((1502, 64))
    camera_means = seeded("retrieval.cams").standard_normal((7, 64))
    features = seeded(f"retrieval.{split}").standard_normal((len(identities), 64)) * 1.3
    features += np.where(identities[:, None] > 0, identity_means[identities], 0)
    features += 0.5 * camera_means[cameras]
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@functools.cache
def load_market_problem(market_zip):
    query = market_labels(market_zip, "query")
    gallery = market_labels(market_zip, "bounding_box_test")
    return (
        reference_features("query", *query),
        *query,
        reference_features("gallery", *gallery),
        *gallery,
    )


@pytest.fixture
def market_problem(market_zip):
    return load_market_problem(market_zip)


@pytest.fixture
def reference(shared):
    return json.loads((shared / "reference" / "retrieval.json").read_text())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_the_reference_programs_on_market_labels(market_problem, reference, dtype):
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = market_problem
    result = evaluate_ranking(
        query.astype(dtype),
        query_ids,
        query_cameras,
        gallery.astype(dtype),
        gallery_ids,
        gallery_cameras,
    )
    trapezoid, standard = reference["trapezoid"], reference["standard"]
    for key in ("rank1", "rank5", "rank10", "mAP"):
        assert result[key] == pytest.approx(trapezoid[key], abs=1e-6)
    for key in ("rank1", "rank5", "rank10"):
        assert result[key] == pytest.approx(standard[key], abs=1e-6)
    assert result["mAP_standard"] == pytest.approx(standard["mAP"], abs=1e-6)
    assert result["gallery"] == standard["gallery"]
    counts = ("queries", "queries_without_match", "junk", "distractors")
    assert tuple(result[key] for key in counts) == (3368, 0, 3819, 2798)


def test_agrees_with_the_reference_program_query_by_query(market_problem, reference):
    queries = [values[:20] for values in market_problem[:3]]
    hits = rank_hits(*queries, *market_problem[3:])
    np.testing.assert_allclose(
        [average_precision_trapezoid(ranks) for ranks in hits],
        reference["per_query_ap_trapezoid_first20"],
        atol=1e-12,
    )


def test_agrees_with_the_reference_program_where_most_queries_have_no_match(
    market_problem, reference
):
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = market_problem
    kept = np.flatnonzero(gallery_ids != -1)[:3000]
    result = evaluate_ranking(
        query[:400],
        query_ids[:400],
        query_cameras[:400],
        gallery[kept],
        gallery_ids[kept],
        gallery_cameras[kept],
    )
    before = reference["rerank_subset"]["before"]
    assert result["queries"] - result["queries_without_match"] == 49
    assert result["mAP_standard"] == pytest.approx(before["mAP"], abs=1e-6)
    # torchreid leaves queries without a match out of Rank@1 as well; Market's program does not.
    assert result["rank1"] * 400 / 49 == pytest.approx(before["rank1"], abs=1e-6)


def test_average_precision_and_inverse_negative_penalty_of_written_out_rankings():
    perfect = np.array([0, 1, 2])
    assert average_precision_trapezoid(perfect) == 1
    assert average_precision_standard(perfect) == 1
    assert inverse_negative_penalty(perfect) == 1

    late = np.array([1, 3])
    assert average_precision_trapezoid(late) == pytest.approx(
        ((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    )
    assert average_precision_standard(late) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert inverse_negative_penalty(late) == pytest.approx(2 / 4)

    nothing = np.array([], dtype=int)
    for metric in (
        average_precision_trapezoid,
        average_precision_standard,
        inverse_negative_penalty,
    ):
        assert metric(nothing) == 0


def test_queries_without_match_count_as_zero_in_market_s_means_only():
    result = summarise([np.array([0]), np.array([], dtype=int)], ranks=(1, 20))
    assert result == {
        "rank1": 0.5,
        "rank20": 0.5,
        "mAP": 0.5,
        "mAP_standard": 1.0,
        "mINP": 1.0,
        "queries": 2,
        "queries_without_match": 1,
    }


def test_the_cmc_curve_counts_first_hits_and_contains_every_rank_k():
    hits = [np.array([0, 7]), np.array([2]), np.array([9]), np.array([], dtype=int)]
    curve = cumulative_matches(hits, 4)
    assert curve.tolist() == [0.25, 0.25, 0.5, 0.5]
    assert curve[3 - 1] == summarise(hits, ranks=(3,))["rank3"]


def test_no_match_at_all_gives_zeros_and_says_so():
    result = evaluate_ranking([[1.0]], [7], [1], [[1.0], [0.5]], [7, 8], [1, 2])
    assert result["queries_without_match"] == 1
    for key in ("rank1", "rank5", "rank10", "mAP", "mAP_standard", "mINP"):
        assert result[key] == 0


def test_removed_items_take_no_place_and_distractors_do():
    scores = [9.0, 8.0, 7.0, 6.0, 5.0]
    identities = [-1, 3, 0, 3, 3]
    cameras = [2, 1, 2, 2, 1]
    (hits,) = rank_hits([[1.0]], [3], [1], np.array(scores)[:, None], identities, cameras)
    assert hits.tolist() == [1]


def test_equal_scores_rank_by_gallery_index():
    gallery = np.ones((5, 1))
    (hits,) = rank_hits([[1.0]], [3], [1], gallery, [4, 3, 0, 3, 5], [2, 2, 2, 2, 2])
    assert hits.tolist() == [1, 3]


def random_problem(seed, hits_per_identity=6):
    """Integer features, so that scores are exact and often equal; every kind of label."""
    rng = np.random.default_rng(seed)
    queries, gallery = rng.integers(1, 30), rng.integers(2, 200)
    identities = max(1, gallery // hits_per_identity)
    gallery_ids = rng.integers(-1, identities + 1, gallery)
    gallery_ids[0] = 1
    return (
        rng.integers(-2, 3, (queries, 4)).astype(np.float32),
        rng.integers(1, identities + 3, queries),
        rng.integers(1, 4, queries),
        rng.integers(-2, 3, (gallery, 4)).astype(np.float32),
        gallery_ids,
        rng.integers(1, 4, gallery),
    )


def hits_by_sorting(query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras):
    for features, identity, camera in zip(query, query_ids, query_cameras, strict=True):
        valid = (gallery_ids != -1) & ~((gallery_ids == identity) & (gallery_cameras == camera))
        order = np.argsort(-(gallery[valid] @ features), kind="stable")
        yield np.flatnonzero(gallery_ids[valid][order] == identity).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_counting_gives_the_ranks_of_a_stable_sort(seed):
    problem = random_problem(seed)
    assert [hits.tolist() for hits in rank_hits(*problem)] == list(hits_by_sorting(*problem))


def test_so_many_hits_that_sorting_is_cheaper_gives_the_same_ranks(monkeypatch):
    monkeypatch.setattr("dgnet_jax.evaluation.ranking._MAX_COUNTED_HITS", 3)
    problem = random_problem(0, hits_per_identity=40)
    hits = [hits.tolist() for hits in rank_hits(*problem)]
    assert max(map(len, hits)) > 3
    assert hits == list(hits_by_sorting(*problem))


@pytest.mark.parametrize("tile_bytes", [1, 1000, 5000])
def test_the_tile_size_changes_nothing(tile_bytes):
    problem = random_problem(3)
    assert evaluate_ranking(*problem, tile_bytes=tile_bytes) == evaluate_ranking(*problem)


def test_ranking_leaves_its_arguments_alone():
    problem = random_problem(4)
    copies = [values.copy() for values in problem]
    evaluate_ranking(*problem)
    for values, copy in zip(problem, copies, strict=True):
        np.testing.assert_array_equal(values, copy)


def test_negative_distances_rank_like_scores():
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = random_problem(5)
    gallery_ids = np.maximum(gallery_ids, 0)
    labels = (query_ids, query_cameras, gallery_ids, gallery_cameras)
    tiles = (-(7.0 - query[i : i + 2] @ gallery.T) for i in range(0, len(query), 2))
    expected = rank_hits(query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras)
    for hits, wanted in zip(rank_hits_of_scores(tiles, *labels), expected, strict=True):
        np.testing.assert_array_equal(hits, wanted)


@pytest.mark.parametrize(
    ("argument", "value", "complaint"),
    [
        ("query_features", np.ones((2, 3)), "gallery_features: found 2 values"),
        ("query_features", np.ones(2), "query_features: found float64 of shape"),
        ("query_features", np.ones((2, 2), complex), "query_features: found complex128"),
        ("query_features", np.zeros((0, 2)), "query_features: .* nothing to rank"),
        ("gallery_features", np.zeros((0, 2)), "gallery_features: .* nothing to rank"),
        ("query_features", [[0, np.nan], [1, 1]], "query_features: 1 of 2 rows .* first row 0"),
        ("gallery_features", [[0, 1], [1, 1], [np.inf, 1]], "gallery_features: .* first row 2"),
        ("gallery_features", np.full((3, 2), 1e30, np.float32), "too large for float32"),
        ("query_ids", [1], "query_ids: found shape"),
        ("query_cameras", [1, 2, 3], "query_cameras: found shape"),
        ("gallery_ids", [1, 2], "gallery_ids: found shape"),
        ("gallery_ids", [-1, -1, -1], "gallery_ids: every item is junk"),
        ("gallery_cameras", [[1, 2, 3]], "gallery_cameras: found shape"),
        ("gallery_cameras", ["a", "b", "c"], "gallery_cameras: found <U1"),
    ],
)
def test_wrong_input_is_named(argument, value, complaint):
    problem = dict(
        zip(
            ARGUMENTS,
            (np.ones((2, 2)), [1, 2], [1, 1], np.ones((3, 2)), [1, 2, 3], [2, 2, 2]),
            strict=True,
        )
    )
    evaluate_ranking(**problem)
    with pytest.raises(InputError, match=complaint):
        evaluate_ranking(**(problem | {argument: value}))


def test_a_rank_below_one_is_refused():
    with pytest.raises(InputError, match="ranks"):
        summarise([np.array([0])], ranks=(0, 1))
