"""DukeMTMC-reID, MSMT17 and CUHK03-NP are read from their layouts and held to their counts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dgnet_jax.data.cache import decode
from dgnet_jax.data.readers.cuhk03 import DETECTED
from dgnet_jax.data.readers.datasets import PUBLISHED, READERS, load_dataset
from dgnet_jax.data.readers.duke import DUKE as DUKE_NAMING
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.errors import InputError
from tests.drawn_datasets import CUHK03, DUKE, draw_folders, draw_msmt17
from tests.drawn_market import draw_market, zip_folder

TRAIN_LISTS = ("list_train.txt", "list_val.txt")


def listing(dataset: ReidDataset) -> dict[str, tuple]:
    return {
        name: (split.files, split.identities.tolist(), split.cameras.tolist())
        for name, split in dataset.splits.items()
    }


def contents(dataset: ReidDataset) -> dict[str, list[bytes]]:
    return {
        name: [split.read_bytes(i) for i in range(len(split))]
        for name, split in dataset.splits.items()
    }


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("0005_c2_f0046985.jpg", (5, 2)),
        ("7140_c8_f0098765.jpg", (7140, 8)),
        ("0005_c9_f0046985.jpg", None),
        ("0002_c1s1_000451_03.jpg", None),
        ("-1_c2_f0046985.jpg", None),
        ("0005_c2_f0046985.jpg.jpg", None),
        ("Thumbs.db", None),
    ],
)
def test_duke_names(name: str, parsed: tuple[int, int] | None):
    assert DUKE_NAMING.parse(name) == parsed


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("0001_c1_1.png", (1, 1)),
        ("1467_c2_10.png", (1467, 2)),
        ("00012_c1_001.jpg", (12, 1)),
        ("0001_c2.png", (1, 2)),
        ("0002_c1s1_000451_03.jpg", None),
        ("0005_c2_f0046985.jpg", None),
        ("1_001_1_01.png", None),
    ],
)
def test_cuhk03_names(name: str, parsed: tuple[int, int] | None):
    assert DETECTED.parse(name) == parsed


def test_duke(tmp_path: Path):
    root = draw_folders(tmp_path / "DukeMTMC-reID", DUKE)
    dataset = READERS["duke"](tmp_path)
    assert listing(dataset) == {
        "train": (
            tuple(f"bounding_box_train/{name}" for name in DUKE["bounding_box_train"]),
            [1, 1, 7],
            [2, 8, 1],
        ),
        "query": (("query/0005_c2_f0046985.jpg",), [5], [2]),
        "gallery": (
            tuple(f"bounding_box_test/{name}" for name in DUKE["bounding_box_test"]),
            [5, 7140],
            [5, 6],
        ),
    }
    # Sizes and colour modes vary; in memory the images have one.
    assert decode(dataset.train, 256, 128).images.shape == (3, 256, 128, 3)
    archive = zip_folder(root, tmp_path / "DukeMTMC-reID.zip", top="DukeMTMC-reID/")
    assert contents(READERS["duke"](archive)) == contents(dataset)


def test_duke_is_not_taken_for_market(tmp_path: Path):
    draw_market(tmp_path)
    with pytest.raises(InputError, match=r"no image of a person named like 0005_c2_f0046985\.jpg"):
        READERS["duke"](tmp_path)
    root = draw_folders(tmp_path / "DukeMTMC-reID", DUKE)
    assert READERS["duke"](tmp_path).train.paths[0].startswith(str(root))


def test_zero_is_no_distractor_outside_market(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folders = {**DUKE, "bounding_box_test": ["0000_c1_f0000001.jpg", "0005_c5_f0051341.jpg"]}
    dataset = READERS["duke"](draw_folders(tmp_path, folders))
    assert dataset.gallery.identities.tolist() == [5]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "left out 1 images of nobody: bounding_box_test/0000_c1_f0000001.jpg" in warning
    assert "Identity 0 is a distractor" in warning


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17(tmp_path: Path, folders: tuple[str, str]):
    train, test = folders
    root = draw_msmt17(tmp_path / "MSMT17_V1", train, test)
    dataset = READERS["msmt17"](root)
    assert listing(dataset) == {
        # train and val together; identities are the lists' plus 1.
        "train": (
            (
                f"{train}/0000/0000_000_01_0303morning_0008_0.jpg",
                f"{train}/0000/0000_001_15_0303noon_0044_1.jpg",
                f"{train}/0001/0001_000_07_0303afternoon_0215_1.jpg",
                f"{train}/0001/0001_004_11_0302morning_0633_0_ex.jpg",
            ),
            [1, 1, 2, 2],
            [1, 15, 7, 11],
        ),
        "query": ((f"{test}/0000/0000_000_10_0303morning_0036_0.jpg",), [1], [10]),
        "gallery": (
            (
                f"{test}/0000/0000_002_05_0303morning_0060_0.jpg",
                f"{test}/3059/3059_001_14_0303noon_0170_2_ex.jpg",
            ),
            [1, 3060],
            [5, 14],
        ),
    }
    assert decode(dataset.train, 256, 128).broken == ()
    flat = zip_folder(root, tmp_path / "flat.zip")
    nested = zip_folder(root, tmp_path / "MSMT17_V1.zip", top="a/MSMT17_V1/")
    for place in (tmp_path, flat, nested):
        assert contents(READERS["msmt17"](place)) == contents(dataset), place


def test_lines_that_are_no_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = draw_msmt17(tmp_path)
    line = (root / "list_query.txt").read_text().strip()
    (root / "list_query.txt").write_bytes(f"\n{line} \r\n\nsomething else\n".encode())
    assert len(READERS["msmt17"](root).query) == 1
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "ignored 1 files" in warning
    assert "list_query.txt:4: something else" in warning
    (root / "list_gallery.txt").write_text("0000/0000_002_05.png 0\n")
    with pytest.raises(InputError, match=r"list_gallery\.txt: no line such as"):
        READERS["msmt17"](root)


def _rewrite_lists(root: Path, change: Callable[[str, str], str]) -> None:
    """Puts `change(list's name, line)` in the place of each line."""
    for path in root.glob("list_*.txt"):
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{change(path.name, line)}\n" for line in lines))


@pytest.mark.parametrize("suffix", [".jpeg", ".JPG", ".png"])
@pytest.mark.parametrize("zipped", [False, True])
def test_lists_may_name_the_images_of_another_suffix(tmp_path: Path, suffix: str, zipped: bool):
    root = draw_msmt17(tmp_path / "MSMT17_V1")
    for image in root.rglob("*.jpg"):
        image.rename(image.with_suffix(suffix))
    place = zip_folder(root, tmp_path / "MSMT17.zip") if zipped else root
    dataset = READERS["msmt17"](place)
    assert {Path(file).suffix for split in dataset.splits.values() for file in split.files} == {
        suffix
    }
    assert decode(dataset.gallery, 8, 4).broken == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda name, line: f"{'train' if name in TRAIN_LISTS else 'test'}/{line}",
        lambda name, line: f"./{'mask_train_v2' if name in TRAIN_LISTS else 'mask_test_v2'}/{line}",
        lambda name, line: line.replace("/", "\\"),
        lambda name, line: line.replace(".jpg ", ".JPG\t"),
    ],
)
def test_lists_may_name_the_images_from_another_place(tmp_path: Path, change):
    root = draw_msmt17(tmp_path)
    expected = listing(READERS["msmt17"](root))
    _rewrite_lists(root, change)
    assert listing(READERS["msmt17"](root)) == expected


def test_a_training_image_does_not_stand_for_a_query(tmp_path: Path):
    """Folders and files of training and test images have the same names."""
    root = draw_msmt17(tmp_path)
    _rewrite_lists(root, lambda name, line: f"train/{line}")
    with pytest.raises(InputError, match=r"1 of the 1 images of the query split"):
        decode(READERS["msmt17"](root).query, 8, 4)


def test_a_missing_list_is_named(tmp_path: Path):
    root = draw_msmt17(tmp_path / "MSMT17_V1")
    (root / "list_val.txt").unlink()
    for place in (root, tmp_path):
        with pytest.raises(InputError, match=r"but not list_val\.txt") as error:
            READERS["msmt17"](place)
        assert "Wei et al." in str(error.value)


def test_a_listed_image_that_is_not_there_counts_as_broken(tmp_path: Path):
    root = draw_msmt17(tmp_path)
    (root / "test/3059/3059_001_14_0303noon_0170_2_ex.jpg").unlink()
    gallery = READERS["msmt17"](root).gallery
    with pytest.raises(InputError, match=r"1 of the 2 images .*(\n.*)*3059_001_14"):
        decode(gallery, 8, 4)


def test_cuhk03_has_two_versions(tmp_path: Path):
    root = tmp_path / "CUHK03-NP"
    draw_folders(root / "detected", CUHK03)
    labeled = {**CUHK03, "query": CUHK03["query"][:1]}
    draw_folders(root / "labeled", labeled)
    dataset = READERS["cuhk03_detected"](root)
    assert dataset.train.files[0] == "detected/bounding_box_train/0001_c1_1.png"
    assert dataset.train.identities.tolist() == [1, 1, 2]
    assert dataset.gallery.identities.tolist() == [3, 3, 1467]
    assert dataset.gallery.cameras.tolist() == [1, 1, 2]
    assert (dataset.name, len(dataset.query)) == ("cuhk03_detected", 2)
    archive = zip_folder(root, tmp_path / "CUHK03-NP.zip", top="CUHK03-NP/")
    for place in (tmp_path, archive, root / "detected"):
        assert contents(READERS["cuhk03_detected"](place)) == contents(dataset), place
    for place in (root, archive, root / "labeled"):
        assert len(READERS["cuhk03_labeled"](place).query) == 1, place

    shutil.rmtree(root / "detected")
    archive.unlink()
    for place in (root, tmp_path):
        with pytest.raises(InputError, match=r"no CUHK03-NP \(detected\) there"):
            READERS["cuhk03_detected"](place)
    (root / "labeled").rename(root / "Labeled")
    assert len(READERS["cuhk03_labeled"](root).query) == 1


def test_published_counts():
    """docs/method.md, section 6.1; MSMT17: Wei et al.; CUHK03-NP: its release's README."""
    images = {name: (p.train, p.query, p.gallery) for name, p in PUBLISHED.items()}
    assert images == {
        "market1501": (12_936, 3_368, 19_732),
        "duke": (16_522, 2_228, 17_661),
        "msmt17": (32_621, 11_659, 82_161),
        "cuhk03_detected": (7_365, 1_400, 5_332),
        "cuhk03_labeled": (7_368, 1_400, 5_328),
    }
    people = {name: (p.train_identities, p.cameras) for name, p in PUBLISHED.items()}
    assert people == {
        "market1501": (751, 6),
        "duke": (702, 8),
        "msmt17": (1_041, 15),
        "cuhk03_detected": (767, 2),
        "cuhk03_labeled": (767, 2),
    }


def test_other_counts_than_published_give_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    load_dataset("duke", draw_folders(tmp_path, DUKE))
    (warning,) = (record.getMessage() for record in caplog.records)
    for part in (
        str(tmp_path),
        "train: found 3, published 16,522",
        "query: found 1, published 2,228",
        "gallery: found 2, published 17,661",
        "train identities: found 2, published 702",
        "cameras: found 5, published 8",
    ):
        assert part in warning


def test_one_wrong_count_is_named_alone(tmp_path: Path, caplog, monkeypatch):
    from dgnet_jax.data.readers import datasets
    from dgnet_jax.data.readers.counts import Counts

    root = draw_folders(tmp_path, DUKE)
    monkeypatch.setitem(datasets.PUBLISHED, "duke", Counts(3, 1, 2, 2, 5))
    load_dataset("duke", root)
    assert not caplog.records
    monkeypatch.setitem(datasets.PUBLISHED, "duke", Counts(3, 1, 2, 2, 6))
    load_dataset("duke", root)
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.endswith("cameras: found 5, published 6")


def test_every_reader_explains_itself(tmp_path: Path):
    for name, reader in READERS.items():
        with pytest.raises(InputError, match=r"--config\.data\.root is not set") as unset:
            reader("")
        with pytest.raises(InputError, match=r"--config\.data\.root=.*nowhere") as missing:
            load_dataset(name, tmp_path / "nowhere")
        explanation = str(unset.value).partition("\n\n")[2]
        assert len(explanation.splitlines()) > 5, name
        assert explanation in str(missing.value), name


def test_labels_are_contiguous_whatever_the_identities(tmp_path: Path):
    dataset = READERS["duke"](draw_folders(tmp_path, DUKE))
    np.testing.assert_array_equal(dataset.train_labels, [0, 0, 1])
    assert dataset.train_identities.tolist() == [1, 7]
