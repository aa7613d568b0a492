"""Market-1501 is found wherever it lies, and only its images are read."""

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.readers.market1501 import MARKET1501, read_market1501
from dgnet_jax.data.splits import ReidDataset
from dgnet_jax.errors import InputError
from tests.drawn_market import FOLDER_NAME, GALLERY, QUERY, TRAIN, draw_market, zip_folder


def content(dataset: ReidDataset) -> list[tuple]:
    """Everything a data set says, the images' bytes included."""
    return [
        (
            split.name,
            split.files,
            split.identities.tolist(),
            split.cameras.tolist(),
            [split.read_bytes(i) for i in range(len(split))],
        )
        for split in (dataset.train, dataset.query, dataset.gallery)
    ]


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1)),
        ("1488_c6s3_094992_00.jpg.jpg", (1488, 6)),
        ("-1_c4s6_022316_11.jpg", (-1, 4)),
        ("0000_c3s1_000151_01.jpg", (0, 3)),
        ("Thumbs.db", None),
        ("0002_c7s1_000451_03.jpg", None),
        ("0002_c0s1_000451_03.jpg", None),
        ("0005_c2_f0046985.jpg", None),
        ("0002_c1s1_000451_03.jpg.bak", None),
        ("._0002_c1s1_000451_03.jpg", None),
        ("002_c1s1_000451_03.jpg", None),
        ("0002_c1s1_000451_03.jpg\n", None),
        ("٠٠٠٢_c1s1_000451_03.jpg", None),
    ],
)
def test_names_are_parsed_strictly(name: str, parsed: tuple[int, int] | None):
    assert MARKET1501.parse(name) == parsed


def test_splits_give_files_identities_and_cameras(tmp_path: Path):
    root = draw_market(tmp_path)
    dataset = load_dataset("market1501", str(root))
    assert dataset.train.files == tuple(f"bounding_box_train/{name}" for name in TRAIN)
    assert dataset.query.files == tuple(f"query/{name}" for name in QUERY)
    assert dataset.gallery.files == tuple(f"bounding_box_test/{name}" for name in GALLERY)
    assert dataset.train.identities.tolist() == [2, 2, 7, 7, 10]
    assert dataset.train.cameras.tolist() == [1, 2, 3, 6, 6]
    assert dataset.gallery.identities.tolist() == [-1, 0, 1, 3]
    assert dataset.gallery.identities.dtype == dataset.gallery.cameras.dtype == np.int32
    assert dataset.train_labels.tolist() == [0, 0, 1, 1, 2]
    assert dataset.num_train_identities == 3
    path = Path(dataset.query.paths[1])
    assert path == root / "query" / QUERY[1]
    assert path.read_bytes() == dataset.query.read_bytes(1)


def test_folder_parent_and_zips_are_the_same_data(tmp_path: Path):
    root = draw_market(tmp_path / "folder")
    (tmp_path / "zip").mkdir()
    nested = zip_folder(root, tmp_path / "zip" / f"{FOLDER_NAME}.zip", top=f"{FOLDER_NAME}/")
    flat = zip_folder(root, tmp_path / "flat.zip")
    expected = content(read_market1501(root))
    for place in (root.parent, str(root), nested, nested.parent, flat):
        assert content(read_market1501(place)) == expected, place


@pytest.mark.parametrize("top", ["", f"{FOLDER_NAME}\\", f".\\a\\{FOLDER_NAME}\\"])
def test_a_zip_with_backslashes_in_its_names_is_the_same_data(tmp_path: Path, top: str):
    """As some programs on Windows write them, against the format."""
    root = draw_market(tmp_path / "folder")
    archive = tmp_path / "market.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(root.rglob("*")):
            name = top + str(file.relative_to(root)).replace("/", "\\")
            target.writestr(
                f"{name}\\" if file.is_dir() else name, b"" if file.is_dir() else file.read_bytes()
            )
    dataset = read_market1501(archive)
    assert content(dataset) == content(read_market1501(root))
    assert (
        f"{archive}/{top}query/{QUERY[0]}".replace("\\", "/").replace("/./", "/")
        == dataset.query.paths[0]
    )


def test_a_zip_is_read_by_several_threads(tmp_path: Path):
    archive = zip_folder(draw_market(tmp_path), tmp_path / "market.zip")
    train = read_market1501(archive).train
    expected = [train.read_bytes(i) for i in range(len(train))]
    order = list(range(len(train))) * 200
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(train.read_bytes, order)) == [expected[i] for i in order]


def test_subset_keeps_files_identities_and_cameras_together(tmp_path: Path):
    train = read_market1501(draw_market(tmp_path)).train
    part = train.subset(np.array([4, 1]))
    assert part.files == (train.files[4], train.files[1])
    assert part.identities.tolist() == [10, 2]
    assert part.cameras.tolist() == [6, 2]
    assert part.read_bytes(0) == train.read_bytes(4)


def test_strangers_are_counted_in_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = draw_market(tmp_path)
    expected = content(read_market1501(root))
    assert not caplog.records
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder / "Thumbs.db").write_bytes(b"not an image")
    (root / "query" / "crops").mkdir()
    (root / "bounding_box_train" / "-1_c1s1_000401_03.jpg").write_bytes(b"junk is no identity")
    assert content(read_market1501(root)) == expected
    strangers, nobody = [record.getMessage() for record in caplog.records]
    assert "ignored 4 files" in strangers
    assert strangers.count("Thumbs.db") == 2, "three examples: Thumbs.db, Thumbs.db and crops"
    assert strangers.endswith(", ...")
    assert "left out 1 images of nobody: bounding_box_train/-1_c1s1_000401_03.jpg" in nobody


def test_a_missing_data_set_is_explained(tmp_path: Path):
    missing = tmp_path / "nowhere"
    with pytest.raises(InputError) as error:
        read_market1501(missing)
    message = str(error.value)
    for part in (
        "--config.data.root",
        f"{missing}: does not exist",
        "Zheng et al.",
        "ICCV 2015",
        "research only",
        "bounding_box_train/",
        "configs/quickstart.py",
    ):
        assert part in message

    with pytest.raises(InputError, match="is not set"):
        read_market1501("")
    with pytest.raises(InputError, match="holds none of bounding_box_train, query"):
        read_market1501(tmp_path)


def test_missing_folders_are_named(tmp_path: Path):
    root = draw_market(tmp_path)
    shutil.rmtree(root / "query")
    for place in (root, tmp_path):
        with pytest.raises(InputError) as error:
            read_market1501(place)
        assert f"{root}: holds bounding_box_train, bounding_box_test but not query" in str(
            error.value
        )

    archive = zip_folder(root, tmp_path / "incomplete.zip")
    with pytest.raises(InputError, match=r"incomplete\.zip: holds .* but not query"):
        read_market1501(archive)


def test_a_zip_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.txt").write_text("hello")
    archive = zip_folder(tmp_path / "other", tmp_path / "other.zip")
    with pytest.raises(InputError, match=r"no bounding_box_train.*it holds readme\.txt"):
        read_market1501(archive)


def test_a_half_downloaded_zip_is_refused(tmp_path: Path):
    archive = zip_folder(draw_market(tmp_path / "a"), tmp_path / "Market-1501.zip")
    archive.write_bytes(archive.read_bytes()[:-200])
    for place in (archive, tmp_path):
        with pytest.raises(InputError, match=r"Market-1501\.zip: not a readable zip"):
            read_market1501(place)


def test_an_empty_split_is_refused(tmp_path: Path):
    root = draw_market(tmp_path)
    for name in TRAIN:
        (root / "bounding_box_train" / name).unlink()
    with pytest.raises(InputError, match=r"bounding_box_train: no image .* but nothing"):
        read_market1501(root)
    (root / "bounding_box_train" / "0005_c2_f0046985.jpg").write_bytes(b"a name of DukeMTMC-reID")
    with pytest.raises(InputError, match=r"1 other files such as .*0005_c2_f0046985\.jpg"):
        read_market1501(root)


def test_market_is_not_taken_for_its_neighbours(tmp_path: Path):
    root = draw_market(tmp_path)
    shutil.copytree(root, tmp_path / "DukeMTMC-reID")
    assert Path(read_market1501(tmp_path).train.paths[0]).is_relative_to(root)
    root.rename(tmp_path / "market1501")
    assert Path(read_market1501(tmp_path).train.paths[0]).parts[-3] == "market1501"
    shutil.copytree(tmp_path / "market1501", tmp_path / "Market-copy")
    with pytest.raises(InputError, match="several fit"):
        read_market1501(tmp_path)


def test_an_unknown_data_set_suggests_a_known_one(tmp_path: Path):
    with pytest.raises(InputError, match=r"'markt1501'.*mean 'market1501'.*Known: market1501"):
        load_dataset("markt1501", str(tmp_path))


def test_the_real_market_has_the_published_counts(
    market_zip: Path, caplog: pytest.LogCaptureFixture
):
    """Zheng et al. 2015, as counted in docs/method.md, section 6.1."""
    dataset = load_dataset("market1501", market_zip)
    assert not caplog.records
    assert len(dataset.train) == 12_936
    assert dataset.num_train_identities == 751
    assert len(dataset.query) == 3_368
    assert len(np.unique(dataset.query.identities)) == 750
    gallery = dataset.gallery.identities
    assert len(gallery) == 19_732
    assert np.sum(gallery == 0) == 2_798
    assert np.sum(gallery == -1) == 3_819
    assert np.sum(gallery > 0) == 13_115
    assert set(np.unique(gallery[gallery > 0])) == set(np.unique(dataset.query.identities))
    for split in (dataset.train, dataset.query, dataset.gallery):
        assert np.unique(split.cameras).tolist() == [1, 2, 3, 4, 5, 6]
    assert np.unique(dataset.train_labels).tolist() == list(range(751))
