"""Every decodable image ends up in RAM as RGB of one size; the others are reported."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgnet_jax.data.cache import decode
from dgnet_jax.data.readers.market1501 import read_market1501
from dgnet_jax.data.splits import Split
from dgnet_jax.data.storage import FolderStorage
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.reading import IMAGE_BYTES
from tests.drawn_market import draw_market, smooth_image, zip_folder


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def split_of(folder: Path, files: list[bytes]) -> Split:
    """A split of files with these contents; image i has identity i and camera 1."""
    for i, data in enumerate(files):
        (folder / f"{i:04}.jpg").write_bytes(data)
    names = tuple(f"{i:04}.jpg" for i in range(len(files)))
    identities = np.arange(len(files), dtype=np.int32)
    return Split("train", names, identities, np.ones_like(identities), FolderStorage(folder))


@pytest.fixture
def hundreds(tmp_path: Path) -> Split:
    """200 images, so that two broken ones are just 1 %."""
    return split_of(tmp_path, [jpeg(smooth_image(i, 16, 8)) for i in range(200)])


def test_what_is_no_file_or_far_too_large_is_broken(hundreds: Split, tmp_path: Path):
    """A FIFO would be waited for without end."""
    (tmp_path / "0003.jpg").unlink()
    os.mkfifo(tmp_path / "0003.jpg")
    with (tmp_path / "0150.jpg").open("wb") as sparse:
        sparse.truncate(2**40)
    assert [Path(path).name for path in decode(hundreds, 8, 4).broken] == ["0003.jpg", "0150.jpg"]


def test_a_bomb_in_a_zip_is_broken(tmp_path: Path):
    archive = zip_folder(draw_market(tmp_path), tmp_path / "market.zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("query/0001_c1s1_001051_01.jpg", bytes(IMAGE_BYTES + 1))
    query = read_market1501(archive).query
    with pytest.raises(OSError, match="67,108,865 bytes, more than the 67,108,864"):
        query.read_bytes(1)
    assert query.read_bytes(0)


def test_images_keep_their_order_and_values(tmp_path: Path):
    files = [jpeg(smooth_image(i)) for i in range(5)]
    cache = decode(split_of(tmp_path, files), 128, 64, num_threads=3)
    expected = [np.asarray(Image.open(io.BytesIO(data))) for data in files]
    np.testing.assert_array_equal(cache.images, expected)
    assert cache.images.dtype == np.uint8
    assert cache.kept.tolist() == [0, 1, 2, 3, 4]
    assert cache.broken == ()


def test_other_sizes_are_resized_as_pillow_does(tmp_path: Path):
    data = jpeg(smooth_image(0, 100, 40))
    cache = decode(split_of(tmp_path, [data]), 128, 64)
    expected = Image.open(io.BytesIO(data)).resize((64, 128), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(cache.images[0], np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_colour_modes_become_rgb(tmp_path: Path, mode: str):
    grey = smooth_image(0).convert("L")
    cache = decode(split_of(tmp_path, [jpeg(grey.convert(mode))]), 128, 64)
    difference = cache.images[0].astype(int) - np.asarray(grey)[..., None]
    assert np.abs(difference).max() <= 8, "JPEG at quality 95"


def test_palettes_become_rgb(tmp_path: Path):
    palette = smooth_image(0).quantize(16)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    cache = decode(split_of(tmp_path, [stream.getvalue()]), 128, 64)
    np.testing.assert_array_equal(cache.images[0], np.asarray(palette.convert("RGB")))


def test_broken_images_are_reported_and_left_out(hundreds: Split, caplog: pytest.LogCaptureFixture):
    whole = decode(hundreds, 16, 8)
    text, truncated = (Path(hundreds.paths[i]) for i in (3, 150))
    text.write_text("this was never an image")
    truncated.write_bytes(truncated.read_bytes()[:-60])
    cache = decode(hundreds, 16, 8)
    assert cache.broken == (str(text), str(truncated))
    assert len(cache) == len(cache.kept) == 198
    assert not {3, 150} & set(cache.kept.tolist())
    np.testing.assert_array_equal(cache.images, whole.images[cache.kept])
    assert hundreds.subset(cache.kept).identities.tolist() == cache.kept.tolist()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert f"{text}: not an image" in messages[0]
    assert f"{truncated}: " in messages[1]
    assert "truncated" in messages[1]


def test_more_than_one_percent_broken_stops(hundreds: Split):
    for i in (0, 7, 199):
        Path(hundreds.paths[i]).write_bytes(b"")
    with pytest.raises(InputError) as error:
        decode(hundreds, 16, 8)
    message = str(error.value)
    assert "3 of the 200 images of the train split" in message
    assert "more than 1%" in message
    assert all(hundreds.paths[i] in message for i in (0, 7, 199))


def test_a_vanished_file_counts_as_broken(hundreds: Split):
    Path(hundreds.paths[11]).unlink()
    assert decode(hundreds, 16, 8).broken == (hundreds.paths[11],)


def test_a_damaged_zip_member_counts_as_broken(market_zip: Path, tmp_path: Path):
    query = read_market1501(market_zip).query.subset(np.arange(200))
    damaged = tmp_path / market_zip.name
    data = bytearray(market_zip.read_bytes())
    at = data.index(query.read_bytes(5))
    data[at + 100 : at + 200] = bytes(100)
    damaged.write_bytes(data)
    copy = read_market1501(damaged).query.subset(np.arange(200))
    cache = decode(copy, 128, 64)
    assert cache.broken == (copy.paths[5],)
    np.testing.assert_array_equal(cache.images, decode(query, 128, 64).images[cache.kept])


def test_the_real_training_images_all_decode(market_zip: Path):
    cache = decode(read_market1501(market_zip).train, 128, 64)
    assert cache.images.shape == (12_936, 128, 64, 3)
    assert cache.broken == ()
