"""Drawn pedestrians in the folders and names of Market-1501, for a first run without any data.

Clothes, hair, skin, bag and build say who somebody is; camera, pose, scale, light and background
vary from image to image. `python -m dgnet_jax.data.synthetic FOLDER` draws the data set and prints
what is in it.

Since anybody can be drawn in the clothes of anybody else, swaps of such a data set have a truth:
`draw_true_swaps`, or `--swaps=OUT` on the command line.
"""

import argparse
import contextlib
import dataclasses
import errno
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int, UInt8
from PIL import Image
from typing_extensions import TypedDict

from dgnet_jax.data.drawing.photo import (
    CAMERAS,
    Truth,
    key,
    photograph,
    photograph_in_clothes,
)
from dgnet_jax.errors import (
    DISK_FULL_STATUS,
    DiskFullError,
    InputError,
    naming,
    one_line,
)
from dgnet_jax.runtime.atomic import write_image
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import Count, read_json
from dgnet_jax.runtime.threads import available_cpus

VERSION = 1
"""Of the drawing: raised by any change to an image, so that an older folder is not reused."""

MARKER = "dataset.json"
FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
_QUALITY = 92
_SHUFFLE = 2**21
"""Takes the place of an identity in the random key of the split into training and test people."""
_NAMES = 2**20
"""Takes the place of an index in the random key of file names."""
_FRAMES = 25
"""Frames from one image of a person under a camera to the next."""
_FILE_NAME = re.compile(r"(-1|\d{4})_c(\d)s\d_(\d{6})_\d{2}\.jpg", re.ASCII)
# Second word of the seed sequence of `choose_shots`, independent of other draws.
_SHOTS = 1701

KEYPOINTS_FILE = "keypoints.csv"
# How a picture of parts shows them: background, skin, top, lower, shoes, hair, bag.
_PART_COLOURS = (
    (0, 0, 0),
    (240, 200, 170),
    (66, 118, 190),
    (92, 150, 76),
    (238, 200, 74),
    (122, 84, 160),
    (178, 44, 48),
)
# Images from which on another process is worth its start.
_LEAST_SHARE = 200
_WORKER = "from dgnet_jax.data import synthetic; synthetic.draw_share_of_arguments()"
_POLL_SECONDS = 0.05
# Test people from which on nobody is on both sides of the swaps.
_TWO_SIDES = 4
# People on either side of the swaps of the command line.
_SWAPPED = 4
# Of the command line, as the arguments of `draw_dataset`.
_OPTIONS = (
    "seed",
    "train_identities",
    "test_identities",
    "images_per_identity_camera",
    "distractors",
    "junk",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a drawn data set depends on; saved in its marker file."""

    seed: int
    train_identities: int
    test_identities: int
    images_per_identity_camera: int
    distractors: int
    junk: int
    height: int
    width: int
    version: int = VERSION


_NOT_DRAWN = "The data set is taken for photographs: swaps are not compared with a truth"
_SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))


class _Marker(TypedDict):
    """The content of `MARKER`: the settings, and the number of images of each folder."""

    seed: int
    train_identities: Count
    test_identities: Count
    images_per_identity_camera: Count
    distractors: Count
    junk: Count
    height: Count
    width: Count
    version: int
    images: dict[str, Count]


class Shot(NamedTuple):
    """A drawn image: who is in it (0 a distractor, -1 junk), the camera, which of their images."""

    identity: int
    camera: int
    index: int  # type: ignore[assignment]  # tuples have a method of that name


class TrueSwaps(NamedTuple):
    """Swaps of drawn images as they ought to be; [i, j] has appearance i and structure j.

    Attributes:
        appearances, structures: the images that a generator gets.
        truth: structure j's image, its person in the appearance of person i.
        parts: what each pixel of the truth shows, indices in `wardrobe.PARTS`.
    """

    appearances: UInt8[np.ndarray, "n height width 3"]
    structures: UInt8[np.ndarray, "m height width 3"]
    truth: UInt8[np.ndarray, "n m height width 3"]
    parts: UInt8[np.ndarray, "n m height width"]


def draw_dataset(
    root: Path,
    *,
    seed: int = 0,
    train_identities: int = 48,
    test_identities: int = 24,
    images_per_identity_camera: int = 5,
    distractors: int = 40,
    junk: int = 30,
    height: int = 128,
    width: int = 64,
) -> None:
    """Draws the data set into `root`, or does nothing if the same one is there already.

    Everybody is seen by all four cameras. Of a test person's images under a camera one is a query
    and the others are gallery. The folder appears complete or not at all: it is drawn beside `root`
    and renamed at the end.

    Args:
        root: the folder to make; its parents are made too.
        seed: of all randomness; with one version of Pillow it decides every byte of every image.
        train_identities, test_identities: numbers of people; nobody is in both.
        images_per_identity_camera: at least 2.
        distractors: gallery images of other people or of nobody (identity 0000).
        junk: badly cropped gallery images (identity -1).
        height, width: of the images in pixels.

    Raises:
        InputError: a number is out of range, `root` holds something else, or a process that draws
            a part ended with an error.
    """
    settings = Settings(
        seed,
        train_identities,
        test_identities,
        images_per_identity_camera,
        distractors,
        junk,
        height,
        width,
    )
    _check_settings(settings)
    root = user_path(root).absolute()
    if _is_drawn(root, settings):
        return
    with _beside(root) as unfinished, naming(root):
        counts = _draw_files(unfinished, settings)
        marker = {**dataclasses.asdict(settings), "images": counts}
        (unfinished / MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        try:
            unfinished.rename(root)
        except OSError:
            # Another process may have finished the same drawing first.
            if not _is_drawn(root, settings):
                raise


def drawn_settings(root: str | Path) -> Settings | None:
    """What the drawn data set in a folder depends on.

    Args:
        root: anything that a reader takes: "", a folder, a zip or a bucket.

    Returns:
        None if the folder itself does not hold a data set that this version has drawn.
    """
    if not str(root):
        return None
    try:
        marker = read_json(user_path(root) / MARKER, _Marker, _NOT_DRAWN)
        found = Settings(**{name: marker[name] for name in _SETTINGS})  # type: ignore[literal-required]
        _check_settings(found)
    except InputError as error:
        logging.warning("%s", error)
        return None
    except (OSError, ValueError):
        return None
    return found if found.version == VERSION else None


def shot_of(settings: Settings, name: str | Path) -> Shot:
    """Which image of the data set a file is, by its name.

    Raises:
        InputError: the data set has no image of this name.
    """
    match = _FILE_NAME.fullmatch(Path(name).name)
    if match:
        identity, camera, frame = map(int, match.groups())
        start, _ = _first_box(settings.seed, identity, camera)
        shot = Shot(identity, camera, (frame - start) // _FRAMES)
        if (
            0 <= shot.index < _images_of(settings, identity, camera)
            and _file_name(settings.seed, *shot) == match[0]
        ):
            return shot
    raise InputError(
        f"{name}: no image of the data set drawn with seed {settings.seed}; give the name of a "
        "file in its folders"
    )


def choose_shots(settings: Settings, count: int, seed: int) -> tuple[list[Shot], list[Shot]]:
    """A seeded choice of images to swap: `count` appearances, and as many structures.

    The appearances are of different test people, the structures of others. Cameras take turns.

    Args:
        settings: of the data set.
        count: at most; no more than half of the test people. Fewer than four people are all on both
            sides.
        seed: of the choice.
    """
    rng = np.random.default_rng([seed, _SHOTS])
    people = rng.permutation(_people(settings)[settings.train_identities :])
    count = min(count, len(people) // 2 if len(people) >= _TWO_SIDES else len(people))
    chosen = np.resize(people, 2 * count)
    indices = rng.integers(settings.images_per_identity_camera, size=2 * count)
    shots = [
        Shot(identity, 1 + place % len(CAMERAS), index)
        for place, (identity, index) in enumerate(
            zip(chosen.tolist(), indices.tolist(), strict=True)
        )
    ]
    return shots[:count], shots[count:]


def draw_shots(
    settings: Settings, shots: Sequence[Shot], height: int, width: int
) -> UInt8[np.ndarray, "n height width 3"]:
    """Images of the data set, resized to `height` x `width` pixels; not through JPEG."""
    return np.stack([_resized(_photograph(settings, shot), (height, width)) for shot in shots])


def draw_true_swaps(
    settings: Settings,
    appearances: Sequence[Shot],
    structures: Sequence[Shot],
    height: int,
    width: int,
) -> TrueSwaps:
    """Every appearance on every structure, drawn.

    Images are drawn at the data set's size and resized to `height` x `width` pixels as the data
    set's are; they have not been through JPEG. Parts are of the pixels of that size.

    Raises:
        InputError: there is no appearance or no structure, or a shot is of a distractor or of junk,
            whose appearance is nobody's.
    """
    if not appearances or not structures:
        raise InputError(
            f"true swaps: found {len(appearances)} appearances and {len(structures)} structures; "
            "give at least one of each"
        )
    size = height, width
    truths = [
        [_truth(settings, appearance, structure, size) for structure in structures]
        for appearance in appearances
    ]
    return TrueSwaps(
        draw_shots(settings, appearances, *size),
        draw_shots(settings, structures, *size),
        np.stack([[_resized(truth.image, size) for truth in row] for row in truths]),
        np.stack([[truth.parts for truth in row] for row in truths]),
    )


def write_true_swaps(
    folder: Path, settings: Settings, appearances: Sequence[Shot], structures: Sequence[Shot]
) -> None:
    """Draws every appearance on every structure at the data set's size, into a new folder.

    APPEARANCE__STRUCTURE.png, named by the files without their ends, is the swap;
    APPEARANCE__STRUCTURE_parts.png, in a palette, holds an index in `wardrobe.PARTS` for each
    pixel; keypoints.csv has a swap's joints in the form of `data.poses`, which has pixels of a
    128 x 64 image whatever the size is.
    The folder appears complete or not at all.

    Raises:
        InputError: there is something in the folder, or see `draw_true_swaps`.
    """
    folder = Path(folder).absolute()
    _check_new(folder)
    size = settings.height, settings.width
    poses = []
    with _beside(folder) as unfinished, naming(folder):
        unfinished.mkdir()
        for appearance in appearances:
            for structure in structures:
                truth = _truth(settings, appearance, structure, size)
                name = f"{_stem(settings, appearance)}__{_stem(settings, structure)}"
                write_image(truth.image, unfinished / f"{name}.png", format="PNG")
                parts = _picture_of_parts(truth.parts)
                write_image(parts, unfinished / f"{name}_parts.png", format="PNG")
                poses.append((f"{name}.png", *truth.keypoints.T.tolist()))
        with (unfinished / KEYPOINTS_FILE).open("w", encoding="utf-8", newline="") as stream:
            stream.write("name:keypoints_y:keypoints_x\n")
            stream.writelines(f"{name}: {rows}: {columns}\n" for name, rows, columns in poses)
        unfinished.rename(folder)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A name for the unfinished folder, to be renamed at the end; otherwise it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.drawing-{uuid.uuid4().hex[:8]}")
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _truth(settings: Settings, appearance: Shot, structure: Shot, size: tuple[int, int]) -> Truth:
    """The image at the data set's size; parts at `size`, rows and columns."""
    for shot in (appearance, structure):
        if shot.identity < 1:
            raise InputError(
                f"{_stem(settings, shot)}.jpg: nobody's appearance or structure is known in a "
                "distractor (0000) or junk (-1); choose an image of a person"
            )
    return photograph_in_clothes(
        settings.seed,
        appearance.identity,
        *structure,
        height=settings.height,
        width=settings.width,
        parts_size=size,
    )


def _photograph(settings: Settings, shot: Shot) -> Image.Image:
    return photograph(settings.seed, *shot, height=settings.height, width=settings.width)


def _resized(image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """As `decoding.decode_image` does it."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _picture_of_parts(parts: UInt8[np.ndarray, "height width"]) -> Image.Image:
    picture = Image.fromarray(parts)
    picture.putpalette(np.ravel(_PART_COLOURS).tolist())
    return picture


def _check_settings(settings: Settings) -> None:
    least = {"seed": 0, "distractors": 0, "junk": 0, "images_per_identity_camera": 2}
    for name, value in dataclasses.asdict(settings).items():
        if value < least.get(name, 1):
            raise InputError(
                f"drawn data set: {name} is {value}; it must be at least {least.get(name, 1)}"
            )
    if settings.train_identities + settings.test_identities > 9999:
        raise InputError(
            "drawn data set: more than 9999 people; names in Market-1501's form have four digits"
        )


def _is_drawn(root: Path, settings: Settings) -> bool:
    """Whether `root` holds this very data set; InputError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    remedy = "remove it or choose another folder"
    try:
        marker = read_json(root / MARKER, _Marker, "")
    except (OSError, InputError) as error:
        raise InputError(
            f"{root}: exists and is not a complete drawn data set (no valid {MARKER}: {error}); "
            f"{remedy}"
        ) from error
    counts = marker["images"]
    wanted = dataclasses.asdict(settings)
    different = [
        f"{name} is {marker.get(name)}, not {value}"
        for name, value in wanted.items()
        if marker.get(name) != value
    ]
    if different:
        raise InputError(
            f"{root}: holds a data set drawn otherwise ({', '.join(different)}); {remedy}"
        )
    found = {folder: sum(1 for _ in (root / folder).glob("*.jpg")) for folder in FOLDERS}
    if found != counts:
        raise InputError(f"{root}: holds {found} images where {MARKER} says {counts}; {remedy}")
    return True


def _draw_files(root: Path, settings: Settings) -> dict[str, int]:
    """Draws every image under `root` and returns the number of images by folder."""
    counts = dict.fromkeys(FOLDERS, 0)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for folder, _ in _plan(settings):
        counts[folder] += 1
    processes = min(available_cpus(), sum(counts.values()) // _LEAST_SHARE)
    if processes < 2:
        draw_share(root, settings, 0, 1)
    else:
        _draw_in_processes(root, settings, processes)
    return counts


def draw_share(root: Path, settings: Settings, share: int, of: int) -> None:
    """Draws the `share`-th of `of` parts of the data set's images into the folders of `root`."""
    for folder, shot in itertools.islice(_plan(settings), share, None, of):
        path = root / folder / _file_name(settings.seed, *shot)
        picture = _photograph(settings, shot)
        write_image(picture, path, format="JPEG", quality=_QUALITY, subsampling=0)


def draw_share_of_arguments() -> None:
    """What a process of `_draw_in_processes` does: `draw_share` of its arguments.

    It ends with the process that started it, however that ends: standard input closes then.
    """

    def follow() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    root, settings, share, of = sys.argv[1:]
    with one_line(DiskFullError):
        draw_share(Path(root), Settings(**json.loads(settings)), int(share), int(of))


def _draw_in_processes(root: Path, settings: Settings, count: int) -> None:
    """Draws shares in processes of their own, which import nothing of the caller's program."""
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    arguments = [str(root), json.dumps(dataclasses.asdict(settings))]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for share in range(count):
            command = [sys.executable, "-c", _WORKER, *arguments, str(share), str(count)]
            workers.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
        codes: list[int | None] = [None] * count
        while None in codes:
            time.sleep(_POLL_SECONDS)
            codes = [worker.poll() for worker in workers]
            failed = [code for code in codes if code]
            if DISK_FULL_STATUS in failed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if failed:
                raise InputError(
                    f"{root.parent}: a process that drew images there ended with "
                    f"{_ending(failed[0])}; what it said stands above. Look at the disk and the "
                    "memory, then start again"
                )
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _ending(code: int) -> str:
    return f"status {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _people(settings: Settings) -> Int[np.ndarray, " people"]:
    """The numbers of all people: first those of the training, then those of the test."""
    people = settings.train_identities + settings.test_identities
    return key(settings.seed, _SHUFFLE, 0, 0).permutation(people) + 1


def _plan(settings: Settings) -> Iterator[tuple[str, Shot]]:
    """The images, and the folder of each."""
    train, test, query = FOLDERS
    for position, identity in enumerate(_people(settings).tolist()):
        for camera in range(1, len(CAMERAS) + 1):
            for index in range(settings.images_per_identity_camera):
                tested = position >= settings.train_identities
                folder = (query if index == 0 else test) if tested else train
                yield folder, Shot(identity, camera, index)
    for identity, number in ((0, settings.distractors), (-1, settings.junk)):
        for image in range(number):
            yield test, Shot(identity, 1 + image % len(CAMERAS), image // len(CAMERAS))


def _images_of(settings: Settings, identity: int, camera: int) -> int:
    """The number of images of an identity under a camera; 0 if there is no such one."""
    if not 1 <= camera <= len(CAMERAS):
        return 0
    if identity > 0:
        known = identity <= settings.train_identities + settings.test_identities
        return settings.images_per_identity_camera if known else 0
    images = settings.junk if identity else settings.distractors
    return len(range(camera - 1, images, len(CAMERAS)))


def _first_box(seed: int, identity: int, camera: int) -> tuple[int, int]:
    """The frame of the first image of an identity under a camera, and the number of the box."""
    start, box = key(seed, identity, camera, _NAMES).integers((5000, 4)).tolist()
    return start, box


def _file_name(seed: int, identity: int, camera: int, index: int) -> str:
    """A name like 0002_c1s1_000451_03.jpg: identity, camera, sequence, frame, box."""
    start, box = _first_box(seed, identity, camera)
    frame = start + _FRAMES * index
    person = "-1" if identity == -1 else f"{identity:04d}"
    return f"{person}_c{camera}s{min(6, 1 + frame // 1500)}_{frame:06d}_{box:02d}.jpg"


def _stem(settings: Settings, shot: Shot) -> str:
    return _file_name(settings.seed, *shot).removesuffix(".jpg")


def main() -> None:
    """The command line: draws the data set, or true swaps of its images, and prints what it did."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        with one_line(DiskFullError):
            _check_swaps(arguments)
            print(_draw(arguments))
            if arguments.swaps is not None:
                print(_draw_swaps(arguments))
    except InputError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        where = error.filename or arguments.folder
        parser.exit(2, f"{where}: {error.strerror}; choose another folder\n")


def _check_swaps(arguments: argparse.Namespace) -> None:
    """Raises InputError for what is wrong with the flags of swaps, before anything is drawn."""
    if arguments.swaps is None:
        for name in ("appearance", "structure", "count"):
            if getattr(arguments, name) is not None:
                raise InputError(f"--{name}: is for swaps; give --swaps=OUT, a new folder, too")
        return
    _check_new(arguments.swaps)
    if arguments.count is not None:
        if arguments.count < 1:
            raise InputError(f"--count: found {arguments.count}. Give 1 or more.")
        if arguments.appearance is not None and arguments.structure is not None:
            raise InputError(
                "--count: is for images that are chosen; --appearance and --structure "
                "name all of them. Leave one of the three out"
            )


def _check_new(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"--swaps={folder}: exists; remove it or choose another folder")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dgnet_jax.data.synthetic", description=__doc__)
    parser.add_argument("folder", type=user_path, help="of the data set; drawn if it is missing")
    parameters = inspect.signature(draw_dataset).parameters
    for name in _OPTIONS:
        words = f"{name.replace('_', ' ')} (default: {parameters[name].default})"
        parser.add_argument(f"--{name}", type=int, metavar="N", help=words)
    parser.add_argument(
        "--swaps",
        type=user_path,
        metavar="OUT",
        help="a new folder for true swaps of the data set's images, with parts and joints",
    )
    for name in ("appearance", "structure"):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            metavar="FILE",
            help=f"with --swaps: names of the {name} images (default: of test people)",
        )
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help=f"with --swaps: test people to choose, where no names are given (default: {_SWAPPED})",
    )
    return parser


def _draw(arguments: argparse.Namespace) -> str:
    """Draws the data set, unless it is there, and says what is in it."""
    given = {name: getattr(arguments, name) for name in _OPTIONS}
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    found = drawn_settings(arguments.folder)
    if found is not None and arguments.swaps is not None:
        # The data set has said what it is: nobody has to say it again to swap its images.
        wanted = {**dataclasses.asdict(found), **wanted}
        del wanted["version"]
    draw_dataset(arguments.folder, **wanted)
    marker = read_json(arguments.folder / MARKER, _Marker, "")
    people = f"{marker['train_identities']} training and {marker['test_identities']} test people"
    images = ", ".join(f"{count} in {folder}" for folder, count in marker["images"].items())
    return f"{arguments.folder}: {people}, {len(CAMERAS)} cameras; images: {images}"


def _draw_swaps(arguments: argparse.Namespace) -> str:
    """Draws true swaps of the data set's images, and says how many."""
    settings = drawn_settings(arguments.folder)
    assert settings is not None
    count = _SWAPPED if arguments.count is None else arguments.count
    chosen = []
    defaults = choose_shots(settings, count, settings.seed)
    for flag, default in zip(("appearance", "structure"), defaults, strict=True):
        names = getattr(arguments, flag)
        try:
            shots = default if names is None else [shot_of(settings, name) for name in names]
        except InputError as error:
            raise InputError(f"--{flag}: {error}") from error
        chosen.append(list(dict.fromkeys(shots)))
    write_true_swaps(arguments.swaps, settings, *chosen)
    appearances, structures = map(len, chosen)
    return (
        f"{arguments.swaps}: {appearances * structures} swaps, {appearances} appearances on "
        f"{structures} structures, with their parts; joints in {KEYPOINTS_FILE}"
    )


if __name__ == "__main__":
    main()
