"""Identities and cameras are compared as integers, whatever integer types they come in."""

import numpy as np
import pytest

from dgnet_jax.data.readers.counts import count
from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.evaluation.consistency import identity_consistency
from dgnet_jax.evaluation.labels import comparable
from dgnet_jax.evaluation.multi_query import average_queries
from dgnet_jax.evaluation.ranked_lists import ranked_list
from dgnet_jax.evaluation.ranking import evaluate_ranking, rank_hits_of_scores

# Neighbours beyond 2^53, which float64 does not tell apart; the last does not fit into int64.
BIG = (2**53, 2**53 + 1, 2**53 + 2)
HUGE = (2**63 - 1, 2**63, 2**63 + 1)
CASES = [
    (BIG, np.int64, np.uint64),
    (BIG, np.uint64, np.int64),
    (BIG, np.int64, object),
    (HUGE, np.uint64, np.uint64),
    (HUGE, np.uint64, object),
    (HUGE, np.uint64, list),
]


def _problem() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, people 0 to 2 and cameras 0 to 2 of queries and gallery."""
    rng = np.random.default_rng(5)
    labels = [rng.integers(0, 3, items) for items in (12, 12, 60, 60)]
    return (rng.normal(size=(12, 4)), *labels[:2], rng.normal(size=(60, 4)), *labels[2:])


def _renamed(labels: np.ndarray, names: tuple[int, ...], kind: type) -> np.ndarray | list[int]:
    named = [names[label] for label in labels]
    return named if kind is list else np.array(named, kind)


@pytest.mark.parametrize(("names", "of_queries", "of_gallery"), CASES)
def test_people_and_cameras_of_any_integers_rank_alike(names, of_queries, of_gallery):
    query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras = _problem()
    found = evaluate_ranking(
        query,
        _renamed(query_ids, names, of_queries),
        _renamed(query_cameras, names, of_queries),
        gallery,
        _renamed(gallery_ids, names, of_gallery),
        _renamed(gallery_cameras, names, of_gallery),
    )
    small = (query_ids + 5, query_cameras, gallery, gallery_ids + 5, gallery_cameras)
    assert found == evaluate_ranking(query, *small)
    assert found["mAP"] < 0.9, "a wrong comparison would find everything"


def test_junk_beside_people_that_int64_does_not_hold():
    """NumPy makes float64 of such a list."""
    features = [[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]]
    found = evaluate_ranking(
        [[0.0, 1.0]], [2**63 + 1], [1], features, [-1, 2**63, 2**63 + 1], [2, 2, 2]
    )
    assert (found["junk"], found["gallery"]) == (1, 2)
    assert (found["rank1"], found["rank5"]) == (0, 1)


def test_scores_of_any_origin_have_their_labels_compared_exactly():
    scores = [np.array([[0.9, 0.1]])]
    hits = rank_hits_of_scores(
        scores,
        np.array([2**53 + 1], np.uint64),
        np.array([1], np.uint8),
        np.array([2**53, 2**53 + 1], np.int64),
        np.array([2, 2]),
    )
    assert [ranks.tolist() for ranks in hits] == [[1]]


@pytest.mark.parametrize("which", ["identities", "cameras"])
def test_multi_query_takes_no_neighbour_for_the_person_or_camera(which):
    same, big = np.array([3, 3]), np.array([2**53, 2**53 + 1], np.int64)
    more = big.astype(np.uint64)[::-1].copy()
    labels = (big, same, more, same) if which == "identities" else (same, big, same, more)
    features, found = average_queries(
        np.zeros((2, 1)), labels[0], labels[1], np.array([[1.0], [2.0]]), labels[2], labels[3]
    )
    assert found.tolist() == [1, 1]
    assert features.tolist() == [[2.0], [1.0]]


def test_neighbours_are_different_people_in_lists_and_consistency_too():
    big, unsigned = np.array([2**53, 2**53 + 1], np.int64), np.array([2**53 + 1] * 2, np.uint64)
    features = np.eye(2)
    assert identity_consistency(features, unsigned, features, big) == 0.5
    entries = ranked_list(features[0], int(unsigned[0]), 1, features, big, np.array([2, 2]))
    assert [entry.kind for entry in entries] == ["wrong", "right"]


def test_int64_itself_is_kept():
    first, second = comparable(np.array([-1, 7], np.int32), np.array([2**63 - 1], np.uint64))
    assert (first.tolist(), second.tolist()) == ([-1, 7], [2**63 - 1])
    assert first.dtype == second.dtype == np.int64


def test_cameras_are_counted_as_integers(tmp_path):
    def split(name: str, camera: int, kind: type) -> Split:
        cameras = np.array([camera], kind)
        return Split(name, ("a.jpg",), np.ones(1, np.int32), cameras, FolderStorage(tmp_path))

    dataset = ReidDataset(
        "folder",
        split("train", 2**53, np.int64),
        split("query", 2**53 + 1, np.uint64),
        split("gallery", 2**53 + 1, np.int64),
    )
    assert count(dataset).cameras == 2
