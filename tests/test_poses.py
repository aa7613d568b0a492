"""Files of keypoints, as pose-transfer programs share them."""

from pathlib import Path

import numpy as np
import pytest

from dgnet_jax.data.drawing.figure import KEYPOINTS
from dgnet_jax.data.poses import read_poses
from dgnet_jax.errors import InputError

HEADER = "name:keypoints_y:keypoints_x"
ROWS, COLUMNS = list(range(10, 28)), list(range(30, 48))


def write(path: Path, *lines: str, header: str = HEADER) -> str:
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    return str(path)


def line(name: str, rows: object = ROWS, columns: object = COLUMNS) -> str:
    return f"{name}: {rows}: {columns}"


def test_joints_are_y_and_x_of_each_image(tmp_path: Path) -> None:
    rows, columns = [*ROWS[:17], -1], [*COLUMNS[:17], -1]
    first = write(tmp_path / "train.csv", line("a.jpg"), "", line("b.jpg", rows, columns))
    second = write(tmp_path / "test.csv", line("query/c.jpg"))
    poses = read_poses(f"{first}, {second}")
    assert list(poses) == ["a.jpg", "b.jpg", "c.jpg"]
    for pose in poses.values():
        assert pose.shape == (len(KEYPOINTS), 2) and pose.dtype == np.int32
    np.testing.assert_array_equal(poses["a.jpg"][KEYPOINTS.index("neck")], [11, 31])
    np.testing.assert_array_equal(poses["b.jpg"][KEYPOINTS.index("left ear")], [-1, -1])


def test_no_file_is_no_pose(tmp_path: Path) -> None:
    assert read_poses("") == {}
    assert read_poses(write(tmp_path / "a.csv")) == {}


@pytest.mark.parametrize(
    "wrong, message",
    [
        (line("a.jpg", ROWS[:17]), "a.csv:3: keypoints_y: found 17 values, not a list of 18"),
        (line("a.jpg", columns=5), "a.csv:3: keypoints_x: found 5, not a list of 18"),
        (line("a.jpg", "[1, 2"), r"a.csv:3: keypoints_y: '\[1, 2' is no JSON list"),
        (line("a.jpg", "[" * 100_000), "a.csv:3: keypoints_y: .* is no JSON list"),
        (line("a.jpg", columns=[*COLUMNS[:17], 64]), "keypoints_x: found 64; .* from 0 to 63"),
        (line("a.jpg", [*ROWS[:17], -2]), "keypoints_y: found -2; .* from 0 to 127, or -1"),
        (line("a.jpg", [*ROWS[:17], 2.5]), "a.csv:3: keypoints_y: found 2.5; write whole pixels"),
        (line("a.jpg", '[true, "b"' + ", 1" * 16 + "]"), "a.csv:3: keypoints_y: found True"),
        (line("a.jpg", [-1, *ROWS[1:]]), "the nose is at y -1, x 30; write -1 in both lists"),
        ("a.jpg", "a.csv:3: 1 fields in 'a.jpg'; write name:keypoints_y:keypoints_x"),
        (line(""), "a.csv:3: an empty name"),
        (line("first.jpg"), r"a.csv:3: first.jpg has a pose already, in .*a.csv:2"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, wrong: str, message: str) -> None:
    path = write(tmp_path / "a.csv", line("first.jpg"), wrong)
    with pytest.raises(InputError, match=message):
        read_poses(path)


def test_an_image_in_two_files_is_refused(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, line("a.jpg")) for name in ("1.csv", "2.csv"))
    with pytest.raises(InputError, match=r"2.csv:2: a.jpg has a pose already, in .*1.csv:2"):
        read_poses(f"{first},{second}")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", "a.jpg,b.jpg", header="from,to")
    with pytest.raises(InputError, match="pairs.csv:1: the header is 'from,to'; .*keypoints_y"):
        read_poses(path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="empty.csv:1: the header is ''"):
        read_poses(str(tmp_path / "empty.csv"))
    (tmp_path / "binary.csv").write_bytes(f"{HEADER}\n".encode() + b"\xff")
    with pytest.raises(InputError, match="binary.csv:2: not UTF-8"):
        read_poses(str(tmp_path / "binary.csv"))


@pytest.mark.parametrize("name", ["absent.csv", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--config\.data\.poses: .* cannot be read"):
        read_poses(str(tmp_path / name))


def test_the_keypoints_of_market1501(shared: Path) -> None:
    """As many images as Market-1501 has in these folders (Zheng et al., ICCV 2015)."""
    folder = shared / "data" / "market1501-poses"
    if not folder.is_dir():
        pytest.skip(f"no reference folder at {folder}")
    files = [str(folder / f"market-annotation-{split}.csv") for split in ("train", "test")]
    poses = read_poses(",".join(files))
    assert len(poses) == 12_936 + 19_732
    found = np.stack(list(poses.values()))
    hips = (found[:, [8, 11]] >= 0).all(axis=(1, 2))
    shoulders = (found[:, [2, 5]] >= 0).all(axis=(1, 2))
    # People stand: their hips are below their shoulders.
    upright = found[:, [8, 11], 0].mean(axis=1) > found[:, [2, 5], 0].mean(axis=1)
    assert upright[hips & shoulders].mean() > 0.99
