"""One's own images: folders in Market-1501's form, and tables."""

from pathlib import Path

import numpy as np
import pytest

from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.readers.own import FOLDER, read_csv
from dgnet_jax.errors import InputError
from tests.drawn_datasets import draw_folders, write_table
from tests.drawn_market import draw_market

ROWS = (
    "images/a.jpg,anna,hall,train",
    "images/b.jpg,anna,door 2,train",
    "images/c.png,Żaneta,hall,train",
    "images/d.jpg,ben,door 2,query",
    "more/e.jpg,ben,hall,gallery",
    "more/f.jpg,-1,hall,gallery",
    "more/g.jpg,0,yard,gallery",
)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("17_c12.png", (17, 12)),
        ("0017_c012_some-more.JPG", (17, 12)),
        ("0002_c1s1_000451_03.jpg.jpg", (2, 1)),
        ("0005_c2_f0046985.jpeg", (5, 2)),
        ("123456789_c1234_x.webp", (123456789, 1234)),
        ("-1_c3_0.tif", (-1, 3)),
        ("0000_c3_0.bmp", (0, 3)),
        ("-2_c3_0.jpg", None),
        ("1234567890_c1.jpg", None),
        ("anna_c1.jpg", None),
        ("17_c.jpg", None),
        ("17_c1.txt", None),
        ("x17_c1.jpg", None),
    ],
)
def test_folder_names(name: str, parsed: tuple[int, int] | None):
    assert FOLDER.parse(name) == parsed


def test_a_folder_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folders = {
        "bounding_box_train": ["12345_c10_a.png", "12345_c11_b.jpg", "7_c2.jpg"],
        "query": ["8_c2.jpg"],
        "bounding_box_test": ["8_c10.jpg", "-1_c2.jpg", "0_c2.jpg"],
    }
    root = draw_folders(tmp_path / "own", folders)
    (root / "query" / "notes.txt").write_text("not an image")
    dataset = load_dataset("folder", root)
    assert dataset.train.identities.tolist() == [12345, 12345, 7]
    assert dataset.train.cameras.tolist() == [10, 11, 2]
    assert dataset.gallery.identities.tolist() == [-1, 0, 8]
    assert dataset.gallery.cameras.tolist() == [2, 2, 10]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "ignored 1 files" in warning, "and no published counts to compare with"


def test_identity_zero_and_junk_outside_the_gallery_are_named_for_what_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folders = {
        "bounding_box_train": ["0_c1.jpg", "1_c2.jpg", "-1_c2.jpg"],
        "query": ["0_c2.jpg", "2_c2.jpg"],
        "bounding_box_test": ["0_c1.jpg", "2_c1.jpg"],
    }
    root = draw_folders(tmp_path / "own", folders)
    assert load_dataset("folder", root).gallery.identities.tolist() == [0, 2]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "left out 3 images of nobody: bounding_box_train/-1_c2.jpg" in warning
    assert "Identity 0 is a distractor and -1 is junk" in warning
    assert "numbered from 1; rename the files" in warning
    (root / "query" / "2_c2.jpg").unlink()
    with pytest.raises(InputError, match=r"1 images of nobody: query/0_c2\.jpg\. Identity 0 is a"):
        load_dataset("folder", root)


def test_market_itself_is_such_a_folder(tmp_path: Path):
    root = draw_market(tmp_path)
    own, market = load_dataset("folder", root), load_dataset("market1501", root)
    for name, split in own.splits.items():
        assert split.files == market.splits[name].files
        np.testing.assert_array_equal(split.identities, market.splits[name].identities)
        np.testing.assert_array_equal(split.cameras, market.splits[name].cameras)


def test_a_table_of_any_words(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = write_table(tmp_path / "own.csv", ROWS)
    dataset = load_dataset("csv", table)
    assert not caplog.records
    # People are numbered from 1 as their names are sorted: anna, ben, Żaneta; cameras too:
    # door 2, hall, yard.
    assert dataset.train.files == ("images/a.jpg", "images/b.jpg", "images/c.png")
    assert dataset.train.identities.tolist() == [1, 1, 3]
    assert dataset.train.cameras.tolist() == [2, 1, 2]
    assert dataset.query.identities.tolist() == [2]
    assert dataset.gallery.identities.tolist() == [2, -1, 0]
    assert dataset.gallery.cameras.tolist() == [2, 2, 3]
    assert dataset.gallery.identities.dtype == dataset.gallery.cameras.dtype == np.int32
    assert dataset.query.paths == (str(tmp_path / "images/d.jpg"),)
    assert dataset.query.read_bytes(0) == (tmp_path / "images/d.jpg").read_bytes()


def test_queries_of_trained_people_give_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = (*ROWS, "h.jpg,anna,yard,query")
    read_csv(write_table(tmp_path / "own.csv", rows))
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "1 of the 2 people of the queries are trained on too (anna)" in warning


def test_numbers_stay_what_they_are(tmp_path: Path):
    rows = ("a.jpg,0007,c1,train", "b.jpg,12,c1,query", "c.jpg,12,c2,gallery")
    dataset = read_csv(write_table(tmp_path / "own.csv", rows))
    assert dataset.train.identities.tolist() == [7]
    assert dataset.query.identities.tolist() == [12]


def test_different_words_are_different_people(tmp_path: Path):
    rows = ("a.jpg,7,1,train", "b.jpg,007,1,train", "c.jpg,8,1,query", "d.jpg,8,3,gallery")
    dataset = read_csv(write_table(tmp_path / "own.csv", rows))
    assert dataset.num_train_identities == 2


def test_people_may_be_counted_from_zero(tmp_path: Path):
    """0 is a distractor only where nobody is trained on or looked for under that name."""
    rows = ("a.jpg,0,0,train", "b.jpg,1,1,train", "c.jpg,2,0,query", "d.jpg,0,1,gallery")
    dataset = read_csv(write_table(tmp_path / "own.csv", rows))
    assert dataset.num_train_identities == 2
    assert dataset.gallery.identities[0] == dataset.train.identities[0] > 0
    assert len({*dataset.train.cameras.tolist()}) == 2


def test_columns_in_any_order_quotes_bom_and_blank_lines(tmp_path: Path):
    for name in ("a, b.jpg", "b.jpg", "c.jpg"):
        write_table(tmp_path / "drawn.csv", [f"{name.replace(',', '')},1,1,train"])
    (tmp_path / "a b.jpg").rename(tmp_path / "a, b.jpg")
    table = tmp_path / "own.csv"
    table.write_bytes(
        "\ufeffSplit,note,Camera,identity,path\r\n"
        'train,"two, words",1,5,"a, b.jpg"\r\n'
        "\r\n"
        "Query,,1, 6 ,b.jpg\r\n"
        "gallery,,2,6,c.jpg\r\n".encode()
    )
    dataset = read_csv(table)
    assert dataset.train.files == ("a, b.jpg",)
    assert dataset.query.identities.tolist() == [6]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("h.jpg,ben,hall", "own.csv:9: 3 fields, but the header has 4"),
        ("h.jpg,,hall,train", "own.csv:9: the identity is empty"),
        ("h.jpg,ben,,train", "own.csv:9: the camera is empty; every image needs one"),
        ("h.jpg,ben,hall,test", "own.csv:9: the split is 'test'; it must be one of"),
        ("h.jpg,-1,hall,query", "own.csv:9: identity -1 is junk, which only a gallery can have"),
        ("nowhere/h.jpg,ben,hall,train", "own.csv:9: no file .*nowhere/h.jpg"),
        (
            "images/a.jpg,ben,hall,train",
            "own.csv:9: images/a.jpg is in the split train already",
        ),
        ('"h.jpg,ben,hall,train', "own.csv:9: not a row of a table"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, row: str, message: str):
    table = write_table(tmp_path / "own.csv", ROWS)
    if "no file" not in message:
        (tmp_path / "h.jpg").write_bytes((tmp_path / "images/a.jpg").read_bytes())
    table.write_text(f"{table.read_text()}{row}\n")
    with pytest.raises(InputError, match=message):
        read_csv(table)


def test_a_wrong_header_is_refused(tmp_path: Path):
    table = write_table(tmp_path / "own.csv", [], header="path,person,split")
    with pytest.raises(
        InputError, match=r"own\.csv:1: no column identity, camera in the header \(path, person"
    ):
        read_csv(table)
    table.write_text("")
    with pytest.raises(InputError, match=r"own\.csv:1: no column .*\(empty\)"):
        read_csv(table)


def test_a_split_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no row has the split query"):
        read_csv(write_table(tmp_path / "own.csv", ROWS[:3]))


def test_a_table_that_is_none(tmp_path: Path):
    (tmp_path / "latin.csv").write_bytes("path,identity\nä.jpg,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv:2: not UTF-8"):
        read_csv(tmp_path / "latin.csv")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_csv(tmp_path)
