"""A data set gives the same arrays from its folder and from TFDS records."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

import dgnet_jax.data.records.tfds_builders  # noqa: F401 (registers the builders)
from dgnet_jax.data.cache import decode
from dgnet_jax.data.prepare import main, prepare
from dgnet_jax.data.readers.datasets import READERS, load_dataset
from dgnet_jax.data.records.prepared import find_prepared
from dgnet_jax.data.records.tfds_builders import BUILDERS
from dgnet_jax.errors import InputError
from tests.bucket_server import bucket_server
from tests.drawn_datasets import CUHK03, DUKE, draw_folders, draw_msmt17, write_table
from tests.drawn_market import draw_market, zip_folder


def draw_any(name: str, parent: Path) -> Path:
    """A small data set of each reader; what its root is."""
    if name == "market1501":
        return draw_market(parent)
    if name == "msmt17":
        return draw_msmt17(parent / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    if name == "csv":
        rows = ("a.jpg,x,1,train", "b.webp,y,1,query", "c.jpg,y,2,gallery", "d.png,-1,2,gallery")
        return write_table(parent / "own.csv", rows)
    if name.startswith("cuhk03"):
        return draw_folders(parent / "CUHK03-NP" / name.removeprefix("cuhk03_"), CUHK03).parent
    return draw_folders(parent / name, DUKE)


def test_every_reader_has_a_builder():
    assert sorted(BUILDERS) == sorted(READERS)
    assert set(BUILDERS) <= set(tfds.list_builders(with_community_datasets=False))


@pytest.mark.parametrize("name", sorted(READERS))
def test_the_same_arrays_from_the_folder_and_from_tfds(name: str, tmp_path: Path):
    root = draw_any(name, tmp_path / "original")
    data_dir = tmp_path / "tfds"
    folder = prepare(name, root, data_dir)
    assert folder == data_dir / name / "1.0.0"
    original = load_dataset(name, root)
    shutil.rmtree(tmp_path / "original")
    for place in (data_dir, folder, folder.parent, str(data_dir)):
        prepared = load_dataset(name, place)
        assert prepared.name == name
        assert list(prepared.splits) == list(original.splits)
        for split, expected in original.splits.items():
            found = prepared.splits[split]
            assert found.files == expected.files
            np.testing.assert_array_equal(found.identities, expected.identities)
            np.testing.assert_array_equal(found.cameras, expected.cameras)
            assert found.identities.dtype == found.cameras.dtype == np.int32


@pytest.mark.parametrize("name", ["market1501", "duke", "msmt17"])
def test_images_decode_to_the_same_arrays(name: str, tmp_path: Path):
    root = draw_any(name, tmp_path)
    prepare(name, root, tmp_path / "tfds")
    original, prepared = load_dataset(name, root), load_dataset(name, tmp_path / "tfds")
    for split, expected in original.splits.items():
        np.testing.assert_array_equal(
            decode(prepared.splits[split], 64, 32, num_threads=4).images,
            decode(expected, 64, 32).images,
        )


def test_tfds_reads_the_files_as_they_were(tmp_path: Path):
    """Through TFDS's own interface, without this package's reader."""
    root = draw_market(tmp_path)
    prepare("market1501", root, tmp_path / "tfds")
    train = READERS["market1501"](root).train
    source = tfds.data_source(
        "market1501",
        split="train",
        data_dir=tmp_path / "tfds",
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    assert len(source) == len(train) == 5
    for i, example in enumerate(source):
        assert example["image"] == Path(train.paths[i]).read_bytes()
        assert example["file"].decode() == train.files[i]
        assert (example["identity"], example["camera"]) == (train.identities[i], train.cameras[i])


def test_nothing_of_it_needs_tensorflow(tmp_path: Path):
    prepare("market1501", draw_market(tmp_path), tmp_path / "tfds")
    load_dataset("market1501", tmp_path / "tfds").train.read_bytes(0)
    assert "tensorflow" not in sys.modules


def test_tfds_finds_the_folder_as_manual_dir(tmp_path: Path):
    root = draw_market(tmp_path)
    builder = tfds.builder("market1501", data_dir=tmp_path / "tfds", file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=root)
    builder.download_and_prepare(download_config=config)
    assert load_dataset("market1501", tmp_path / "tfds").train.files == (
        READERS["market1501"](root).train.files
    )


def test_every_byte_comes_back(tmp_path: Path):
    """Zeros at the end too, which NumPy's strings would drop."""
    contents = {"0001_c1.bmp": b"BM\0\0\0", "0002_c1.bmp": b"", "0003_c1.bmp": bytes(7)}
    for name, content in contents.items():
        for folder in DUKE:
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "own" / folder / name).write_bytes(content)
    prepare("folder", tmp_path / "own", tmp_path / "tfds")
    train = load_dataset("folder", tmp_path / "tfds").train
    found = [train.read_bytes(i) for i in range(3)]
    assert found == list(contents.values())
    assert {type(content) for content in found} == {bytes}


def test_multi_query_images_are_stored_too(tmp_path: Path):
    root = draw_market(tmp_path)
    extra = root / "gt_bbox" / "0001_c1s1_001055_00.jpg"
    extra.parent.mkdir()
    shutil.copy(root / "query" / "0001_c1s1_001051_00.jpg", extra)
    prepare("market1501", root, tmp_path / "tfds")
    dataset = load_dataset("market1501", tmp_path / "tfds")
    assert dataset.multi_query is not None
    assert dataset.multi_query.files == ("gt_bbox/0001_c1s1_001055_00.jpg",)
    assert dataset.multi_query.read_bytes(0) == extra.read_bytes()


def test_broken_images_stay_broken_and_a_zip_will_do(tmp_path: Path):
    """Records hold the files as they are, so that decoding reports the same ones."""
    names = [f"{i:04}_c1_f0000001.jpg" for i in range(1, 201)]
    root = draw_folders(tmp_path / "DukeMTMC-reID", {**DUKE, "bounding_box_train": names})
    train = root / "bounding_box_train"
    (train / names[3]).write_bytes(b"")
    (train / names[150]).write_bytes((train / names[150]).read_bytes()[:-50])
    prepare("duke", zip_folder(root, tmp_path / "duke.zip"), tmp_path / "tfds")
    original = decode(READERS["duke"](root).train, 16, 8)
    prepared = decode(load_dataset("duke", tmp_path / "tfds").train, 16, 8)
    assert len(prepared.broken) == 2
    assert [Path(path).name for path in prepared.broken] == [names[3], names[150]]
    np.testing.assert_array_equal(prepared.kept, original.kept)
    np.testing.assert_array_equal(prepared.images, original.images)


def test_the_published_counts_are_checked_here_too(tmp_path: Path, caplog):
    prepare("duke", draw_folders(tmp_path / "a", DUKE), tmp_path / "tfds")
    caplog.clear()
    load_dataset("duke", tmp_path / "tfds")
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "train: found 3, published 16,522" in warning


def test_a_file_that_cannot_be_read_stops_it(tmp_path: Path):
    root = draw_msmt17(tmp_path / "MSMT17_V1")
    (root / "test/3059/3059_001_14_0303noon_0170_2_ex.jpg").unlink()
    with pytest.raises(InputError, match=r"3059_001_14_0303noon_0170_2_ex\.jpg: cannot be read"):
        prepare("msmt17", root, tmp_path / "tfds")
    assert find_prepared("msmt17", tmp_path / "tfds") is None, "nothing half done is taken for it"


def test_nothing_is_overwritten(tmp_path: Path):
    root = draw_market(tmp_path)
    prepare("market1501", root, tmp_path / "tfds")
    with pytest.raises(InputError, match=r"market1501/1\.0\.0: exists already; remove it"):
        prepare("market1501", root, tmp_path / "tfds")


def test_another_data_set_is_refused(tmp_path: Path):
    folder = prepare("market1501", draw_market(tmp_path), tmp_path / "tfds")
    with pytest.raises(InputError, match=r"holds the prepared data set 'market1501', not 'duke'"):
        load_dataset("duke", folder)


def test_incomplete_records_are_refused(tmp_path: Path):
    root = draw_market(tmp_path)
    folder = prepare("market1501", root, tmp_path / "tfds")
    listing = json.loads((folder / "metadata.json").read_text())
    for column in ("files", "identities", "cameras"):
        listing["splits"]["query"][column].pop()
    (folder / "metadata.json").write_text(json.dumps(listing))
    with pytest.raises(InputError, match=r"2 records of split query, but metadata\.json lists 1"):
        load_dataset("market1501", folder)
    (folder / "metadata.json").unlink()
    with pytest.raises(InputError, match="not a data set prepared by dgnet_jax"):
        load_dataset("market1501", folder)


def test_damaged_records_are_refused(tmp_path: Path):
    folder = prepare("market1501", draw_market(tmp_path), tmp_path / "tfds")
    (records,) = folder.glob("*train.array_record*")
    records.write_bytes(records.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"5 of the 5 images of the train split cannot be decoded"):
        decode(load_dataset("market1501", folder).train, 8, 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared records, not to be changed."""
    parent = tmp_path_factory.mktemp("whole")
    return prepare("market1501", draw_market(parent), parent / "tfds")


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole` to damage."""
    return shutil.copytree(whole, tmp_path / "1.0.0")


def read_all(folder: Path) -> None:
    """Lists and decodes every split; what cannot be used raises."""
    for split in load_dataset("market1501", folder).splits.values():
        decode(split, 8, 4)


CONTENTS = {
    "empty": b"",
    "half": None,
    "binary": b"\x93\xff\x00" * 40,
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "text": b'"x"',
    "number": b"3",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json", "records"])
def test_files_of_other_content_are_refused(damaged: Path, name: str, content: str):
    if name == "records":
        (file,) = damaged.glob("*train.array_record*")
    else:
        file = damaged / name
    written = CONTENTS[content]
    whole_size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: whole_size // 2] if written is None else written)
    with pytest.raises(InputError) as refused:
        read_all(damaged)
    assert str(damaged) in str(refused.value)
    expected = "of the train split cannot be decoded" if name == "records" else "prepare it again"
    assert expected in str(refused.value)


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json", "records"])
def test_what_is_no_file_is_not_waited_for(damaged: Path, name: str):
    file = next(damaged.glob("*train.array_record*")) if name == "records" else damaged / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match="a FIFO, not a file"):
        read_all(damaged)


TRAIN = 5
LISTS: dict[str, tuple[Callable[[dict], object], str]] = {
    "a short identity list": (
        lambda splits: splits["train"]["identities"].pop(),
        "metadata.json: split train has 5 files, 4 identities and 5 cameras",
    ),
    "a short camera list": (
        lambda splits: splits["query"]["cameras"].pop(),
        "metadata.json: split query has 2 files, 2 identities and 1 cameras",
    ),
    "an empty split": (
        lambda splits: splits.update(train={"files": [], "identities": [], "cameras": []}),
        "split train has 0 files",
    ),
    "people who are junk": (
        lambda splits: splits["train"].update(identities=[-1] * TRAIN),
        "split train has 5 images of identity -1, which only a gallery can have",
    ),
    "queries who are distractors": (
        lambda splits: splits["query"].update(identities=[0, 3]),
        "split query has 1 images of identity 0",
    ),
    "other identities": (
        lambda splits: splits["train"].update(identities=[9] * TRAIN),
        "the record is of identity 2 and camera 1, but metadata.json says 9 and 1",
    ),
    "other cameras": (
        lambda splits: splits["train"]["cameras"].reverse(),
        "the record is of identity 2 and camera 1, but metadata.json says 2 and 6",
    ),
    "another order": (
        lambda splits: splits["gallery"]["files"].reverse(),
        "the record is another file's, bounding_box_test/",
    ),
    "no training images": (
        lambda splits: splits.pop("train"),
        "lists the splits query, gallery, not train, query, gallery",
    ),
    "another split": (
        lambda splits: splits.update(more=splits["train"]),
        "lists the splits train, query, gallery, more, not",
    ),
    "a split without records": (
        lambda splits: splits.update(multi_query=splits["query"]),
        "split multi_query cannot be opened",
    ),
    "text": (
        lambda splits: splits["train"].update(identities=["a"] * TRAIN),
        "train.identities.0: Input should be a valid integer, found 'a'",
    ),
    "fractions": (
        lambda splits: splits["train"].update(cameras=[1.5] * TRAIN),
        "train.cameras.0: Input should be a valid integer, found 1.5",
    ),
    "truths": (
        lambda splits: splits["train"].update(identities=[True] * TRAIN),
        "train.identities.0: Input should be a valid integer, found True",
    ),
    "beyond int32": (
        lambda splits: splits["train"].update(identities=[2**31] * TRAIN),
        "train.identities.0: Input should be less than or equal to 2147483647",
    ),
    "no list": (
        lambda splits: splits["train"].update(files=None),
        "train.files: Input should be a valid list, found None",
    ),
    "numbers for names": (
        lambda splits: splits["train"].update(files=[1] * TRAIN),
        "train.files.0: Input should be a valid string, found 1",
    ),
    "a list for a split": (
        lambda splits: splits.update(train=[]),
        "train: Input should be a valid dictionary, found []",
    ),
    "a key that is missing": (
        lambda splits: splits["train"].pop("identities"),
        "train.identities: Field required",
    ),
}


@pytest.mark.parametrize("damage", LISTS)
def test_lists_that_do_not_fit_are_refused(damaged: Path, damage: str):
    change, cause = LISTS[damage]
    content = json.loads((damaged / "metadata.json").read_text())
    change(content["splits"])
    (damaged / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as refused:
        read_all(damaged)
    assert cause in str(refused.value)


def test_an_info_of_other_fields_is_refused(damaged: Path):
    """Protobuf, which reads it, has an exception of its own for each."""
    info = json.loads((damaged / "dataset_info.json").read_text())
    for field in ("name", "version", "fileFormat", "splits", "description"):
        (damaged / "dataset_info.json").write_text(json.dumps({**info, field: 3}))
        with pytest.raises(InputError, match=f"not all of it .*{field}.*; prepare it again"):
            read_all(damaged)


def test_a_bucket_needs_prepared_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="array_record cannot write to a bucket"):
        prepare("market1501", draw_market(tmp_path), "gs://bucket/data")

    with pytest.raises(InputError, match="of buckets only those of gs://"):
        load_dataset("market1501", "s3://bucket/data")

    def no_backend(self: object) -> bool:
        raise ImportError("no gcsfs")

    import dgnet_jax.data.records.prepared as prepared

    monkeypatch.setattr(type(prepared.epath.Path("gs://bucket")), "exists", no_backend)
    with pytest.raises(InputError, match=r'pip install "etils\[epath-gcs\]"'):
        load_dataset("market1501", "gs://bucket/data")

    class HttpError(Exception):
        """As gcsfs raises it: no OSError."""

    def forbidden(self: object) -> bool:
        raise HttpError("Anonymous caller does not have storage.objects.get access, 401")

    monkeypatch.setattr(type(prepared.epath.Path("gs://bucket")), "exists", forbidden)
    with pytest.raises(InputError, match=r"bucket cannot be read \(Anonymous.*gcloud auth"):
        load_dataset("market1501", "gs://bucket/data")
    monkeypatch.setattr(type(prepared.epath.Path("gs://bucket")), "exists", lambda self: False)
    with pytest.raises(InputError, match="no prepared data set 'market1501' there"):
        load_dataset("market1501", "gs://bucket/data")


def test_a_bucket_gives_the_same_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gcsfs", reason='buckets need pip install "etils[epath-gcs]"')
    root = draw_market(tmp_path)
    prepare("market1501", root, tmp_path / "served" / "bucket" / "data")
    with bucket_server(tmp_path / "served") as address:
        # The names under which gcsfs and array_record look for a server that is not Google's.
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        dataset = load_dataset("market1501", "gs://bucket/data")
        for split, expected in READERS["market1501"](root).splits.items():
            np.testing.assert_array_equal(
                decode(dataset.splits[split], 64, 32, num_threads=4).images,
                decode(expected, 64, 32).images,
            )
        with pytest.raises(InputError, match="no prepared data set 'duke' there"):
            load_dataset("duke", "gs://bucket/data")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = draw_market(tmp_path)
    main(["market1501", str(root), str(tmp_path / "tfds")])
    printed = capsys.readouterr().out.splitlines()[-1]
    assert str(tmp_path / "tfds" / "market1501" / "1.0.0") in printed
    assert f"--config.data.name=market1501 --config.data.root={tmp_path / 'tfds'}" in printed
    for arguments, message in (
        (["market1501", str(root), str(tmp_path / "tfds")], "exists already"),
        (["markt", str(root), str(tmp_path / "b")], "Did you mean 'market1501'?"),
        (["duke", str(tmp_path / "no"), str(tmp_path / "b")], "does not exist"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert str(stopped.value).startswith("error: ")
        assert message in str(stopped.value)
