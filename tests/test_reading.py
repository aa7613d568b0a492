"""Regular files of a bounded size, and JSON of a stated shape."""

import os
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from typing_extensions import TypedDict

from dgnet_jax.errors import InputError
from dgnet_jax.runtime import reading
from dgnet_jax.runtime.reading import (
    NotRegularError,
    check_regular,
    check_zip,
    read_bytes,
    read_json,
    read_safetensors,
)


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


def test_zips_are_refused_by_what_they_unpack_to(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**6))
        archive.writestr("more", b"1")
    check_zip(path, 10**6 + 1)
    with pytest.raises(NotRegularError, match="1,000,001 bytes when unpacked"):
        check_zip(path, 10**6)


def test_safetensors_of_every_float_and_integer_are_read(tmp_path):
    arrays = {
        "single": np.float32([[1.5, -2]]),
        "half": np.float16([1.5]),
        "brain": np.array([1.5, 3], ml_dtypes.bfloat16),
        "double": np.array(2.5),
        "counter": np.array(3),
        "none": np.zeros((0, 3), np.float32),
    }
    save_file(arrays, tmp_path / "a.safetensors", {"step": "7"})
    found = read_safetensors(tmp_path / "a.safetensors")
    assert found.metadata == {"step": "7"} and found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    save_file(arrays, tmp_path / "b.safetensors")
    assert read_safetensors(tmp_path / "b.safetensors").metadata == {}


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array([1.0], ml_dtypes.float8_e4m3fn), "a is of F8_E4M3, which is not read"),
        (np.array([1.0], ml_dtypes.float8_e5m2), "a is of F8_E5M2"),
        (np.complex64([1j]), "a is of C64"),
        (np.float32([np.nan]), "a holds NaN"),
        (np.array([np.inf], ml_dtypes.bfloat16), "a holds NaN or infinite"),
    ],
)
def test_other_safetensors_are_refused_with_the_tensor(tmp_path, array, found):
    save_file({"a": array}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=found):
        read_safetensors(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"deserializ"):
        read_safetensors(tmp_path / "a.safetensors")


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json", dict[str, Any], "")


def test_what_a_disk_or_permissions_keep_back_is_not_to_be_deleted(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("{")
    with pytest.raises(InputError, match="Delete it"):
        read_json(path, dict, "Delete it")

    def fails(*arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reading, "read_bytes", fails)
    with pytest.raises(InputError) as caught:
        read_json(path, dict, "Delete it")
    assert str(caught.value) == (
        f"{path}: cannot be read (Permission denied). Look at its permissions and at the disk"
    )


def test_a_zip_that_has_lost_members_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in "abc":
            archive.writestr(name, name)
    data = bytearray(path.read_bytes())
    # The second entry of the directory takes the third for its comment, whose length is at byte 32.
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 32] = 47
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["a", "b"]
    with pytest.raises(zipfile.BadZipFile, match="2 members in it, but it says that there are 3"):
        check_zip(path, 1000)
