"""DG-Net's measurement of generated images, with stand-ins for the networks."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawn_market import smooth_image
from PIL import Image

from dgnet_jax.errors import InputError
from dgnet_jax.evaluation import fid_protocol, generated_images, tables
from dgnet_jax.evaluation.diversity import diversity, same_identity_pairs
from dgnet_jax.evaluation.fid import FeatureStatistics
from dgnet_jax.evaluation.fid_protocol import (
    Pictures,
    decode_jpeg,
    encode_jpeg,
    jpeg_indices,
    resize_bicubic,
)
from dgnet_jax.evaluation.generated_images import RealImages, evaluate_generated
from dgnet_jax.evaluation.kid import kid

LABELS = np.repeat(np.arange(10), 3)

# What stands in for the networks is of other classes.
pytestmark = pytest.mark.usefixtures("unchecked")


class Network:
    """Mean colours of a 2 x 1 grid as 6 features; counts the images that it sees."""

    name = "mean colours"

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8 and images.shape[1:] == (256, 128, 3)
        self.images += len(images)
        halves = images.reshape(len(images), 2, 128, 128, 3).astype(np.float32)
        return halves.mean((2, 3)).reshape(len(images), 6)


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return np.stack([np.asarray(smooth_image(seed)) for seed in range(30)])


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return np.stack([np.asarray(smooth_image(seed)) for seed in range(100, 120)])


def swapped(images: np.ndarray) -> Iterator[Pictures]:
    """A generator that inverts the colours, in uneven batches and not in order."""
    order = np.roll(np.arange(len(images)), 5)
    for rows in np.array_split(order, 4):
        painted = resize_bicubic(255 - images[rows])
        yield Pictures(rows, painted, cut(painted))


def cut(painted: np.ndarray) -> np.ndarray:
    """Stands in for truncated levels: other than the rounded ones everywhere, and by much."""
    return painted // 2


def test_numbers_are_those_of_the_parts(
    train: np.ndarray, gallery: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_images, "CHUNK", 7)
    inception, teacher = Network(), Network()
    real = RealImages(train, LABELS, gallery, inception=inception, teacher=teacher, seed=1)
    results = evaluate_generated(swapped, real)

    network = Network()
    big = resize_bicubic(train)
    features = network(big)
    painted = resize_bicubic(255 - train)
    jpegs = []
    for image in cut(painted):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG")
        jpegs.append(np.asarray(Image.open(stream)))
    reference = FeatureStatistics.of(features)
    for name, pictures in (
        ("fid_png", painted),
        ("fid_jpeg", np.stack(jpegs)),
        ("fid_real", resize_bicubic(gallery)),
        ("teacher_frechet", painted),
        ("teacher_frechet_real", resize_bicubic(gallery)),
    ):
        expected = reference.distance(FeatureStatistics.of(network(pictures)))
        assert results[name] == pytest.approx(expected, rel=1e-9), name
    assert results["fid_png"] != results["fid_jpeg"]
    # KID's subsets depend on the order in which the pictures came.
    order = np.roll(np.arange(30), 5)
    expected = kid(features, network(painted)[order], seed=1)
    assert results["kid_mean"] == pytest.approx(expected.mean, rel=1e-9)
    assert results["kid_sd"] == pytest.approx(expected.sd, rel=1e-9)

    distance = np.linalg.norm(features, axis=1)
    cosine = network(painted) @ (features / distance[:, None]).T
    expected_share = np.mean(LABELS[cosine.argmax(1)] == LABELS)
    assert results["identity_consistency"] == pytest.approx(expected_share)

    counts = {"generated": 30, "real": 30, "gallery": 20, "dims": 6}
    # 50 of each of the 10 identities.
    counts["diversity_pairs"] = 500
    assert counts.items() <= results.items()
    assert results["fid_singular"] is False and "inception_missing" not in results
    pairs = same_identity_pairs(LABELS, seed=1)
    assert results["diversity"] == pytest.approx(diversity(painted, pairs), rel=1e-9)
    assert results["diversity_real"] == pytest.approx(diversity(big, pairs), rel=1e-9)


def test_the_jpeg_half_can_be_left_out(train: np.ndarray, gallery: np.ndarray) -> None:
    images, results = {}, {}
    for jpeg in (False, True):
        network = Network()
        real = RealImages(train, LABELS, gallery, inception=network, jpeg=jpeg)
        results[jpeg] = evaluate_generated(swapped, real)
        images[jpeg] = network.images
    assert (images[False], images[True]) == (30 + 30 + 20, 30 + 30 + 30 + 20)
    jpegs = {name for name in results[True] if "jpeg" in name}
    assert jpegs == {"fid_jpeg", "kid_jpeg_mean", "kid_jpeg_sd", "generated_jpeg"}
    assert {n: v for n, v in results[True].items() if n not in jpegs} == results[False]
    lines = "\n".join(tables._images_table(results[False]))
    assert "| generated, PNG (ours) " in lines
    assert "| real: training images against the gallery " in lines
    assert "JPEG" not in lines
    lines = "\n".join(tables._images_table(results[True]))
    assert "| generated, JPEG (DG-Net's protocol) " in lines
    assert "30 generated, 30 of them as JPEG, 30 real training images, 20 gallery images" in lines


def test_the_protocol_measures_no_more_jpegs_than_market_1501_has_training_images(
    train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fid_protocol.JPEG_IMAGES == 12_936
    np.testing.assert_array_equal(jpeg_indices(12_936, 0), np.arange(12_936))
    chosen = jpeg_indices(16_522, 0)  # DukeMTMC-reID's
    assert len(np.unique(chosen)) == len(chosen) == 12_936 and chosen.max() < 16_522
    assert not np.array_equal(chosen, jpeg_indices(16_522, 1))

    monkeypatch.setattr(fid_protocol, "JPEG_IMAGES", 11)
    real = RealImages(train, LABELS, inception=Network(), seed=2)
    results = evaluate_generated(swapped, real)
    counts = {"generated": 30, "generated_jpeg": 11, "real": 30}
    assert counts.items() <= results.items()
    painted = cut(resize_bicubic(255 - train[jpeg_indices(30, 2)]))
    jpegs = np.stack([decode_jpeg(encode_jpeg(image)) for image in painted])
    reference = FeatureStatistics.of(Network()(resize_bicubic(train)))
    expected = reference.distance(FeatureStatistics.of(Network()(jpegs)))
    assert results["fid_jpeg"] == pytest.approx(expected, rel=1e-9)


def test_a_perfect_generator(train: np.ndarray, gallery: np.ndarray) -> None:
    real = RealImages(train, LABELS, gallery, inception=Network(), teacher=Network())
    results = evaluate_generated(lambda images: [(np.arange(30), images, images)], real)
    assert 0 <= results["fid_png"] < 1e-6 < results["fid_jpeg"] < results["fid_real"]
    assert results["teacher_frechet"] < 1e-6
    assert results["identity_consistency"] == 1
    assert results["diversity"] == results["diversity_real"]


def test_without_inception_the_rest_is_measured_and_it_says_how_to_get_it(
    train: np.ndarray,
) -> None:
    results = evaluate_generated(swapped, RealImages(train, LABELS, teacher=Network()))
    assert not any(name.startswith(("fid", "kid")) for name in results)
    assert "pt_inception-2015-12-05-6726825d.pth" in str(results["inception_missing"])
    assert "dgnet_jax.convert" in str(results["inception_missing"])
    assert {"teacher_frechet", "identity_consistency", "diversity"} <= set(results)
    assert "teacher_frechet_real" not in results and "gallery" not in results

    bare = evaluate_generated(swapped, RealImages(train, np.arange(30)))
    assert set(bare) == {"generated", "real", "inception_missing"}


def test_real_features_are_computed_once(train: np.ndarray, gallery: np.ndarray) -> None:
    inception, teacher = Network(), Network()
    real = RealImages(train, LABELS, gallery, inception=inception, teacher=teacher)
    first = evaluate_generated(swapped, real)
    assert (inception.images, teacher.images) == (30 + 20 + 2 * 30, 30 + 20 + 30)
    second = evaluate_generated(swapped, real)
    assert (inception.images, teacher.images) == (30 + 20 + 4 * 30, 30 + 20 + 2 * 30)
    assert first == second


def test_real_features_are_kept_in_a_file(
    train: np.ndarray, gallery: np.ndarray, tmp_path: Path
) -> None:
    cache = tmp_path / "deep" / "real.npz"

    def count(images: np.ndarray, name: str = "a") -> int:
        network = Network()
        network.name = name
        real = RealImages(images, LABELS, gallery, inception=network, cache=cache)
        real.inception_features("train")
        real.inception_features("gallery")
        return network.images

    assert count(train) == 50
    assert count(train) == 0
    # Other images or other weights are not taken for the same.
    changed = train.copy()
    changed[3, 0, 0, 0] ^= 1
    assert count(changed) == 30
    assert count(train, "b") == 50
    cache.write_bytes(b"broken")
    assert count(train) == 50


def test_a_limit_is_a_seeded_choice_of_both_sides(train: np.ndarray, gallery: np.ndarray) -> None:
    real = RealImages(train, LABELS, gallery, inception=Network(), limit=12, seed=3)
    same = RealImages(train, LABELS, gallery, limit=12, seed=3)
    other = RealImages(train, LABELS, gallery, limit=12, seed=4)
    np.testing.assert_array_equal(real.images, same.images)
    assert not np.array_equal(real.images, other.images)
    for image, label in zip(real.images, real.labels, strict=True):
        (index,) = np.flatnonzero((train == image).all((1, 2, 3)))
        assert LABELS[index] == label
    results = evaluate_generated(swapped, real)
    assert {"generated": 12, "real": 12, "gallery": 12}.items() <= results.items()
    assert len(RealImages(train, LABELS, limit=100).images) == 30


def test_too_few_images_are_called_singular(train: np.ndarray) -> None:
    real = RealImages(train, LABELS, inception=Network(), teacher=Network(), limit=6)
    results = evaluate_generated(swapped, real)
    assert results["fid_singular"] is True and results["teacher_singular"] is True


def test_pictures_are_kept_where_asked(train: np.ndarray, tmp_path: Path) -> None:
    evaluate_generated(swapped, RealImages(train, LABELS), keep=tmp_path / "kept")
    painted = resize_bicubic(255 - train)
    for index in (0, 29):
        png = Image.open(tmp_path / "kept" / "png" / f"{index:06d}.png")
        np.testing.assert_array_equal(np.asarray(png), painted[index])
        jpeg = np.asarray(Image.open(tmp_path / "kept" / "jpeg" / f"{index:06d}.jpg"))
        difference = np.abs(jpeg.astype(int) - cut(painted[index]))
        assert 0 < difference.mean() < 8
    assert len(list((tmp_path / "kept").rglob("*.*"))) == 60


def test_one_picture_for_each_image_is_needed(train: np.ndarray) -> None:
    real = RealImages(train, LABELS)
    with pytest.raises(InputError, match="found 29 for 30 training images"):
        evaluate_generated(lambda images: [(np.arange(29), images[:29], images[:29])], real)
    twice = np.r_[0, np.arange(29)]
    with pytest.raises(InputError, match="found 30 for 30"):
        evaluate_generated(lambda images: [(twice, images[twice], images[twice])], real)
    with pytest.raises(InputError, match="found 0 for 30"):
        evaluate_generated(lambda images: [], real)
    with pytest.raises(InputError, match="limit: found -1"):
        RealImages(train, LABELS, limit=-1)
