"""Regular files of a bounded size, and JSON of a stated shape."""

import os
from typing import Any

import pytest
from typing_extensions import TypedDict

from dgnet_jax.errors import InputError
from dgnet_jax.runtime.reading import NotRegularError, check_regular, read_bytes, read_json


class Person(TypedDict):
    name: str
    age: int


def test_a_fifo_a_device_and_a_folder_are_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((tmp_path / "fifo", "FIFO"), ("/dev/zero", "device"), (tmp_path, "folder")):
        with pytest.raises(NotRegularError, match=kind):
            read_bytes(path, 100)


def test_a_sparse_file_of_20_gigabytes_is_refused_by_its_size(tmp_path):
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(20 * 1024**3)
    with pytest.raises(NotRegularError, match="21,474,836,480 bytes"):
        read_bytes(tmp_path / "sparse", 100)


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    check_regular(tmp_path / "link", 7)
    assert read_bytes(tmp_path / "link", 7) == b"content"


def test_json_of_the_stated_shape_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "Ann", "age": 7}')
    assert read_json(tmp_path / "a.json", Person, "") == {"name": "Ann", "age": 7}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"name": "Ann", "age": "7"}', r"age: .*integer.*'7'"),
        (b'{"name": "Ann"}', r"age: Field required"),
        (b"[1]", "dict"),
        (b"null", "dict"),
        (b'{"name": "Ann", "age": 1e400}', "1e400 is no number"),
        (b'{"name": "Ann", "age": NaN}', "NaN is no number"),
        (b"[" * 100_000, "too deeply nested"),
        (b'"\xff"', "not UTF-8"),
        (b"{", "not valid JSON"),
        (b"1" * 5_000, "not valid JSON"),
    ],
)
def test_other_json_is_refused_with_the_file_the_place_and_the_remedy(tmp_path, text, found):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=found) as caught:
        read_json(path, Person, "Write it again.")
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(". Write it again.")


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json", dict[str, Any], "")
