"""How much of the garments' colours a swap moves, on drawn people whose truth is known."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab
from tiny import tiny_config

from dgnet_jax.data.drawing.photo import photograph_in_clothes
from dgnet_jax.data.drawing.wardrobe import PARTS
from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation import garment_bands, image_metrics
from dgnet_jax.evaluation.garment_bands import (
    GARMENTS,
    Masks,
    choose_images,
    garment_masks,
    mean_colours,
    measure_bands,
    measure_garments,
)
from dgnet_jax.evaluation.tables import evaluation_table

SIZE = (128, 64)
PEOPLE = 10
SEED = 3


class Drawn(NamedTuple):
    """Images (..., 128, 64, 3), part labels (..., 128, 64) and joints (..., 18, 2)."""

    images: np.ndarray
    parts: np.ndarray
    keypoints: np.ndarray


def draw(appearances: list[int], structures: list[int]) -> Drawn:
    """People in the clothes of others, each by one of the cameras."""
    truths = [
        photograph_in_clothes(
            SEED, appearance, structure, 1 + structure % 4, 0, height=SIZE[0], width=SIZE[1]
        )
        for appearance, structure in zip(appearances, structures, strict=True)
    ]
    return Drawn(
        np.stack([np.asarray(truth.image) for truth in truths]),
        np.stack([truth.parts for truth in truths]),
        np.stack([truth.keypoints for truth in truths]),
    )


def without_bags(count: int) -> list[int]:
    """The first people who have none: bags hide garments, and joints say nothing about them."""
    found: list[int] = []
    person = 0
    while len(found) < count:
        person += 1
        if not (draw([person], [person]).parts == PARTS.index("bag")).any():
            found.append(person)
    return found


class People(NamedTuple):
    """Two groups of people as they are, and each of the second in the clothes of the first."""

    appearances: Drawn
    structures: Drawn
    swapped: Drawn


@pytest.fixture(scope="module")
def people() -> People:
    first, second = np.reshape(without_bags(2 * PEOPLE), (2, PEOPLE)).tolist()
    pairs = [(appearance, structure) for appearance in first for structure in second]
    swapped = draw(*map(list, zip(*pairs, strict=True)))
    return People(
        draw(first, first),
        draw(second, second),
        Drawn(*(array.reshape(PEOPLE, PEOPLE, *array.shape[1:]) for array in swapped)),
    )


def masks_of(drawn: Drawn, *, posed: bool = True) -> Masks:
    return garment_masks([pose if posed else None for pose in drawn.keypoints], *SIZE)


def true_masks(parts: np.ndarray) -> np.ndarray:
    return np.stack([parts == PARTS.index(garment) for garment in GARMENTS], axis=1)


def measured(people: People, generated: np.ndarray, *, posed: bool = True) -> dict[str, float]:
    return measure_bands(
        generated,
        people.appearances.images,
        people.structures.images,
        masks_of(people.appearances, posed=posed).garments,
        masks_of(people.structures, posed=posed).garments,
    )


def of_garments(results: dict[str, float], name: str) -> list[float]:
    return [
        results[f"band_{name}_{garment}{suffix}"]
        for garment in GARMENTS
        for suffix in ("", "_lightness")
    ]


@pytest.mark.parametrize("height, width", [(128, 64), (256, 128)])
def test_masks_from_joints_lie_on_the_garments(height: int, width: int) -> None:
    """Bags aside."""
    on_garment = np.zeros((2, 2))
    for person in range(1, 41):
        truth = photograph_in_clothes(
            SEED, person, person, 1 + person % 4, 0, height=height, width=width
        )
        masks, posed = garment_masks([truth.keypoints], height, width)
        assert posed.all()
        for index, garment in enumerate(GARMENTS):
            parts = truth.parts[masks[0, index]]
            on_garment[index] += [
                (parts == PARTS.index(garment)).sum(),
                (parts != PARTS.index("bag")).sum(),
            ]
            assert len(parts) > 0.005 * height * width
    shares = on_garment[:, 0] / on_garment[:, 1]
    assert (shares >= 0.85).all(), shares


def test_joints_find_garments_better_than_fixed_bands(people: People) -> None:
    drawn = people.structures
    shares = [
        [
            (mask & true).sum() / mask.sum()
            for mask, true in zip(
                masks_of(drawn, posed=posed).garments[:, garment],
                true_masks(drawn.parts)[:, garment],
                strict=True,
            )
        ]
        for posed in (True, False)
        for garment in (0, 1)
    ]
    posed_top, posed_lower, fixed_top, fixed_lower = np.mean(shares, axis=1)
    assert posed_top > fixed_top > 0.5
    assert posed_lower > fixed_lower > 0.5


def test_masks_of_another_size_are_the_same_places(people: People) -> None:
    pose = people.structures.keypoints[0]
    small = garment_masks([pose, None], 128, 64).garments
    large = garment_masks([pose, None], 256, 128).garments
    shares = large.reshape(2, 2, 128, 2, 64, 2).mean(axis=(3, 5))
    assert np.abs(shares - small).mean() < 0.02
    assert garment_masks([pose, None], 8, 4).garments.any(axis=(2, 3)).all()


@pytest.mark.parametrize("missing", [2, 5, 8, 11, (9, 12)])
def test_without_shoulders_hips_or_knees_bands_are_fixed(
    people: People, missing: int | tuple[int, int]
) -> None:
    pose = people.structures.keypoints[0].copy()
    assert garment_masks([pose], *SIZE).posed.all()
    pose[missing, :] = -1
    masks, posed = garment_masks([pose, None], *SIZE)
    assert not posed.any()
    np.testing.assert_array_equal(masks[0], masks[1])


def test_one_leg_is_enough(people: People) -> None:
    pose = people.structures.keypoints[0].copy()
    pose[9] = -1
    assert garment_masks([pose], *SIZE).posed.all()


def test_a_copy_of_the_structure_moves_nothing(people: People) -> None:
    results = measured(people, np.stack([people.structures.images] * PEOPLE))
    np.testing.assert_allclose(of_garments(results, "transfer"), 0, atol=1e-9)
    np.testing.assert_allclose(of_garments(results, "structure"), 1, atol=1e-9)
    assert results["band_transfer"] == pytest.approx(0, abs=1e-9)


def test_a_constant_image_moves_nothing(people: People) -> None:
    grey = np.full((PEOPLE, PEOPLE, *SIZE, 3), 120, np.uint8)
    for name in ("transfer", "structure"):
        np.testing.assert_allclose(of_garments(measured(people, grey), name), 0, atol=1e-5)


@pytest.mark.parametrize("posed", [True, False])
def test_a_perfect_swap_moves_nearly_all(people: People, posed: bool) -> None:
    results = measured(people, people.swapped.images, posed=posed)
    exact = exact_transfer(people, people.swapped.images)
    tolerance = 0.2 if posed else 0.4
    for garment in GARMENTS:
        assert results[f"band_transfer_{garment}"] == pytest.approx(exact[garment], abs=tolerance)
        assert abs(results[f"band_structure_{garment}"]) < tolerance


def exact_transfer(people: People, generated: np.ndarray) -> dict[str, float]:
    """The slope of the swapped garments' colours on the worn ones', on their true pixels.

    Of a full grid of pairs both slopes are those of simple regressions: sources do not correlate.
    """
    worn = mean_colours(people.appearances.images, true_masks(people.appearances.parts))
    painted = np.stack(
        [
            mean_colours(images, true_masks(parts))
            for images, parts in zip(generated, people.swapped.parts, strict=True)
        ]
    )
    source = (worn - worn.mean(axis=0))[:, None].astype(np.float64)
    slopes = (source * (painted - painted.mean(axis=(0, 1)))).sum((0, 1, 3)) / (
        PEOPLE * (source**2).sum((0, 1, 3))
    )
    return dict(zip(GARMENTS, slopes.tolist(), strict=True))


def test_a_mean_of_both_images_moves_half(people: People) -> None:
    blend = people.swapped.images // 2 + people.structures.images // 2
    results = measured(people, blend)
    for garment in GARMENTS:
        assert results[f"band_transfer_{garment}"] == pytest.approx(0.45, abs=0.15)
        assert results[f"band_structure_{garment}"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_black_trousers_that_stay_black_show_in_lightness(people: People) -> None:
    """The swap's hue and chroma with the structure image's lightness."""
    lab = rgb2lab(people.swapped.images)
    lab[..., 0] = rgb2lab(people.structures.images)[..., 0]
    generated = np.round(lab2rgb(lab) * 255).astype(np.uint8)
    results = measured(people, generated)
    for garment in GARMENTS:
        assert abs(results[f"band_transfer_{garment}_lightness"]) < 0.1
        assert results[f"band_structure_{garment}_lightness"] > 0.8


def test_the_fit_is_that_of_known_coefficients() -> None:
    """Grey images of one colour each: L* of the generated one is a mixture."""
    levels = np.array([30.0, 50.0, 70.0]), np.array([40.0, 45.0, 75.0, 80.0])

    def grey(lightness: np.ndarray) -> np.ndarray:
        lab = np.stack([lightness, *[np.zeros_like(lightness)] * 2], axis=-1)
        rgb = np.round(lab2rgb(lab) * 255).astype(np.uint8)
        return np.broadcast_to(rgb[..., None, None, :], (*lightness.shape, *SIZE, 3)).copy()

    mixed = 0.6 * levels[0][:, None] + 0.3 * levels[1] + 5
    masks = [garment_masks([None] * len(level), *SIZE).garments for level in levels]
    results = measure_bands(grey(mixed), grey(levels[0]), grey(levels[1]), *masks)
    np.testing.assert_allclose(of_garments(results, "transfer"), 0.6, atol=0.01)
    np.testing.assert_allclose(of_garments(results, "structure"), 0.3, atol=0.01)
    assert results["band_transfer"] == pytest.approx(0.6, abs=0.01)


def test_an_empty_mask_is_refused(people: People) -> None:
    masks = np.zeros((PEOPLE, 2, *SIZE), bool)
    with pytest.raises(InputError, match="one is empty"):
        mean_colours(people.structures.images, masks)


@pytest.fixture(scope="module")
def gallery() -> CachedSplit:
    """Twelve people by two cameras, one by one camera only, junk and a distractor."""
    rows = [(person, camera) for person in range(1, 13) for camera in (1, 2)]
    rows += [(13, 1), (13, 1), (-1, 1), (0, 2)]
    images = [
        np.asarray(
            photograph_in_clothes(
                SEED, max(person, 1), max(person, 1), camera, index, height=128, width=64
            ).image
        )
        for index, (person, camera) in enumerate(rows)
    ]
    files = tuple(f"test/{index:02d}.jpg" for index in range(len(rows)))
    identities, cameras = (np.array(column, np.int32) for column in zip(*rows, strict=True))
    return CachedSplit(np.stack(images), identities, cameras, files, files)


def subset(split: CachedSplit, keep: np.ndarray) -> CachedSplit:
    files = tuple(np.array(split.files)[keep])
    return CachedSplit(
        split.images[keep], split.identities[keep], split.cameras[keep], files, files
    )


def test_people_differ_and_are_people(gallery: CachedSplit) -> None:
    choice = choose_images(gallery, 0)
    assert len(choice.appearances) == len(choice.structures) == 6
    chosen = gallery.identities[np.concatenate(choice[:2])]
    assert len(set(chosen.tolist())) == 12 and chosen.min() > 0
    first, second = choice.reference.T
    assert (first != second).all() and len(first) == 13
    np.testing.assert_array_equal(gallery.identities[first], gallery.identities[second])
    other_camera = gallery.cameras[first] != gallery.cameras[second]
    np.testing.assert_array_equal(other_camera, gallery.identities[first] != 13)
    for array, again in zip(choice, choose_images(gallery, 0), strict=True):
        np.testing.assert_array_equal(array, again)
    others = choose_images(gallery, 1).appearances
    assert not np.array_equal(choice.appearances, others)


@pytest.fixture(scope="module")
def poses(gallery: CachedSplit) -> Callable[[], dict[str, np.ndarray]]:
    """Of all images but those of person 1."""

    @cache
    def made() -> dict[str, np.ndarray]:
        return {
            file.rpartition("/")[2]: photograph_in_clothes(
                SEED, int(person), int(person), int(camera), index, height=128, width=64
            ).keypoints
            for index, (file, person, camera) in enumerate(
                zip(gallery.files, gallery.identities, gallery.cameras, strict=True)
            )
            if person > 1
        }

    return made


def copy_structure(appearances: np.ndarray, structures: np.ndarray) -> np.ndarray:
    return structures


def test_results_say_where_masks_came_from(
    gallery: CachedSplit, poses: Callable[[], dict[str, np.ndarray]]
) -> None:
    choice = choose_images(gallery, 0)
    chosen = gallery.identities[np.concatenate(choice[:2])]
    fixed = measure_garments(copy_structure, gallery, {}, 0)
    posed = measure_garments(copy_structure, gallery, poses(), 0)
    for results in (fixed, posed):
        assert (results["band_appearances"], results["band_structures"]) == (6, 6)
        assert (results["band_real_pairs"], results["band_real_images"]) == (13, 26)
        assert results["band_transfer"] == pytest.approx(0, abs=1e-9)
        assert 0.5 < results["band_transfer_real"] < 1.1  # type: ignore[operator]
        assert "band_transfer_lower_lightness_real" in results
        assert "bands_missing" not in results
    assert (fixed["band_posed"], fixed["band_real_posed"]) == (0, 0)
    assert (posed["band_posed"], posed["band_real_posed"]) == ((chosen != 1).sum(), 24)


def test_what_the_network_paints_may_be_larger(gallery: CachedSplit) -> None:
    def swap(appearances: np.ndarray, structures: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(appearances, 2, axis=1), 2, axis=2)

    results = measure_garments(swap, gallery, {}, 0)
    # Fixed bands: the appearance image itself has all of its colours where the masks are.
    assert results["band_transfer"] == pytest.approx(1, abs=0.01)
    assert results["band_structure_top"] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("people", [0, 1, 3, 4])
def test_few_people_with_two_images_give_no_reference(gallery: CachedSplit, people: int) -> None:
    _, firsts = np.unique(gallery.identities, return_index=True)
    more = np.flatnonzero((gallery.identities > 0) & (gallery.identities <= people))
    few = subset(gallery, np.union1d(firsts, more))
    results = measure_garments(copy_structure, few, {}, 0)
    assert "band_transfer" in results and ("band_transfer_real" in results) == (people == 4)


def test_a_colour_that_all_images_share_says_nothing() -> None:
    """Means of one colour over masks of other sizes differ by rounding."""
    rng = np.random.default_rng(0)
    target = rng.normal(50, 20, (8, 8, 2, 3))
    shared = 50 + rng.normal(0, 1e-5, (8, 1, 2, 3))
    varied = rng.normal(50, 20, (1, 8, 2, 3))
    results = garment_bands._fits(target, shared, varied)
    assert of_garments(results, "transfer") == [0, 0, 0, 0]
    assert min(abs(value) for value in of_garments(results, "structure")) > 0


def test_too_few_people_are_said(gallery: CachedSplit) -> None:
    few = subset(gallery, gallery.identities < 8)
    results = measure_garments(copy_structure, few, {}, 0)
    assert list(results) == ["bands_missing"]
    assert "7 people in the gallery; at least 8" in str(results["bands_missing"])


def test_poses_of_other_images_are_refused(gallery: CachedSplit) -> None:
    other = {"a.jpg": np.zeros((18, 2), np.int32)}
    with pytest.raises(InputError, match=r"--config\.data\.poses: .*a\.jpg, but none .* 28"):
        measure_garments(copy_structure, gallery, other, 0)


@pytest.mark.usefixtures("unchecked")
def test_evaluation_measures_them_unless_the_people_are_drawn(
    gallery: CachedSplit,
    poses: Callable[[], dict[str, np.ndarray]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        f"{name}: {pose[:, 0].tolist()}: {pose[:, 1].tolist()}" for name, pose in poses().items()
    ]
    file = tmp_path / "poses.csv"
    file.write_text("\n".join(["name:keypoints_y:keypoints_x", *lines]))
    monkeypatch.setattr(image_metrics, "measure_against", lambda real, model: {"generated": 1})
    model = SimpleNamespace(swap=copy_structure, source=str(tmp_path))
    data = SimpleNamespace(gallery=gallery)

    def evaluated(drawn: object) -> dict[str, object]:
        real = SimpleNamespace(drawn=drawn)
        monkeypatch.setattr(image_metrics, "real_images", lambda config, data, teacher: real)
        config = tiny_config({"data.poses": str(file)})
        return dict(image_metrics.measure_images(config, model, data))  # type: ignore[arg-type]

    results = evaluated(None)
    expected = measure_garments(copy_structure, gallery, poses(), 0)
    assert expected.items() <= results.items()
    assert not any("band" in name for name in evaluated("settings of a drawing"))


@pytest.mark.usefixtures("unchecked")
def test_poses_of_other_images_are_refused_before_anything_is_measured(
    gallery: CachedSplit, tmp_path: Path
) -> None:
    joints = str([1] * 18)
    (tmp_path / "poses.csv").write_text(f"name:keypoints_y:keypoints_x\na.jpg: {joints}: {joints}")
    data = SimpleNamespace(gallery=gallery)
    config = tiny_config({"data.poses": str(tmp_path / "poses.csv")})
    with pytest.raises(InputError, match=r"--config\.data\.poses: .*a\.jpg, but none of the 28"):
        image_metrics.gallery_poses(config, data)  # type: ignore[arg-type]
    draw_dataset(
        tmp_path / "drawn", train_identities=1, test_identities=1, images_per_identity_camera=2
    )
    config.data.root = str(tmp_path / "drawn")
    assert image_metrics.gallery_poses(config, data) == {}  # type: ignore[arg-type]


def shown(images: dict[str, object]) -> str:
    """The table of an evaluation with these measures of generated images."""
    names = ("trained_on", "evaluated_on", "data_root", "identities", "step", "reconstruction_loss")
    evaluation = dict.fromkeys(names, "")
    return evaluation_table(
        {**evaluation, "ranking": [], "counts": {}, "generated_images": {"generated": 1, **images}}
    )


def test_the_table_says_what_moves_and_how_garments_were_found(
    gallery: CachedSplit, poses: Callable[[], dict[str, np.ndarray]]
) -> None:
    results = measure_garments(copy_structure, gallery, poses(), 0)
    table = shown(dict(results))
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in table.splitlines()
        if line.startswith("| ")
    }
    assert rows["garments' colours"] == ["top", "top, L*", "lower", "lower, L*"]
    moved = [float(cell) for cell in rows["generated: share of the appearance image's"]]
    assert moved == [0] * 4
    assert rows["generated: share of the structure image's"] == ["1.00"] * 4
    real = [
        f"{results[f'band_transfer_{name}_real']:.2f}"
        for name in ("top", "top_lightness", "lower", "lower_lightness")
    ]
    assert rows["real: another image of the person"] == real
    assert f"by keypoints in {results['band_posed']} of 12 images" in table
    assert "13 pairs, keypoints in 24 of 26 images" in table
    missing = measure_garments(copy_structure, subset(gallery, gallery.identities < 8), {}, 0)
    assert shown(dict(missing)).endswith(str(missing["bands_missing"]))
    assert "garments' colours |" not in shown({"fid_png": 1.0})
