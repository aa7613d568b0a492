"""Images as users have them: every mode, orientation and size, and files that are none."""

import logging

import numpy as np
import pytest
from drawn_market import smooth_image
from PIL import Image

from dgnet_jax.data.images import read_photograph, read_photographs
from dgnet_jax.errors import InputError

SIZE = (128, 64)


def colours(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "1", "LA", "YCbCr", "LAB", "HSV"])
def test_every_mode_is_read_as_it_looks(tmp_path, mode):
    image = smooth_image(0).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "LAB") else "a.png")
    if mode == "HSV":
        image = image.convert("RGB")
    image.save(path)
    found = read_photograph(path, *SIZE)
    assert (found.shape, found.dtype) == ((*SIZE, 3), np.uint8)
    assert np.abs(found - colours(image)).mean() < 2


def test_sixteen_bits_keep_their_brightness(tmp_path):
    levels = np.linspace(0, 65535, 128 * 64).reshape(SIZE).astype(np.uint16)
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(levels).save(path)
        found = read_photograph(path, *SIZE).astype(int)
        # 65535 / 257 = 255.
        assert np.abs(found - (levels / 257)[..., None]).max() <= 0.5


def test_floats_from_0_to_1_and_to_255(tmp_path):
    values = np.linspace(0, 1, 128 * 64, dtype=np.float32).reshape(SIZE)
    for top in (1, 255):
        Image.fromarray(values * top).save(tmp_path / "a.tif")
        found = read_photograph(tmp_path / "a.tif", *SIZE)
        assert np.abs(found.astype(int) - 255 * values[..., None]).max() <= 0.51


@pytest.mark.parametrize(
    "orientation, undone",
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_photograph_stands_as_its_camera_was_held(tmp_path, orientation, undone):
    image = smooth_image(1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.transpose(undone).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.png", *SIZE), np.asarray(image))


def test_transparency_shows_white(tmp_path):
    image = smooth_image(2).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 64, 10))
    image.save(tmp_path / "a.png")
    found = read_photograph(tmp_path / "a.png", *SIZE)
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:], np.asarray(smooth_image(2))[10:])


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (1000, 20), (64, 128)])
def test_every_size_is_resized_and_odd_shapes_give_a_warning(tmp_path, size, caplog):
    image = smooth_image(3).resize(size)
    image.save(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        found = read_photograph(tmp_path / "a.png", *SIZE)
    expected = image.resize((64, 128), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert ("not the shape of a person" in caplog.text) == (size in [(3, 700), (1000, 20)])


def test_what_is_not_an_image_is_named_and_skipped(tmp_path, caplog):
    smooth_image(0).save(tmp_path / "b.jpg")
    smooth_image(1).save(tmp_path / "a.png")
    (tmp_path / "Thumbs.db").write_bytes(b"\0" * 100)
    (tmp_path / "empty.jpg").touch()
    whole = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "folder").mkdir()
    found = read_photographs([tmp_path], *SIZE)
    assert found.paths == (str(tmp_path / "a.png"), str(tmp_path / "b.jpg"))
    assert len(found.images) == 2
    assert {path.rpartition("/")[2] for path in found.skipped} == {
        "Thumbs.db",
        "empty.jpg",
        "cut.jpg",
    }
    for name in ("Thumbs.db", "empty.jpg", "cut.jpg"):
        assert f"{name}: skipped" in caplog.text


def test_no_image_at_all_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"--appearance: no image in .*skipped .*notes\.txt"):
        read_photographs([tmp_path], *SIZE, "--appearance")
    with pytest.raises(InputError, match="--structure: no file or folder .*nowhere"):
        read_photographs([tmp_path / "nowhere"], *SIZE, "--structure")
