"""The report of a study: its curves against closed forms, its pictures pixel by pixel, its page."""

import base64
import copy
import io
import json
import math
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from report_page import Page, log_lines, make_study, row, smooth_images
from test_ablation_dataset_table import market
from test_figures import find, noise

from configs import trained
from dgnet_jax.ablation.published import PUBLISHED
from dgnet_jax.ablation.report import (
    breakable,
    comparisons,
    plots,
    render,
    sections,
    write_report,
    write_run_report,
)
from dgnet_jax.ablation.report.pictures import picture_sections
from dgnet_jax.ablation.report.runs import (
    Run,
    Series,
    by_label,
    over_seeds,
    read_history,
    thesis_groups,
)
from dgnet_jax.ablation.report.section import Picture, Section
from dgnet_jax.ablation.tables import study_tables
from dgnet_jax.config import default_config
from dgnet_jax.data.sampling import choose_images
from dgnet_jax.errors import InputError
from dgnet_jax.generate.swap import swap_grid
from dgnet_jax.inference import load_model
from dgnet_jax.losses import FUSIONS, LOSSES

IMAGES = smooth_images(10)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study's folder that nothing is written to, its rows and its configuration."""
    folder = tmp_path_factory.mktemp("original")
    return folder, *make_study(folder)


@pytest.fixture
def made(original, tmp_path):
    """Rows and configuration of a study in `tmp_path`."""
    return copied(original, tmp_path)


def copied(original, folder):
    first, rows, config = original
    shutil.copytree(first, folder, dirs_exist_ok=True)
    return copy.deepcopy(rows), config.copy_and_resolve_references()


@pytest.fixture(scope="module")
def study(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    rows, config = copied(original, folder)
    config.data.name = "market1501"
    page = write_report(folder, rows, config, train_images=IMAGES, dataset=market(train=100))
    return folder, config, page, rows


@pytest.fixture(scope="module")
def page(study) -> Page:
    return Page(study[2].read_text(encoding="utf-8"))


def series(*pairs: tuple[int, float]) -> Series:
    steps, values = zip(*pairs, strict=True)
    return Series(np.asarray(steps), np.asarray(values, np.float64))


def run(label: str, seed: int, mean_average_precision: Series | None = None, **fields) -> Run:
    evaluations = {} if mean_average_precision is None else {"mAP": mean_average_precision}
    return Run(label, seed, None, row(label, seed, **fields), evaluations, {})


def test_a_log_is_read_by_name_without_the_teacher_and_without_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(log_lines(0, 0.0, diverges=True) + '{"kind": "train", "stage": "dg')
    evaluations, losses, fault = read_history(path)
    assert fault == f"1 of 16 lines of {path} are broken"
    assert evaluations["mAP"].steps.tolist() == [0, 100, 200, 300]
    np.testing.assert_allclose(evaluations["mAP"].values, [0, 1 / 6, 1 / 3, 1 / 2])
    assert losses.keys() == {"self_reconstruction", "adversarial"}
    assert losses["self_reconstruction"].values[0] == 12
    assert math.isnan(losses["self_reconstruction"].values[-1])
    assert read_history(tmp_path / "absent.jsonl") == ({}, {}, "")


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "3",
        "[" * 10_000,
        '{"kind": "train", "stage": "dgnet", "step": 1e400, "a": 1}',
        '{"kind": "train", "stage": "dgnet", "step": "5", "a": 1}',
        '{"kind": "train", "stage": "dgnet", "step": 99999999999999999999, "a": 1}',
        '{"kind": {}, "stage": "dgnet", "step": 5, "a": 1}',
        '{"kind": "train", "stage": [], "step": 5, "a": 1}',
        '{"kind": "train", "stage": "dgnet", "step": 5, "a": "1"}',
        '{"kind": "train", "stage": "dgnet", "step": 5, "a": 1' + "0" * 400 + "}",
    ],
)
def test_a_line_of_another_shape_is_left_out_of_the_curves_and_counted(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = '{"kind": "train", "stage": "dgnet", "step": 4, "a": 2.5}'
    path.write_text(f"{good}\n{line}\n")
    evaluations, losses, fault = read_history(path)
    assert not evaluations
    assert losses["a"].steps.tolist() == [4] and losses["a"].values.tolist() == [2.5]
    assert fault == f"1 of 2 lines of {path} are broken"


def test_a_fifo_in_the_place_of_the_log_is_named(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    found = read_history(tmp_path / "metrics.jsonl")
    assert not found.losses and "a FIFO, not a file" in found.fault


def test_the_band_spans_the_seeds_at_the_steps_that_all_have():
    mean, band = over_seeds([series((0, 1.0), (10, 2.0), (20, 9.0)), series((0, 3.0), (10, 6.0))])
    assert mean.steps.tolist() == [0, 10]
    assert mean.values.tolist() == [2, 4]
    assert band.tolist() == [[1, 2], [3, 6]]


def test_losses_come_in_the_thesis_order_and_fusions_are_shown_beside_l1():
    shuffled = [run(label, seed) for label in ("mine", "l1_mse", "ml", "l1") for seed in (1, 0)]
    groups = by_label(shuffled)
    assert list(groups) == ["l1", "ml", "l1_mse", "mine"]
    assert [one.seed for one in groups["ml"]] == [0, 1]
    assert thesis_groups(list(groups)) == [
        ("Single losses", ["l1", "ml"]),
        ("Fusions and other losses", ["l1", "l1_mse", "mine"]),
    ]
    assert thesis_groups(["l1", "mse", "mine"])[1] == ("Other losses", ["l1", "mine"])
    assert thesis_groups(["l1_rmse"]) == [("Fusions", ["l1_rmse"])]
    assert thesis_groups(["l1"]) == [("Single losses", ["l1"])]
    assert thesis_groups(["l1", "l1_cos"]) == [("Fusions", ["l1", "l1_cos"])]
    whole = thesis_groups([*LOSSES, *FUSIONS])
    assert [len(labels) for _, labels in whole] == [7, 6]


def test_many_losses_are_shown_in_groups_that_can_be_read():
    others = [f"loss{number}" for number in range(23)]
    sums = ["l1_first", "l1_second"]
    shuffled = [run(label, 0) for label in [*sums, *others, *FUSIONS, *LOSSES]]
    labels = list(by_label(shuffled))
    # `row` has the expressions l1+first and l1+second.
    assert labels == [*LOSSES, *FUSIONS, *others, *sums]
    groups = thesis_groups(labels)
    assert [title for title, _ in groups] == [
        *("Single losses", "Fusions"),
        *(f"Other losses, {part} of 4" for part in range(1, 5)),
    ]
    assert max(len(own) for _, own in groups) == 8
    assert all(own[0] == "l1" for _, own in groups)
    assert [label for _, own in groups[2:] for label in own[1:]] == others + sums


def test_a_metric_is_drawn_in_percent_with_a_band_and_a_cross_where_a_run_diverged():
    ended = series((0, 0.1), (10, 0.3), (20, math.nan))
    groups = {
        "l1": [
            run("l1", 0, series((0, 0.2), (10, 0.4))),
            run("l1", 1, series((0, 0.4), (10, 0.6))),
        ],
        "huber": [run("huber", 0, ended, status="diverged")],
    }
    (axes,) = plots.metric_curves(groups, "mAP", "mAP (%)").axes
    mean, broken, cross = axes.lines
    np.testing.assert_allclose(mean.get_xydata(), [[0, 30], [10, 50]])
    np.testing.assert_allclose(broken.get_xydata(), [[0, 10], [10, 30]])
    np.testing.assert_allclose(cross.get_xydata(), [[10, 30]])
    (band,) = axes.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices.round(6).tolist()}
    assert {(0.0, 20.0), (0.0, 40.0), (10.0, 40.0), (10.0, 60.0)} <= corners
    assert axes.get_ylim()[1] > 60
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["l1 (2 seeds)", "huber (diverged)"]


def test_training_curves_are_means_over_seeds_by_group_of_terms():
    def of(seed: int, level: float) -> Run:
        losses = {
            "self_reconstruction": series((10, level), (20, level)),
            "identity": series((10, 2 * level), (20, 2 * level)),
            "images_per_second": series((10, 1.0)),
        }
        return Run("l1", seed, None, row("l1", seed), {}, losses)

    figure = plots.training_curves([of(0, 1.0), of(1, 3.0)])
    reconstruction, others = figure.axes
    assert [line.get_label() for line in reconstruction.lines] == ["self reconstruction (2 seeds)"]
    np.testing.assert_allclose(reconstruction.lines[0].get_ydata(), [2, 2])
    np.testing.assert_allclose(others.lines[0].get_ydata(), [4, 4])
    assert reconstruction.get_yscale() == "log"
    assert plots.training_curves([run("l1", 0)]) is None


def test_smoothing_keeps_the_sum_of_a_peak_and_a_constant():
    values = np.zeros(100)
    values[50] = 1
    smoothed = plots.smooth(Series(np.arange(100), values)).values
    assert smoothed.sum() == pytest.approx(1)
    assert smoothed.max() == pytest.approx(1 / 5)
    ones = Series(np.arange(7), np.ones(7))
    assert plots.smooth(ones).values.tolist() == [1] * 7


@pytest.fixture(scope="module")
def painting() -> comparisons.Painting:
    originals = np.stack([noise(seed) for seed in range(3)])
    swapped = np.stack([np.stack([noise(10 * i + j + 20) for j in range(3)]) for i in range(3)])
    return comparisons.Painting(run("l1", 0, fid_png=20.5), 3, originals, swapped)


def scaled(image: np.ndarray, factor: int) -> np.ndarray:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def test_losses_stand_side_by_side_on_the_rows_of_their_inputs(painting):
    other = painting._replace(swapped=255 - painting.swapped)
    figure = comparisons.side_by_side([painting, other])
    appearance = find_all(figure, painting.originals[0])
    (y, x), *_ = sorted(appearance, key=lambda place: place[1])
    assert find(figure, scaled(painting.swapped[0, 1], 4))[0] == y
    places = [
        find(figure, scaled(image, 4))[1] for image in (painting.swapped[0, 1], other.swapped[0, 1])
    ]
    assert x < places[0] < places[1]
    # The structure is the second input, which is the appearance of the next row.
    assert y in [place[0] for place in find_all(figure, painting.originals[1])]


def find_all(figure: Image.Image, image: np.ndarray) -> list[tuple[int, int]]:
    """All places of a 4 times enlarged image."""
    wanted, canvas = scaled(image, 4), np.asarray(figure)
    height, width = wanted.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (height, width), axis=(0, 1))
    candidates = np.argwhere((windows[..., 0, 0] == wanted[0, 0]).all(-1))
    return [
        (int(y), int(x))
        for y, x in candidates
        if (canvas[y : y + height, x : x + width] == wanted).all()
    ]


def test_one_loss_enlarged_shows_every_pixel_as_a_square(painting):
    figure = comparisons.enlarged(painting)
    rebuilt, swapped = painting.swapped[0, 0], painting.swapped[0, 1]
    first = [find(figure, scaled(one, 12)) for one in (painting.originals[0], rebuilt, swapped)]
    assert first[0][0] == first[1][0] == first[2][0]
    assert first[0][1] < first[1][1] < first[2][1]
    others = (painting.originals[1], painting.swapped[1, 1], painting.swapped[1, 0])
    second = [find(figure, scaled(one, 12)) for one in others]
    assert [x for _, x in second] == [x for _, x in first]
    assert second[0][0] == second[1][0] == second[2][0] > first[0][0]


def test_two_losses_are_enlarged_beside_each_other_on_the_same_image(painting):
    other = painting._replace(swapped=255 - painting.swapped)
    figure = comparisons.enlarged_pair(painting, other, 1)
    images = (
        *(painting.originals[1], painting.originals[2]),
        *(painting.swapped[1, 2], other.swapped[1, 2]),
    )
    places = [find(figure, scaled(image, 12)) for image in images]
    assert len({y for y, _ in places}) == 1
    assert [x for _, x in places] == sorted(x for _, x in places)


def test_l1_stands_beside_l1_rmse_or_the_best_fusion_or_each_loss_alone(painting, tmp_path):
    fids = {"l1": 20.0, "l1_cos": 18.0, "l1_mse": 17.0, "huber": 5.0, "l1_rmse": 19.0}
    everything = {
        label: painting._replace(run=run(label, 0, fid_png=fid)) for label, fid in fids.items()
    }

    def enlarged(*labels):
        paintings = {label: everything[label] for label in labels}
        groups = {label: [one.run] for label, one in paintings.items()}
        *_, section = picture_sections(tmp_path, groups, paintings, [])
        return section

    both = enlarged(*fids)
    assert [one.file for one in both.pictures] == ["enlarged_1.png", "enlarged_2.png"]
    assert both.pictures[0].caption.startswith("L1 beside l1+rmse. Seed 0, step 3.")
    best = enlarged("l1", "l1_cos", "l1_mse", "huber")
    assert [one.file for one in best.pictures] == ["enlarged_1.png", "enlarged_2.png"]
    for text in (best.text[0], best.pictures[1].caption):
        assert "1 beside l1_mse, the fusion with the best FID here, for want of l1+rmse" in text
    for labels in (("l1", "huber"), ("l1_cos", "l1_rmse")):
        alone = enlarged(*labels)
        assert [one.file for one in alone.pictures] == [f"enlarged_{name}.png" for name in labels]
        assert "each loss by itself: there is no picture with l1" in alone.text[0]
    assert "nor with another fusion" in enlarged("l1", "huber").text[0]


@pytest.mark.parametrize(("rows", "factor"), [(256, 2), (128, 3), (150, 3)])
def test_enlarged_images_are_enlarged_at_every_size(painting, rows, factor):
    originals = np.zeros((3, rows, 8, 3), np.uint8)
    large = painting._replace(originals=originals, swapped=np.stack([originals] * 3))
    plain, figure = comparisons.swaps(large), comparisons.enlarged(large)
    # Two rows of images against four.
    assert figure.height > factor * 2 * rows
    assert figure.height < factor * 2 * rows + plain.height


def test_the_title_of_a_column_has_the_fid_or_that_the_run_diverged(painting):
    assert painting.title == "l1\nFID 20.50"
    assert painting._replace(run=run("l1", 0)).title == "l1"
    assert painting._replace(run=run("huber", 0, status="diverged")).title == "huber\ndiverged"


def test_all_pictures_show_the_seeded_choice_and_what_the_model_itself_paints_of_it(study):
    folder, config, path, _ = study
    chosen = IMAGES[choose_images(len(IMAGES), 3, config.seed)]
    painted = {}
    for label, seed in (("l1", 0), ("l1_rmse", 1), ("huber", 0)):
        workdir = folder / "runs" / label / f"seed_{seed}"
        model = load_model(trained.get_config(str(workdir)), workdir)
        grid = swap_grid(model, chosen, chosen)
        painted[label, seed] = [grid[index, (index + 1) % 3] for index in range(3)]
    for (label, seed), images in painted.items():
        others = [other for run, own in painted.items() if run != (label, seed) for other in own]
        with Image.open(path.parent / f"swaps_{label}.png") as figure:
            assert figure.info == {"loss": label, "seed": str(seed), "step": "3"}
            # A row for each appearance, a column for each structure.
            inputs = [find_all(figure, image) for image in chosen]
            columns, rows = ([min(places, key=lambda p: p[i]) for places in inputs] for i in (0, 1))
            for index, image in enumerate(images):
                (place,) = find_all(figure, image)
                assert place == (rows[index][0], columns[(index + 1) % 3][1])
            assert not any(find_all(figure, other) for other in others)
            assert [len(places) for places in inputs] == [2, 2, 2]


def test_every_picture_of_the_page_is_a_png_beside_it_with_alternative_text_and_caption(
    study, page
):
    folder = study[2].parent
    files = {path.name for path in folder.glob("*.png")}
    assert files == {
        "curve_mAP.png",
        "curve_Rank_1.png",
        "side_by_side_Single_losses.png",
        "side_by_side_Fusions.png",
        *(f"swaps_{label}.png" for label in ("l1", "l1_rmse", "huber")),
        *("enlarged_1.png", "enlarged_2.png"),
        *(f"training_{label}.png" for label in ("l1", "l1_rmse", "huber")),
    }
    assert [link for link in page.links if not link.startswith("#")] == [
        caption.split()[-1] for caption in page.captions
    ]
    assert {link for link in page.links if not link.startswith("#")} == files
    assert len(page.images) == len(page.captions) == len(files)
    for image, caption in zip(page.images, page.captions, strict=True):
        assert len(image["alt"]) > 20
        assert len(caption.split()) > 2
        encoded = image["src"].partition("base64,")[2]
        with (
            Image.open(io.BytesIO(base64.b64decode(encoded))) as embedded,
            Image.open(folder / caption.split()[-1]) as beside,
        ):
            assert embedded.size == beside.size == (int(image["width"]), int(image["height"]))
            difference = np.asarray(embedded.convert("RGB"), float) - np.asarray(beside, float)
            assert np.abs(difference).mean() < 5


def test_nothing_is_fetched_from_anywhere(page):
    assert page.fetched
    assert all(address.startswith("data:") for address in page.fetched)
    assert not page.tags & {"script", "iframe", "object", "embed", "video", "audio"}


def test_published_values_have_marked_columns_of_their_own(page):
    ((head, *rows),) = [
        table for caption, table in page.tables.items() if caption.startswith("Fusions")
    ]
    shaded = [index for index, (_, classes, _) in enumerate(head) if classes == "published"]
    published = PUBLISHED["market1501"]
    gains = {"l1": ["", ""], "l1_rmse": ["20.57", "1.19"]}
    for cells in rows:
        label = cells[0][0].replace("+", "_")
        assert [cells[index][0] for index in shaded] == [
            *(
                f"{published[label][name]:.2f}"
                for name in ("fid", "rank1", "rank5", "rank10", "mAP")
            ),
            *gains[label],
        ]
        for index, (_, classes, _) in enumerate(cells):
            assert (classes == "published") == (index in shaded)


def test_measured_values_are_means_and_deviations_over_seeds_with_the_best_in_bold(page):
    ((head, *rows),) = [
        table for caption, table in page.tables.items() if caption.startswith("Fusions")
    ]
    titles = [cell[0] for cell in head]
    cells = {cells[0][0]: dict(zip(titles, cells, strict=True)) for cells in rows}
    assert cells["l1"]["mAP"][0] == "71.00 ± 1.41"
    assert cells["l1+rmse"]["mAP"] == ("76.00 ± 1.41", "", True)
    assert not cells["l1"]["mAP"][2]
    assert cells["l1+rmse"]["FID (PNG)"][0] == "18.75 ± 0.71"


def test_the_thesis_s_claims_stand_with_its_numbers_and_these(page):
    text = " ".join(page.text.split())
    # The FID of both seeds is 2.25 lower: a difference without any spread says nothing.
    assert (
        "L1 + RMSE gains over L1 in FID. Thesis: FID: l1+rmse 15.63 (gain 20.57 %), l1 19.68. "
        "Cannot be said. FID (PNG): l1+rmse 18.75 (gain 10.71 %), l1 21.00."
    ) in text
    assert "L1 + MSE has the best mAP of the thesis's twelve losses." in text
    assert "Gains are over l1" in text


def test_the_data_set_is_counted_beside_its_published_counts(page):
    head, train, *_ = page.tables["The data set market1501"]
    assert [cell[:2] for cell in head[3:5]] == [
        *(("images", ""), ("images (published)", "published")),
    ]
    assert [cell[0] for cell in train[:5]] == ["train", "100", "751", "100", "12,936"]
    assert "images of train: found 100, published 12,936" in page.text


def test_shaded_columns_are_published_values_and_the_thesis_s_in_tables_of_losses_alone(page):
    assert (
        "Shaded columns are published values, none measured here; in the tables of losses they are "
        "the thesis's, of full-size networks and 100,000 steps."
    ) in " ".join(page.text.split())
    methods = page.tables["Published methods on market1501"]
    shaded = {words for words, classes, _ in methods[0] if classes == "published"}
    assert shaded == {"FID (published)", "Rank@1 (published)", "mAP (published)"}
    assert "DG-Net" in [cells[0][0] for cells in methods]


def test_the_floor_of_fid_is_said_with_what_it_is_between(tmp_path):
    measured = {"l1": [run("l1", 0, mAP=0.5, fid_png=20.0, fid_real=7.224)]}
    text = sections.results_section(measured, "market1501", tmp_path).text
    assert "Real training images against the gallery, the floor, have FID 7.22." in text


def test_the_page_says_why_there_is_no_table_of_the_data_set():
    config = default_config()
    (sought,) = sections.dataset_section(None, config).text
    (given,) = sections.dataset_section(None, config, looked_for=False).text
    assert "The files of market1501 were not at hand" in sought
    assert "no data set was given" in given and "at hand" not in given
    for text in (sought, given):
        assert text.endswith("the table of identities, images and cameras is left out.")


def test_what_diverged_what_is_missing_and_what_is_to_come_is_said(page):
    assert "3 losses, 5 runs: 4 finished, 1 diverged." in page.text
    assert "huber, seed 0: diverged at step 1,812 (self_reconstruction)." in page.text
    assert "Without a result so far: huber (seed 1), mse (seed 0, 1)." in page.text
    failed = "huber, seed 0, diverged at step 1,812 (self_reconstruction)"
    assert f"{failed}: its last good checkpoint, step 3." in page.text
    # l1_rmse's seed 0 has no checkpoint, so that its seed 1 is shown.
    assert any(caption.startswith("l1_rmse, seed 1, step 3.") for caption in page.captions)
    # What stands above columns is legible without them.
    fids = "FID (PNG): l1 20.50, l1_rmse 19.25."
    shown = [caption.split()[-1] for caption in page.captions if fids in caption]
    assert shown == ["side_by_side_Fusions.png", "enlarged_1.png", "enlarged_2.png"]
    training = {caption.split(":")[0]: caption for caption in page.captions if ": terms" in caption}
    assert "mean and range over seeds" in training["l1"] and "cross" not in training["l1"]
    assert "A cross ends" in training["huber"] and "over seeds" not in training["huber"]


def test_without_data_or_inception_the_page_says_so(made, tmp_path):
    rows, config = made
    bare = [{**one, "fid_png": None, "dims": None} for one in rows if one["status"] == "finished"]
    config.data.root = str(tmp_path / "nowhere")
    page = Page(write_report(tmp_path, bare, config).read_text(encoding="utf-8"))
    assert "FID and KID were not measured" in page.text
    assert "There are no pictures, for the data set cannot be read here" in page.text
    assert f"The files of {config.data.name} were not at hand" in page.text
    assert not any(caption.startswith("The data set") for caption in page.tables)
    heads = [cell[0] for table in page.tables.values() for cell in table[0]]
    assert "mAP" in heads and "FID (PNG)" not in heads
    assert len(page.images) == 4


def test_what_is_damaged_is_left_out_and_named_in_the_page(made, tmp_path):
    rows, config = made
    rows = [one for one in rows if one["loss"] == "l1"]
    config.data.root = str(tmp_path / "nowhere")
    with (tmp_path / "runs" / "l1" / "seed_0" / "metrics.jsonl").open("a") as log:
        log.write("[]\n")
    picture = tmp_path / "runs" / "l1" / "seed_0" / "pictures" / "truth_00000400.png"
    picture.parent.mkdir()
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    damaged = ["runs/l1_rmse/seed_0/result.json: not valid JSON"]
    page = Page(write_report(tmp_path, rows, config, damaged).read_text(encoding="utf-8"))
    assert f"Left out: {damaged[0]}" in page.text
    assert "l1, seed 0: 1 of 16 lines of" in page.text
    assert f"Left out: {picture}: " in page.text


def test_a_study_in_which_all_diverged_says_so(made, tmp_path):
    rows, config = made
    config.log.image_rows = 2
    diverged = [one for one in rows if one["status"] == "diverged"]
    page = Page(write_report(tmp_path, diverged, config, train_images=IMAGES).read_text())
    assert "No run finished: there is nothing to compare." in page.text
    assert "1 loss, 1 run: 0 finished, 1 diverged." in page.text
    assert any("its last good checkpoint" in caption for caption in page.captions)


def test_a_report_removes_its_own_earlier_pictures_and_no_others(made, tmp_path):
    rows, config = made
    first, second = rows[:2], rows[4:]
    folder = tmp_path / "report"
    folder.mkdir()
    own = {"mine.png", "swaps_mine.png"}
    for name in own:
        (folder / name).write_bytes(b"a user's")

    def pictures() -> set[str]:
        return {file.name for file in folder.glob("*.png")} - own

    write_report(tmp_path, first, config, train_images=IMAGES)
    assert "swaps_l1.png" in pictures()
    written = json.loads((folder / ".pictures.json").read_text())
    assert set(written) == pictures()
    # Whatever the list says, nothing beside the folder's pictures goes.
    (tmp_path / "other.png").write_bytes(b"")
    (folder / ".pictures.json").write_text(json.dumps([*written, "../other.png", "index.html"]))
    page = Page(write_report(tmp_path, second, config, train_images=IMAGES).read_text())
    assert "swaps_huber.png" in pictures() and "swaps_l1.png" not in pictures()
    assert len(pictures()) == len(page.images)
    assert all((folder / name).read_bytes() == b"a user's" for name in own)
    assert (tmp_path / "other.png").exists() and (folder / "index.html").exists()
    # Nor anything where the list is broken.
    (folder / ".pictures.json").write_text("{")
    config.data.root = str(tmp_path / "nowhere")
    write_report(tmp_path, first, config)
    assert "swaps_huber.png" in pictures()


def test_labels_that_differ_in_an_underscore_have_pictures_of_their_own(made, tmp_path):
    rows, config = made
    for label in ("mine", "mine_"):
        shutil.copytree(tmp_path / "runs" / "l1", tmp_path / "runs" / label)
    chosen = [{**rows[0], "loss": label} for label in ("mine", "mine_")]
    path = write_report(tmp_path, chosen, config, train_images=IMAGES)
    page = Page(path.read_text())
    assert {"swaps_mine.png", "swaps_mine_.png"} <= {file.name for file in path.parent.iterdir()}
    assert len({image["alt"] for image in page.images}) == len(page.images)


def test_a_study_without_a_run_that_is_over_has_no_report(tmp_path):
    with pytest.raises(InputError, match="nothing to report"):
        write_report(tmp_path, [], None)


def test_a_section_of_many_pictures_links_to_each_by_its_loss():
    def pictures(count: int) -> list[Picture]:
        return [
            Picture(
                f"swaps_loss{number}.png", "data:,", 1, 1, "a picture", "words", f"loss{number}"
            )
            for number in range(count)
        ]

    def links(count: int) -> list[str]:
        html = render("title", {}, [Section("Swaps", pictures=pictures(count))])
        return [link for link in Page(html).links if link.startswith("#swaps_")]

    assert links(30) == [f"#swaps_loss{number}" for number in range(30)]
    assert 'id="swaps_loss29"' in render("title", {}, [Section("Swaps", pictures=pictures(30))])
    assert links(3) == []


def test_a_long_name_may_break_between_its_parts_and_is_escaped():
    assert breakable("l1+focal_frequency") == "l1+<wbr>focal_<wbr>frequency"
    assert breakable("f(a,<b>)") == "f(<wbr>a,<wbr>&lt;b&gt;)"


def test_a_page_says_a_note_once_and_the_table_s_own_file_says_it_each_time(study, page):
    note = "Bold is the best mean."
    assert page.text.count(note) == 1
    tables = study_tables(study[3], "market1501")
    assert sum(note in " ".join(table.notes) for table in tables) > 1


def test_names_are_escaped(made, tmp_path):
    rows, config = made
    config.data.name = "<script>alert(1)</script>&"
    html = write_report(tmp_path, rows[:1], config, train_images=IMAGES).read_text(encoding="utf-8")
    assert "script" not in Page(html).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in html


def test_a_single_run_has_a_page_without_published_values(made, tmp_path):
    _, config = made
    workdir = tmp_path / "runs" / "l1" / "seed_1"
    config.reconstruction_loss, config.seed, config.data.name = "rmse + l1", 1, "quickstart"
    metrics = {"rank1": 0.5, "mAP": 0.25, "queries": 96.0}
    path = write_run_report(workdir, config, metrics, train_images=IMAGES)
    assert path == workdir / "report" / "index.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert "DG-Net with rmse + l1 on quickstart" in page.text
    cells = [cell for table in page.tables.values() for row in table for cell in row]
    assert not any(classes == "published" for _, classes, _ in cells)
    assert {"50.00", "25.00", "l1+rmse"} <= {text for text, _, _ in cells}
    assert len(page.images) == 6
    assert "measured by launch.py --mode=evaluate" in page.text
    assert "no data set was given" in page.text
    assert "--config.inception" not in page.text
    assert (path.parent / "side_by_side.png").exists()


def test_drawn_people_are_shown_beside_their_truth(made, tmp_path):
    _, config = made
    workdir = tmp_path / "runs" / "l1" / "seed_1"
    config.seed = 1
    (workdir / "pictures").mkdir()
    images = {step: noise(step, 40, 60) for step in (100, 2000)}
    for step, image in images.items():
        Image.fromarray(image).save(workdir / "pictures" / f"truth_{step:07d}.png")
    with (workdir / "metrics.jsonl").open("a") as log:
        for step, transferred in ((0, -0.02), (100, 0.5)):
            row = {"kind": "evaluation", "stage": "dgnet", "step": step}
            log.write(json.dumps({**row, "appearance_transfer": transferred}) + "\n")
    metrics = {"mAP": 0.25, "appearance_transfer": 0.6251, "structure_kept": 0.8751}
    path = write_run_report(workdir, config, metrics, train_images=IMAGES)
    page = Page(path.read_text(encoding="utf-8"))
    assert "Swaps and their truth" in page.text
    (caption,) = (text for text in page.captions if "truth_l1.png" in text)
    assert "step 2,000. Measured: appearance transfer 0.625, structure kept 0.875." in caption
    with Image.open(path.parent / "truth_l1.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), images[2000])
    (more,) = (table for title, table in page.tables.items() if title.startswith("Further"))
    shown = dict(zip(*([cell[0] for cell in cells] for cells in more), strict=True))
    assert (shown["appearance transfer"], shown["structure kept"]) == ("0.625", "0.875")
    assert (path.parent / "curve_Appearance_transfer.png").exists()


def test_a_share_below_zero_is_within_the_plot_and_not_in_percent():
    groups = {"l1": [run("l1", 0, series((0, -0.1), (10, 0.5)))]}
    (axes,) = plots.metric_curves(groups, "mAP", "Appearance transfer", 1).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [-0.1, 0.5])
    assert axes.get_ylim()[0] < -0.1
    assert axes.get_ylabel() == "Appearance transfer"


@pytest.mark.slow
def test_a_training_ends_with_its_report(tmp_path_factory):
    from processes import Launcher, launch_here

    workdir = tmp_path_factory.mktemp("reported")
    # Neither the teacher nor the ramps matter here: one program, few steps.
    flags = ("--config.teacher.total_steps=1", "--config.total_steps=3", "--config.ramp.start=1000")
    launcher = Launcher(tmp_path_factory)
    run = launch_here(launcher.arguments(workdir, "--config.report=True", *flags))
    assert run.code == 0, run.said
    page = workdir / "report" / "index.html"
    assert f"report: {page}" in run.said
    said = Page(page.read_text(encoding="utf-8"))
    last = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()][-1]
    shown = {cell[0] for table in said.tables.values() for row in table for cell in row}
    assert last["kind"] == "evaluation"
    assert f"{100 * last['mAP']:.2f}" in shown
    # Its people are drawn.
    assert f"{last['appearance_transfer']:.3f}".replace("-", "−") in shown
    assert "| copy of the structure image |" in run.said
    assert (page.parent / "truth_l1.png").exists()


def test_the_page_says_at_tables_and_claims_that_a_term_has_a_loss_of_its_own(made, tmp_path):
    rows, config = made
    note = "not the row's loss as in the thesis: structure codes (huber(0.5))."
    config.data.root = str(tmp_path / "nowhere")
    assert note not in write_report(tmp_path, rows, config).read_text(encoding="utf-8")
    config.reconstruction.structure_code = "huber(0.5)"
    page = Page(write_report(tmp_path, rows, config).read_text(encoding="utf-8"))
    before, _, after = page.text.rpartition("The thesis's claims")
    assert note in before and note in after


def test_the_page_says_what_the_loss_compares_and_that_one_term_has_no_gradient():
    config = default_config()
    assert sections.compared(config) == (
        "images, structure codes, appearance codes and cycle; the appearance codes' term has no "
        "gradient (appearance.cut_gradient)"
    )
    config.appearance.cut_gradient = False
    config.reconstruction.structure_code = "huber(0.5)"
    assert sections.compared(config) == (
        "images, structure codes (by huber(0.5) in every run), appearance codes and cycle"
    )
    assert sections.facts([], config)["R compares"] == sections.compared(config)
