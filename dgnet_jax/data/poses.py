"""Poses of a data set's images, from the files that pose-transfer programs share.

A line of such a file is NAME:KEYPOINTS_Y:KEYPOINTS_X, the latter two JSON lists of OpenPose's 18
joints (`drawing.figure.KEYPOINTS`) in pixels of the 128 x 64 image, -1 where a joint was not found:

    name:keypoints_y:keypoints_x
    0224_c6s1_055726_02.jpg: [8, 23, ..., 8]: [39, 37, ..., 31]

The project has no such file and computes none: a user brings one (`config.data.poses`).
"""

import json
from pathlib import Path, PurePosixPath

import numpy as np

from dgnet_jax.data.drawing.figure import KEYPOINTS, KEYPOINTS_SIZE
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import TABLE_BYTES, read_bytes

HEADER = ("name", "keypoints_y", "keypoints_x")
HEIGHT, WIDTH = KEYPOINTS_SIZE

_NOT_FOUND = -1
_FORM = f"{':'.join(HEADER)}, with {len(KEYPOINTS)} numbers in each of the two lists"


def read_poses(files: str) -> dict[str, np.ndarray]:
    """Reads the poses of images.

    Args:
        files: `config.data.poses`: paths separated by commas; "" gives no poses.

    Returns:
        An image's file name, without folders, to (18, 2) int32: y and x of each joint in pixels of
        a 128 x 64 image, -1, -1 where it was not found.

    Raises:
        InputError: a file cannot be read, a line is of another form, or an image occurs twice;
            names the file and the line.
    """
    poses: dict[str, np.ndarray] = {}
    places: dict[str, str] = {}
    for name in filter(None, map(str.strip, files.split(","))):
        path = user_path(name)
        for number, line in enumerate(_lines(path), 1):
            where = f"{path}:{number}"
            if number == 1:
                _check_header(where, line)
            elif line.strip():
                image, joints = _parse(where, line)
                if image in places:
                    raise InputError(
                        f"{where}: {image} has a pose already, in {places[image]}; remove one of "
                        "the two lines"
                    )
                poses[image], places[image] = joints, where
    return poses


def _lines(path: Path) -> list[str]:
    try:
        lines = read_bytes(path, TABLE_BYTES).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"--config.data.poses: {path} cannot be read ({error.strerror or error}); name "
            "files of keypoints, separated by commas, or leave it empty"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8; save the file as UTF-8 text") from error
    return lines or [""]


def _check_header(where: str, line: str) -> None:
    if tuple(field.strip() for field in line.split(":")) != HEADER:
        raise InputError(
            f"{where}: the header is {line[:80]!r}; a file of keypoints begins with "
            f"{':'.join(HEADER)!r}"
        )


def _parse(where: str, line: str) -> tuple[str, np.ndarray]:
    """The image's file name and its joints, (18, 2) int32."""
    fields = [field.strip() for field in line.split(":")]
    if len(fields) != len(HEADER):
        raise InputError(f"{where}: {len(fields)} fields in {line[:80]!r}; write {_FORM}")
    image = PurePosixPath(fields[0]).name
    if not image:
        raise InputError(f"{where}: an empty name; write {_FORM}")
    joints = np.stack(
        [
            _coordinates(f"{where}: {name}", field, limit)
            for name, field, limit in zip(HEADER[1:], fields[1:], (HEIGHT, WIDTH), strict=True)
        ],
        axis=1,
    )
    if not np.array_equal(joints[:, 0] == _NOT_FOUND, joints[:, 1] == _NOT_FOUND):
        joint = int(np.argmax((joints == _NOT_FOUND).any(1) & (joints != _NOT_FOUND).any(1)))
        raise InputError(
            f"{where}: the {KEYPOINTS[joint]} is at y {joints[joint, 0]}, x {joints[joint, 1]}; "
            "write -1 in both lists for a joint that was not found"
        )
    return image, joints


def _coordinates(where: str, field: str, limit: int) -> np.ndarray:
    """One of the lists, (18,) int32."""
    try:
        values = json.loads(field)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: {field[:80]!r} is no JSON list ({error}); {_FORM}") from error
    if not isinstance(values, list) or len(values) != len(KEYPOINTS):
        found = f"{len(values)} values" if isinstance(values, list) else repr(values)
        raise InputError(f"{where}: found {found}, not a list of {len(KEYPOINTS)}; write {_FORM}")
    for value in values:
        if type(value) is not int or not _NOT_FOUND <= value < limit:
            raise InputError(
                f"{where}: found {value!r}; write whole pixels from 0 to {limit - 1}, or -1 for a "
                f"joint that was not found (images are {HEIGHT} x {WIDTH})"
            )
    return np.array(values, np.int32)
