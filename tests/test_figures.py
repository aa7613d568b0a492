"""Figures hold the images pixel by pixel where their captions say."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgnet_jax.figures import image_grid, save_png, swap_matrix, truth_matrix


def noise(seed: int, height: int = 32, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def find(figure: Image.Image, image: np.ndarray) -> tuple[int, int]:
    """The (row, column) of the top left corner of the only copy of `image` in `figure`."""
    canvas = np.asarray(figure)
    height, width = image.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (height, width), axis=(0, 1))
    candidates = np.argwhere((windows[..., 0, 0] == image[0, 0]).all(-1))
    found = [
        (int(y), int(x))
        for y, x in candidates
        if (canvas[y : y + height, x : x + width] == image).all()
    ]
    assert len(found) == 1
    return found[0]


def test_rows_and_columns_are_aligned():
    rows = [[noise(3 * i + j) for j in range(3)] for i in range(2)]
    figure = image_grid(
        rows,
        ["input", "reconstruction", "swapped"],
        ["3,000 steps", "untrained"],
        "A caption. " * 30,
    )
    places = [[find(figure, image) for image in row] for row in rows]
    ys = [[place[0] for place in row] for row in places]
    xs = [[place[1] for place in row] for row in places]
    assert all(len(set(row)) == 1 for row in ys)
    assert xs[0] == xs[1]
    assert ys[1][0] > ys[0][0] + 32
    assert xs[0][0] + 16 < xs[0][1] < xs[0][2]


def test_titles_and_captions_leave_ink_outside_the_images_and_inside_the_figure():
    blank = np.full((32, 16, 3), 255, np.uint8)
    plain = np.asarray(image_grid([[blank]]))
    assert (plain == 255).all()
    for text in (
        {"column_titles": ["a title of words"]},
        {"row_titles": ["a title of words"]},
        {"caption": "a caption that is long enough to be broken into several lines " * 3},
    ):
        canvas = np.asarray(image_grid([[blank]], **text))
        assert canvas.shape[0] * canvas.shape[1] > plain.shape[0] * plain.shape[1]
        assert (canvas < 128).any()
        border = np.concatenate(
            [canvas[:4].ravel(), canvas[-4:].ravel(), canvas[:, :4].ravel(), canvas[:, -4:].ravel()]
        )
        assert (border == 255).all()


def test_scale_makes_squares_of_pixels():
    image = noise(0)
    find(image_grid([[image]], scale=3), image.repeat(3, axis=0).repeat(3, axis=1))


def test_an_empty_cell_stays_paper():
    figure = image_grid([[None, noise(0)]])
    assert find(figure, noise(0))[1] > 16


def test_the_swap_matrix_has_structures_above_and_appearances_left():
    appearance, structure = [noise(i) for i in range(2)], [noise(10 + j) for j in range(3)]
    swapped = np.stack([np.stack([noise(100 + 3 * i + j) for j in range(3)]) for i in range(2)])
    figure = swap_matrix(appearance, structure, swapped, "Figure 1")
    for i in range(2):
        for j in range(3):
            y, x = find(figure, swapped[i, j])
            assert y == find(figure, appearance[i])[0]
            assert x == find(figure, structure[j])[1]
    assert find(figure, structure[0])[0] < find(figure, appearance[0])[0]
    assert find(figure, appearance[0])[1] < find(figure, structure[0])[1]


def test_the_truth_stands_below_each_row_of_swaps():
    appearance, structure = [noise(i) for i in range(2)], [noise(10 + j) for j in range(3)]
    swapped = np.stack([np.stack([noise(100 + 3 * i + j) for j in range(3)]) for i in range(2)])
    truth = np.stack([np.stack([noise(200 + 3 * i + j) for j in range(3)]) for i in range(2)])
    figure = truth_matrix(appearance, structure, swapped, truth, "Step 40")
    for i in range(2):
        for j in range(3):
            y, x = find(figure, swapped[i, j])
            below = find(figure, truth[i, j])
            assert below[1] == x and y + 32 < below[0] < y + 64
            assert find(figure, appearance[i])[0] == y
            assert find(figure, structure[j])[1] == x
    with pytest.raises(ValueError, match="2 appearance and 3 structure"):
        truth_matrix(appearance, structure, swapped, truth[:1])


def test_wrong_images_and_titles_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        image_grid([[np.zeros((4, 4, 3), np.float32)]])
    with pytest.raises(ValueError, match="equally long"):
        image_grid([[noise(0)], [noise(1), noise(2)]])
    with pytest.raises(ValueError, match="2 column titles for 1 columns"):
        image_grid([[noise(0)]], ["a", "b"])
    with pytest.raises(ValueError, match="2 appearance and 1 structure"):
        swap_matrix([noise(0)] * 2, [noise(1)], np.zeros((1, 2, 32, 16, 3), np.uint8))


def test_png_has_its_metadata_and_replaces_the_old_file_completely(tmp_path):
    path = tmp_path / "figures" / "step_10.png"
    for seed in (0, 1):
        save_png(noise(seed), path, {"step": "10", "title": "l1 + rmse, 0.4 · cos"})
    with Image.open(path) as image:
        assert image.info == {"step": "10", "title": "l1 + rmse, 0.4 · cos"}
        np.testing.assert_array_equal(np.asarray(image), noise(1))
    assert [entry.name for entry in path.parent.iterdir()] == ["step_10.png"]


def test_a_failed_save_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_png(noise(0), path)

    def half_written(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(OSError, match="No space"):
        save_png(noise(1), path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), noise(0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_label_is_drawn_below_its_own_image_and_long_words_are_broken():
    images = [[noise(0), noise(1)], [noise(2), noise(3)]]
    name = "0002_c1s1_000451_03_with_a_very_long_name.jpg"
    figure = image_grid(images, labels=[["", ""], [name, ""]])
    canvas = np.asarray(figure)
    places = [[find(figure, image) for image in row] for row in images]
    (y, x), (_, x_right) = places[1]
    below = canvas[y + 32 :]
    assert (below[:, x - 2 : x_right - 2] < 128).any()
    assert (below[:, x_right:] == 255).all()
    assert (canvas[places[0][0][0] + 32 : y] == 255).all()


def test_labels_have_the_shape_of_the_rows():
    for labels in ([["a"]], [["a"], ["b", "c"]]):
        with pytest.raises(ValueError, match="one text for each cell"):
            image_grid([[noise(0)], [noise(1)]], labels=labels)
