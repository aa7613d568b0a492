"""One's own images: folders in Market-1501's form, and tables."""

from pathlib import Path

import numpy as np
import pytest

from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.readers.own import FOLDER, read_csv
from dgnet_jax.data.splits import ReidDataset
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


NUMBERS = [
    ("7", "007"),
    ("7", "7.0"),
    ("2", "+2"),
    ("12", "12.00"),
    ("3", "\u0663"),
    ("1", "\uff11"),
]
WORDS = [
    ("Ben", "Ben\u00a0"),
    ("door 2", "door  2"),
    ("Ren\u00e9", "Rene\u0301"),
    ("\u212bsa", "\u00c5sa"),
]


def _two_spellings(table: Path, column: str, one: str, other: str) -> ReidDataset:
    """Two people and two cameras, of whom one is spelled in two ways."""
    names = {"identity": ("anna", "8"), "camera": ("yard", "9")}
    first, second = ((spelling, names[column][1]) for spelling in (one, other))
    rows = []
    for i, (label, own) in enumerate((first, second)):
        for split in ("train", "gallery"):
            identity, camera = (label, own) if column == "identity" else (own, label)
            rows.append(f"{i}{split}.jpg,{identity},{camera},{split}")
    identity, camera = ("77", "78")
    rows.append(f"q.jpg,{identity},{camera},query")
    return read_csv(write_table(table, rows))


@pytest.mark.parametrize("column", ["identity", "camera"])
@pytest.mark.parametrize(("one", "other"), NUMBERS + WORDS)
def test_spellings_of_one_label_are_one(tmp_path: Path, column: str, one: str, other: str):
    dataset = _two_spellings(tmp_path / "own.csv", column, one, other)
    labels = {"identity": dataset.train.identities, "camera": dataset.train.cameras}[column]
    assert len(labels) == 2
    assert labels[0] == labels[1]


LOOKALIKES = [
    ("Ben", "ben"),
    ("Ben", "Ben\u200b"),
    ("a-1", "a\u20131"),
    ("A1", "\uff211"),
    ("2.5", "2.50"),
    ("2", "2,0"),
]


@pytest.mark.parametrize("column", ["identity", "camera"])
@pytest.mark.parametrize(("one", "other"), LOOKALIKES)
def test_spellings_that_may_be_one_label_are_refused(
    tmp_path: Path, column: str, one: str, other: str
):
    quoted = [f'"{label}"' if "," in label else label for label in (one, other)]
    with pytest.raises(InputError) as refused:
        _two_spellings(tmp_path / "own.csv", column, *quoted)
    assert f"own.csv:4: the {column} is {other!r} (line 4), which looks like {one!r} (line 2)" in (
        str(refused.value)
    )


def test_words_that_are_different_stay_different(tmp_path: Path):
    words = ("1e5", "1_0", "10", "0x10", "ann", "anna", "a b", "ab", "2.5", "25", "1-0", "Nan")
    rows = [f"{i}.jpg,{word},{word},train" for i, word in enumerate(words)]
    rows += ["q.jpg,x,1,query", "g.jpg,x,2,gallery"]
    dataset = read_csv(write_table(tmp_path / "own.csv", rows))
    assert dataset.num_train_identities == len(words)
    assert len(set(dataset.train.cameras.tolist())) == len(words)


@pytest.mark.parametrize("junk", ["-1", "-1.0", "-01", "\u22121", "\uff0d1", "\u20131.0"])
@pytest.mark.parametrize("distractor", ["0", "0000", "0.0", "-0", "+0"])
def test_junk_and_distractors_in_any_spelling_are_nobody(
    tmp_path: Path, junk: str, distractor: str
):
    rows = ["a.jpg,7,1,train", "b.jpg,8,1,query", "c.jpg,8,2,gallery"]
    rows += [f"d.jpg,{junk},1,gallery", f"e.jpg,{distractor},1,gallery"]
    dataset = read_csv(write_table(tmp_path / "own.csv", rows))
    assert dataset.gallery.identities.tolist() == [8, -1, 0]


@pytest.mark.parametrize(
    ("label", "cause"),
    [
        ("-1\u200b", r"which looks like '-1'\. Write"),
        ('"0,0"', r"which looks like '0'\. Write"),
        ("-2", "own.csv:5: the identity is -2; people have numbers from 0"),
        ("NaN", "own.csv:5: the identity 'NaN' stands for a missing value"),
        ("#REF!", "own.csv:5: the identity '#REF!' stands for a missing value"),
        ("1.23E+08", "own.csv:5: the identity '1.23E[+]08' is a number that a spreadsheet"),
        ("a\x07", r"own.csv:5: the identity 'a\\x07' holds the control character U[+]0007"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, label: str, cause: str):
    rows = ["a.jpg,7,1,train", "b.jpg,8,1,query", "c.jpg,8,2,gallery", f"d.jpg,{label},1,gallery"]
    with pytest.raises(InputError, match=cause):
        read_csv(write_table(tmp_path / "own.csv", rows))


def test_one_image_under_two_paths_is_in_a_split_once(tmp_path: Path):
    table = write_table(tmp_path / "own.csv", ROWS)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "images" / "a.jpg")
    text = table.read_text()
    for path in ("./images/a.jpg", "images//a.jpg", "more/../images/a.jpg", "link.jpg"):
        table.write_text(f"{text}{path},anna,hall,train\n")
        with pytest.raises(InputError) as refused:
            read_csv(table)
        message = f"own.csv:9: {path} is in the split train already, in line 2 as images/a.jpg"
        assert message in str(refused.value)


def test_the_same_image_in_query_and_gallery_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = (*ROWS, "./images/d.jpg,ben,door 2,gallery")
    dataset = read_csv(write_table(tmp_path / "own.csv", rows))
    (warning,) = (record.getMessage() for record in caplog.records)
    assert (
        "1 images are in two splits, query and gallery (lines 5 and 9, ./images/d.jpg)" in warning
    )
    assert "ranking leaves a query's own image out" in warning
    same = dataset.gallery.identities[-1], dataset.gallery.cameras[-1]
    assert same == (dataset.query.identities[0], dataset.query.cameras[0])


def test_the_same_image_in_training_and_gallery_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    read_csv(write_table(tmp_path / "own.csv", (*ROWS, "images/a.jpg,anna,hall,gallery")))
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "in two splits, train and gallery (lines 2 and 9, images/a.jpg): results will" in warning


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ("images/d.jpg,anna,door 2,gallery", "another identity: anna and ben"),
        ("images/d.jpg,0,door 2,gallery", "another identity: 0 and ben"),
        ("./images/d.jpg,ben,hall,gallery", "another camera: door 2 and hall"),
    ],
)
def test_one_image_has_one_person_and_one_camera(tmp_path: Path, row: str, cause: str):
    with pytest.raises(InputError, match=f"own.csv:9: .* the image of line 5, of {cause}"):
        read_csv(write_table(tmp_path / "own.csv", (*ROWS, row)))
    junk = (*ROWS, "images/d.jpg,-1,door 2,gallery")
    assert read_csv(write_table(tmp_path / "own.csv", junk)).gallery.identities[-1] == -1


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_and_tabs_separate_fields_too(tmp_path: Path, separator: str):
    table = write_table(tmp_path / "own.csv", ROWS)
    expected = read_csv(table)
    table.write_text(table.read_text().replace(",", separator))
    found = read_csv(table)
    for name, split in expected.splits.items():
        assert found.splits[name].files == split.files
        np.testing.assert_array_equal(found.splits[name].identities, split.identities)
        np.testing.assert_array_equal(found.splits[name].cameras, split.cameras)
    table.write_text(f"{table.read_text()}more/e.jpg,ben,hall,gallery\n")
    with pytest.raises(
        InputError, match=r"own\.csv:9: 1 fields, but the header has 4, separated b"
    ):
        read_csv(table)


def test_paths_with_backslashes_and_accents_in_either_form_are_found(tmp_path: Path):
    rows = [r"images\a.jpg,1,1,train", "b.jpg,2,1,query", "Rene\u0301.jpg,2,2,gallery"]
    write_table(tmp_path / "drawn.csv", ["images/a.jpg,,,", "b.jpg,,,", "Ren\u00e9.jpg,,,"])
    (tmp_path / "own.csv").write_text("path,identity,camera,split\n" + "\n".join(rows))
    dataset = read_csv(tmp_path / "own.csv")
    assert dataset.train.files == ("images/a.jpg",)
    assert dataset.gallery.files == ("Ren\u00e9.jpg",)
    assert dataset.gallery.read_bytes(0)


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
    table.write_text("path;identity;camera\n")
    with pytest.raises(InputError, match=r"own\.csv:1: no column split .*separated by semicolons"):
        read_csv(table)
    table.write_text("path,identity,camera,split,Camera\n")
    with pytest.raises(InputError, match=r"own\.csv:1: the column camera comes twice"):
        read_csv(table)


def test_a_split_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no row has the split query"):
        read_csv(write_table(tmp_path / "own.csv", ROWS[:3]))


def test_a_table_that_is_none(tmp_path: Path):
    (tmp_path / "latin.csv").write_bytes("path,identity\nä.jpg,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv:2: not UTF-8"):
        read_csv(tmp_path / "latin.csv")
    with pytest.raises(InputError, match=r"cannot be read \(a folder, not a file\)"):
        read_csv(tmp_path)
