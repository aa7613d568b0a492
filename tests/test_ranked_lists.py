"""Ranked lists show what the ranking found; the CMC plot shows its curves."""

import numpy as np
import pytest
from test_figures import find

from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.curves import cmc_plot
from dgnet_jax.evaluation.ranked_lists import (
    COLOURS,
    named_queries,
    random_queries,
    ranked_list,
    ranked_lists_picture,
    worst_queries,
)


def unit(degrees: float) -> list[float]:
    return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]


# In the order of the ranking: same camera, right, distractor, junk, wrong.
ANGLES, IDENTITIES, CAMERAS = (10, 20, 60, 80, 90), (3, 3, 0, -1, 4), (1, 2, 1, 2, 2)
ORDER = (4, 2, 0, 1, 3)


def split_of(identities, cameras, folder) -> CachedSplit:
    rng = np.random.default_rng(len(identities))
    images = rng.integers(0, 256, (len(identities), 256, 128, 3), np.uint8)
    paths = tuple(
        f"/data/{folder}/{identity:04d}_c{camera}s1_{n:06d}_00.jpg"
        for n, (identity, camera) in enumerate(zip(identities, cameras, strict=True))
    )
    return CachedSplit(images, np.array(identities), np.array(cameras), paths)


@pytest.fixture
def gallery():
    features = np.array([unit(ANGLES[place]) for place in ORDER])
    labels = ([values[place] for place in ORDER] for values in (IDENTITIES, CAMERAS))
    return features, split_of(*labels, "bounding_box_test")


def test_a_list_names_right_wrong_and_junk_and_junk_takes_no_rank(gallery):
    features, split = gallery
    entries = ranked_list(np.array([1.0, 0.0]), 3, 1, features, split.identities, split.cameras)
    assert [entry.item for entry in entries] == [ORDER.index(place) for place in range(5)]
    assert [entry.kind for entry in entries] == ["junk", "right", "wrong", "junk", "wrong"]
    assert [entry.rank for entry in entries] == [None, 1, 2, None, 3]
    cosines = np.cos(np.radians(ANGLES))
    np.testing.assert_allclose([entry.distance for entry in entries], 1 - cosines, atol=1e-12)


def test_distances_do_not_depend_on_the_length_of_features(gallery):
    features, split = gallery
    labels = (3, 1)
    one = ranked_list(np.array([1.0, 0.0]), *labels, features, split.identities, split.cameras)
    two = ranked_list(
        np.array([1.5, 0.0]), *labels, 1.5 * features, split.identities, split.cameras
    )
    np.testing.assert_allclose([e.distance for e in one], [e.distance for e in two], atol=1e-12)


def test_the_picture_frames_every_image_in_its_colour(gallery):
    features, split = gallery
    query = split_of([3], [1], "query")
    picture = ranked_lists_picture(
        [0], np.array([[1.0, 0.0]]), query, features, split, caption="", length=5
    )
    canvas = np.asarray(picture)
    places = []
    kinds = ["query", "junk", "right", "wrong", "junk", "wrong"]
    images = [query.images[0], *(split.images[ORDER.index(place)] for place in range(5))]
    for image, kind in zip(images, kinds, strict=True):
        y, x = find(picture, image)
        places.append(x)
        frame = canvas[y - 3, x : x + image.shape[1]]
        assert (frame == COLOURS[kind]).all()
    assert places == sorted(places)


def test_a_gallery_shorter_than_the_list_leaves_cells_empty(gallery):
    features, split = gallery
    query = split_of([3], [1], "query")
    short, long = (
        ranked_lists_picture(
            [0], np.array([[1.0, 0.0]]), query, features, split, caption="", length=length
        )
        for length in (5, 10)
    )
    assert long.width > short.width + 5 * 128
    for image in split.images:
        assert find(long, image) == find(short, image)
    bottom = find(long, split.images[0])[0] + 256
    assert (np.asarray(long)[:bottom, short.width :] == 255).all()


def test_queries_are_drawn_from_a_seed_or_worst_first_and_have_a_match():
    # Average precisions 1, 1/3 x 1/2, none, 1/2 x (0 + 1/2).
    hits = [np.array([0]), np.array([2]), np.array([], dtype=int), np.array([1])]
    assert worst_queries(hits, 2) == [1, 3]
    assert random_queries(hits, 10, 0) == [0, 1, 3]
    many = [np.array([0])] * 100
    assert random_queries(many, 5, 1) == random_queries(many, 5, 1)
    assert random_queries(many, 5, 1) != random_queries(many, 5, 2)


PATHS = ("/a/query/0001_c1s1_001051_00.jpg", "/a/query/0002_c1s1_000451_03.jpg.jpg", "/a/x/7.png")


@pytest.mark.parametrize(
    "name", ["0001_c1s1_001051_00.jpg", "0001_c1s1_001051_00", "query/0001_c1s1_001051_00.jpg"]
)
def test_a_query_is_named_with_or_without_folder_and_ending(name):
    assert named_queries([name], PATHS) == [0]
    assert named_queries(["7", name], PATHS) == [2, 0]


def test_an_unknown_or_ambiguous_query_is_refused_with_near_names():
    with pytest.raises(InputError, match=r"no query has the name '0001_c1s1_001051_01'.*51_00.jpg"):
        named_queries(["0001_c1s1_001051_01"], PATHS)
    with pytest.raises(InputError, match="2 queries have the name '7.png'"):
        named_queries(["7.png"], (*PATHS, "/a/y/7.png"))


def test_the_cmc_plot_draws_higher_curves_higher():
    steps = np.arange(1, 51) / 100
    picture = np.asarray(cmc_plot({"good": 0.5 + steps, "bad": steps}, "title")).astype(int)
    rows, columns = picture.shape[:2]

    def height(colour) -> float:
        """Of a line between the legend and the axes."""
        left = picture[:, columns // 4 : columns // 2]
        ys = np.argwhere(np.abs(left - np.array(colour)).sum(-1) < 30)[:, 0]
        assert len(ys) > 50
        return rows - ys.mean()

    blue, orange = (31, 119, 180), (255, 127, 14)
    assert height(blue) > height(orange) + rows / 4
