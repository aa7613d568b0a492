"""Swaps against their truth: what known generators score, and every number by its definition."""

import itertools

import jax
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import structural_similarity
from test_figures import find
from tiny import IDENTITIES, tiny_config, tiny_state

from dgnet_jax.data.drawing.wardrobe import PARTS
from dgnet_jax.data.synthetic import Settings, TrueSwaps, choose_shots, draw_true_swaps
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.truth import (
    COLOURED,
    GARMENTS,
    chosen_swaps,
    measure_in_short,
    measure_truth,
    transfer,
    unmeasurable,
)
from dgnet_jax.models import build_networks
from dgnet_jax.models.forward import Forward
from dgnet_jax.training.pictures import Painter
from dgnet_jax.training.state import make_optimizers

SETTINGS = Settings(
    seed=0,
    train_identities=2,
    test_identities=20,
    images_per_identity_camera=2,
    distractors=0,
    junk=0,
    height=128,
    width=64,
)


@pytest.fixture(scope="module")
def swaps() -> TrueSwaps:
    return chosen_swaps(SETTINGS, 6, 0, 64, 32)


@pytest.fixture(scope="module")
def copies(swaps: TrueSwaps) -> np.ndarray:
    return np.broadcast_to(swaps.structures, swaps.truth.shape)


def pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def transfers(found: dict[str, float], kind: str = "transfer") -> list[float]:
    return [found[f"truth_{kind}_{garment}"] for garment in GARMENTS]


def test_the_truth_has_transferred_everything(swaps: TrueSwaps) -> None:
    found = measure_truth(swaps.truth, swaps)
    assert found["appearance_transfer"] == pytest.approx(1, abs=1e-9)
    assert transfers(found) == pytest.approx([1] * 3, abs=1e-9)
    assert transfers(found, "structure_colour") == pytest.approx([0] * 3, abs=1e-9)
    assert found["structure_kept"] == pytest.approx(1, abs=1e-5)
    assert found["truth_ssim"] == pytest.approx(1, abs=1e-5)
    assert found["truth_l1"] == 0
    assert [found[f"truth_colour_error_{part}"] for part in COLOURED] == [0] * 6
    assert found["truth_pairs"] == 36


def test_a_copy_of_the_structure_image_has_transferred_nothing(
    swaps: TrueSwaps, copies: np.ndarray
) -> None:
    found = measure_truth(copies, swaps)
    assert found["appearance_transfer"] == pytest.approx(0, abs=1e-9)
    assert transfers(found) == pytest.approx([0] * 3, abs=1e-9)
    assert transfers(found, "structure_colour") == pytest.approx([1] * 3, abs=1e-9)
    # The row that stands beside every generator.
    others = measure_truth(swaps.truth, swaps)
    for name in ("structure_kept", "truth_l1", "truth_ssim", "truth_colour_error_top"):
        assert found[name] == found[f"{name}_copy"] == others[f"{name}_copy"]
    # Hair and background are the truth's, clothes and skin are not.
    near, far = ("hair", "background"), ("top", "lower", "shoes", "skin")
    assert all(found[f"truth_colour_error_{part}"] < 3 for part in near)
    assert all(found[f"truth_colour_error_{part}"] > 10 for part in far)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_blend_of_truth_and_structure_has_transferred_its_share(
    swaps: TrueSwaps, copies: np.ndarray, share: float
) -> None:
    blend = pixels(share * swaps.truth.astype(float) + (1 - share) * copies)
    found = transfer(blend, swaps)
    # sRGB's values are mixed, and Lab is not linear in them.
    assert transfers(found) == pytest.approx([share] * 3, abs=0.05)
    assert transfers(found, "structure_colour") == pytest.approx([1 - share] * 3, abs=0.05)


def test_without_a_say_of_the_appearance_image_nothing_is_transferred(swaps: TrueSwaps) -> None:
    shape = swaps.truth.shape
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    gray = np.broadcast_to(swaps.structures.mean(-1, keepdims=True), shape)
    # The clothes of all, in the light of each scene.
    common = np.broadcast_to(swaps.truth.mean(0), shape)
    assert transfer(np.full(shape, 120, np.uint8), swaps)["appearance_transfer"] == 0
    for generated in (noise, pixels(gray), pixels(common)):
        assert abs(transfer(generated, swaps)["appearance_transfer"]) < 0.1
    # What would not do: the clothes of all lie halfway between structure image and truth.
    top = swaps.parts == PARTS.index("top")
    colours = rgb2lab(swaps.truth), rgb2lab(swaps.structures[None]), rgb2lab(common / 255)
    t, s, y = (np.where(top[..., None], lab, 0).mean((2, 3)) for lab in colours)
    assert 0.3 < ((y - s) * (t - s)).sum() / ((t - s) ** 2).sum() < 0.7


def by_definition(generated: np.ndarray, swaps: TrueSwaps, garment: str) -> tuple[float, ...]:
    """a, b and the area of a garment, from the design matrices, with scikit-image's Lab."""
    rows = []
    for i, j in np.ndindex(*swaps.parts.shape[:2]):
        mask = swaps.parts[i, j] == PARTS.index(garment)
        if mask.any():
            images = generated[i, j], swaps.truth[i, j], swaps.structures[j]
            rows.append((j, mask.sum(), *(rgb2lab(image)[mask].mean(0) for image in images)))
    structures, areas = np.array([(j, area) for j, area, *_ in rows]).T
    y, t, s = (np.stack([row[k] for row in rows]).ravel() for k in (2, 3, 4))
    constants = np.kron(structures[:, None] == np.unique(structures), np.eye(3))
    weights = np.sqrt(np.repeat(areas, 3))
    design = np.column_stack([t, s, constants])
    a = np.linalg.lstsq(design * weights[:, None], y * weights)[0][0]
    design = np.column_stack([s, np.tile(np.eye(3), (len(rows), 1))])
    b = np.linalg.lstsq(design * weights[:, None], (y - a * t) * weights)[0][0]
    return a, b, areas.sum()


def hue_alone(swaps: TrueSwaps, copies: np.ndarray) -> np.ndarray:
    """The truth's a* and b* with the lightness of the structure image, as far as sRGB goes."""
    lab = rgb2lab(swaps.truth)
    lab[..., 0] = rgb2lab(copies)[..., 0]
    return pixels(255 * lab2rgb(lab))


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_the_fit_is_that_of_its_design_matrix(swaps: TrueSwaps, copies: np.ndarray) -> None:
    mirrored = swaps.truth[:, :, :, ::-1] // 2 + 60
    for generated in (hue_alone(swaps, copies), mirrored, swaps.truth[::-1]):
        found = transfer(np.ascontiguousarray(generated), swaps)
        expected = [by_definition(generated, swaps, garment) for garment in GARMENTS]
        assert transfers(found) == pytest.approx([a for a, _, _ in expected], abs=2e-4)
        assert transfers(found, "structure_colour") == pytest.approx(
            [b for _, b, _ in expected], abs=2e-4
        )
        areas = [area for _, _, area in expected]
        mean = np.average([a for a, _, _ in expected], weights=areas)
        assert found["appearance_transfer"] == pytest.approx(mean, abs=2e-4)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_a_change_of_hue_alone_is_a_part_of_a_swap(swaps: TrueSwaps, copies: np.ndarray) -> None:
    found = measure_truth(hue_alone(swaps, copies), swaps)
    assert found["appearance_transfer"] == pytest.approx(0.67, abs=0.03)
    # Lightness is the copy's, but for what sRGB cannot show.
    assert found["structure_kept"] == pytest.approx(found["structure_kept_copy"], abs=0.05)
    assert found["truth_ssim"] > found["truth_ssim_copy"] + 0.02


def test_only_a_garments_own_pixels_say_something_of_it(swaps: TrueSwaps) -> None:
    spoilt = swaps.truth.copy()
    spoilt[np.isin(swaps.parts, [PARTS.index("background"), PARTS.index("bag")])] = (255, 0, 255)
    found, whole = measure_truth(spoilt, swaps), measure_truth(swaps.truth, swaps)
    same = [name for name in whole if name.startswith(("truth_transfer", "truth_structure_colour"))]
    same += [f"truth_colour_error_{part}" for part in COLOURED if part != "background"]
    assert [found[name] for name in same] == [whole[name] for name in same]
    assert found["truth_colour_error_background"] > 30
    assert found["truth_l1"] > 0.2


def test_the_other_measures_are_scikit_images(swaps: TrueSwaps) -> None:
    generated = swaps.truth[::-1, ::-1]
    found = measure_truth(np.ascontiguousarray(generated), swaps)
    lab, true = rgb2lab(generated), rgb2lab(swaps.truth)
    similarities = np.array(
        [
            [
                structural_similarity(
                    lab[place][..., channel],
                    true[place][..., channel],
                    data_range=100,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for channel in range(3)
            ]
            for place in np.ndindex(6, 6)
        ]
    )
    assert found["structure_kept"] == pytest.approx(similarities[:, 0].mean(), abs=1e-4)
    assert found["truth_ssim"] == pytest.approx(similarities.mean(), abs=1e-4)
    difference = np.abs(generated.astype(float) - swaps.truth).mean() / 255
    assert found["truth_l1"] == pytest.approx(difference, rel=1e-9)
    errors = deltaE_ciede2000(lab, true)
    for part in COLOURED:
        expected = errors[swaps.parts == PARTS.index(part)].mean()
        assert found[f"truth_colour_error_{part}"] == pytest.approx(expected, abs=0.02)


def by_hand(parts: np.ndarray, truth: np.ndarray, structures: np.ndarray) -> TrueSwaps:
    appearances = np.zeros((len(truth), *truth.shape[2:]), np.uint8)
    return TrueSwaps(appearances, structures, truth, parts)


def test_black_for_white_is_an_error_of_a_hundred() -> None:
    """CIEDE2000 between L* 100 and L* 0 without chroma; a part that nobody has has no number."""
    parts = np.zeros((2, 2, 16, 16), np.uint8)
    parts[:, :, 4:8] = PARTS.index("top")
    white = np.full((2, 2, 16, 16, 3), 255, np.uint8)
    truth = by_hand(parts, white, np.zeros((2, 16, 16, 3), np.uint8))
    found = measure_truth(np.zeros_like(white), truth)
    names = ["truth_colour_error_top", "truth_colour_error_background"]
    assert [found[name] for name in names] == pytest.approx([100, 100], abs=0.01)
    assert found["truth_l1"] == 1
    assert not [name for name in found if name.endswith(("lower", "shoes", "hair", "skin"))]


def test_what_does_not_depend_on_the_appearance_has_no_transfer() -> None:
    """All tops are white, and there are shoes under one appearance alone; the rest is measured."""
    rng = np.random.default_rng(0)
    parts = np.zeros((3, 2, 16, 16), np.uint8)
    parts[:, :, 4:8] = PARTS.index("top")
    parts[:, :, 8:12] = PARTS.index("lower")
    parts[0, :, 12:] = PARTS.index("shoes")
    structures = np.repeat(rng.integers(0, 256, (2, 16, 1, 3), np.uint8), 16, axis=2)
    truth = np.empty((3, 2, 16, 16, 3), np.uint8)
    truth[:] = rng.integers(0, 256, (3, 1, 1, 1, 3))
    truth[:, :, 4:8] = 255
    swaps = by_hand(parts, truth, structures)
    found = transfer(truth, swaps)
    assert found.keys() == {
        "appearance_transfer",
        "truth_transfer_lower",
        "truth_structure_colour_lower",
    }
    assert found["appearance_transfer"] == pytest.approx(1)
    assert transfer(truth, swaps._replace(parts=np.zeros_like(parts))) == {}
    short = measure_in_short(truth, swaps._replace(parts=np.zeros_like(parts)))
    assert short.keys() == {"structure_kept", "structure_kept_copy"}


def test_structure_is_kept_by_what_keeps_it(swaps: TrueSwaps, copies: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    shifted = np.roll(swaps.truth, 4, axis=2)
    noise = rng.integers(0, 256, swaps.truth.shape, np.uint8)
    grainy = pixels(swaps.truth + rng.normal(0, 5, swaps.truth.shape))
    kept = [
        measure_in_short(generated, swaps)["structure_kept"]
        for generated in (swaps.truth, grainy, copies, shifted, noise)
    ]
    assert kept[0] == pytest.approx(1, abs=1e-5)
    assert all(better > worse + 0.02 for better, worse in itertools.pairwise(kept)), kept


def test_in_short_it_is_the_same(swaps: TrueSwaps) -> None:
    generated = np.ascontiguousarray(swaps.truth[::-1])
    short, whole = measure_in_short(generated, swaps), measure_truth(generated, swaps)
    assert list(short) == ["appearance_transfer", "structure_kept", "structure_kept_copy"]
    assert short == pytest.approx({name: whole[name] for name in short}, abs=1e-6)


def test_what_cannot_be_compared_is_said(swaps: TrueSwaps) -> None:
    one = chosen_swaps(SETTINGS, 1, 0, 32, 16)
    small = chosen_swaps(SETTINGS, 2, 0, 16, 8)
    for truth, reason in ((one, "appearances: 1, structures: 1; two"), (small, "16 x 8 pixels")):
        assert reason in unmeasurable(truth)
        with pytest.raises(InputError, match=f"against their truth: .*{reason[:9]}"):
            measure_truth(truth.truth, truth)
    assert unmeasurable(swaps) == ""
    with pytest.raises(InputError, match=r"\(5, 6, 64, 32, 3\), the truth's is \(6, 6"):
        measure_in_short(swaps.truth[1:], swaps)


def test_the_choice_is_drawn_once(swaps: TrueSwaps) -> None:
    assert chosen_swaps(SETTINGS, 6, 0, 64, 32) is swaps
    again = draw_true_swaps(SETTINGS, *choose_shots(SETTINGS, 6, 0), 64, 32)
    np.testing.assert_array_equal(again.truth, swaps.truth)


class Untrained:
    """A painter with the tiny networks, which have learnt nothing."""

    def __init__(self, rows: int) -> None:
        self.config = tiny_config({"log.image_rows": rows})
        self.networks = build_networks(self.config, IDENTITIES)
        self.state = tiny_state(self.networks, make_optimizers(self.config), 0)
        images = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), np.uint8)
        self.painter = Painter(self.config, self.networks, images, SETTINGS)

    @property
    def truth(self) -> TrueSwaps:
        return chosen_swaps(SETTINGS, 10, self.config.seed, 32, 16)


@pytest.fixture(scope="module")
def untrained() -> Untrained:
    return Untrained(rows=4)


def test_untrained_networks_transfer_nothing(untrained: Untrained) -> None:
    found = untrained.painter.measure(untrained.state)
    assert list(found) == ["appearance_transfer", "structure_kept", "structure_kept_copy"]
    assert abs(found["appearance_transfer"]) < 0.1
    assert found["structure_kept"] < found["structure_kept_copy"]


def test_a_painter_measures_and_shows_what_its_network_paints(untrained: Untrained) -> None:
    """Ten appearances and structures, and six and eight, in squares of the four compiled."""
    painter, state, truth = untrained.painter, untrained.state, untrained.truth
    swap = jax.jit(Forward(untrained.networks, 32, 16).swap)
    expected = np.stack(
        [
            np.asarray(
                swap(
                    state.generator,
                    state.appearance_variables,
                    np.stack([image] * 10),
                    truth.structures,
                )
            )
            for image in truth.appearances
        ]
    )
    # Two compilations of the same sums may round to neighbouring levels.
    painted = painter._swap(state, truth.appearances, truth.structures)
    compiled = painter._swap_all._cache_size()
    assert np.abs(painted.astype(int) - expected).max() <= 1
    assert painter.measure(state) == measure_in_short(painted, truth)
    figure = painter.pictures(state, 40)["truth"]
    large = [image.repeat(4, axis=0).repeat(4, axis=1) for image in truth.truth[0, :8]]
    rows, columns = np.transpose([find(figure, image) for image in large])
    assert len(set(rows)) == 1 and (np.diff(columns) > 64).all()
    above = painted[0, 7].repeat(4, axis=0).repeat(4, axis=1)
    y, x = find(figure, above)
    assert x == columns[7] and y + 128 < rows[0] < y + 160
    find(figure, truth.truth[5, 7].repeat(4, axis=0).repeat(4, axis=1))
    assert painter._swap_all._cache_size() == compiled


def test_other_data_have_no_truth(untrained: Untrained) -> None:
    images = np.zeros((5, 32, 16, 3), np.uint8)
    painter = Painter(untrained.config, untrained.networks, images)
    assert painter.measure(untrained.state) == {}
    assert painter._truth is None
