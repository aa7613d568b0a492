"""Every format and colour mode becomes the RGB that a viewer shows."""

import io

import numpy as np
import pytest
from PIL import Image

from dgnet_jax.data.decoding import ImageError, decode_image, reason
from tests.drawn_market import smooth_image


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str) -> Image.Image:
    """8 x 16 pixels: one colour on the left, another on the right."""
    image = Image.new(mode, (16, 8), left)
    image.paste(right, (8, 0, 16, 8))
    return image


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_keep_every_value(file_format: str):
    image = smooth_image(0, 16, 8)
    options = {"lossless": True} if file_format == "WEBP" else {}
    np.testing.assert_array_equal(
        decode_image(encoded(image, file_format, **options), 16, 8), np.asarray(image)
    )


def test_transparent_parts_are_white():
    half = halves((200, 10, 20, 255), (200, 10, 20, 0), "RGBA")
    for file_format in ("PNG", "TIFF"):
        image = decode_image(encoded(half, file_format), 8, 16)
        assert (image[:, :8] == (200, 10, 20)).all(), file_format
        assert (image[:, 8:] == 255).all(), file_format
    gray = decode_image(encoded(halves((0, 255), (0, 128), "LA"), "PNG"), 8, 16)
    assert (gray[:, :8] == 0).all()
    assert (gray[:, 8:] == 127).all(), "half black, half white"


def test_a_palette_may_have_a_transparent_colour():
    palette = Image.new("P", (16, 8), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.paste(1, (8, 0, 16, 8))
    image = decode_image(encoded(palette, "PNG", transparency=0), 8, 16)
    assert (image[:, :8] == 255).all()
    assert (image[:, 8:] == (255, 0, 0)).all()


def test_sixteen_bits_are_scaled():
    """65,535 is white and 257 * v is v."""
    values = np.array([[0, 257, 25_700, 65_535]], np.uint16)
    for file_format in ("PNG", "TIFF"):
        image = decode_image(encoded(Image.fromarray(values), file_format), 1, 4)
        assert image[0, :, 0].tolist() == [0, 1, 100, 255], file_format
        assert (image[..., 0] == image[..., 2]).all()


def test_black_and_white_and_gray():
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode_image(encoded(bits, "PNG"), 1, 2).tolist() == [[[0] * 3, [255] * 3]]
    gray = Image.fromarray(np.array([[7, 200]], np.uint8))
    assert decode_image(encoded(gray, "PNG"), 1, 2).tolist() == [[[7] * 3, [200] * 3]]


def test_cmyk_red_is_red():
    """Ink of magenta and yellow only."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = decode_image(encoded(red, "JPEG", quality=95), 16, 16)
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize(
    ("orientation", "as_shown"),
    [
        (1, [[1, 2], [3, 4]]),
        (2, [[2, 1], [4, 3]]),
        (3, [[4, 3], [2, 1]]),
        (4, [[3, 4], [1, 2]]),
        (6, [[3, 1], [4, 2]]),
        (8, [[2, 4], [1, 3]]),
    ],
)
def test_images_are_turned_as_exif_says(orientation: int, as_shown: list[list[int]]):
    """The meanings of tag 0x0112 in the EXIF standard."""
    levels = 50 * np.array([[1, 2], [3, 4]], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for file_format in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(levels), file_format, exif=exif)
        image = decode_image(data, 2, 2)
        assert (image[..., 0] // 50).tolist() == as_shown, file_format


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"this was never an image", "not an image"),
        (encoded(smooth_image(0), "JPEG")[:-100], "truncated"),
        (encoded(smooth_image(0), "PNG")[:-3000], "truncated"),
        (encoded(smooth_image(0), "JPEG")[:20], ""),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), ""),
        (encoded(smooth_image(0), "GIF"), "not an image"),
    ],
)
def test_what_is_no_whole_image_is_refused(data: bytes, words: str):
    with pytest.raises(ImageError) as error:
        decode_image(data, 128, 64)
    assert words in reason(error.value)
    assert reason(error.value)


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a bytes-like object is required"),
        KeyError(274),
        OverflowError(),
        RecursionError(),
    ],
)
def test_whatever_pillow_raises_is_the_readers_own_error(monkeypatch, error):
    def raise_error(self):
        raise error

    monkeypatch.setattr(Image.Image, "getexif", raise_error)
    with pytest.raises(ImageError) as caught:
        decode_image(encoded(smooth_image(0), "JPEG"), 128, 64)
    assert reason(caught.value)


def test_memory_that_is_short_is_not_the_images_fault(monkeypatch):
    def raise_error(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "getexif", raise_error)
    with pytest.raises(MemoryError):
        decode_image(encoded(smooth_image(0), "JPEG"), 128, 64)
