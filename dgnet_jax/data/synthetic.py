"""Drawn pedestrians in the folders and names of Market-1501, for a first run without any data.

Clothes, hair, skin, bag and build say who somebody is; camera, pose, scale, light and background
vary from image to image. `python -m dgnet_jax.data.synthetic FOLDER` draws the data set and prints
what is in it.
"""

import argparse
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from dgnet_jax.data.drawing.photo import CAMERAS, key, photograph
from dgnet_jax.errors import InputError

VERSION = 1
"""Of the drawing: raised by any change to an image, so that an older folder is not reused."""

MARKER = "dataset.json"
FOLDERS = ("bounding_box_train", "bounding_box_test", "query")
_QUALITY = 92
_SHUFFLE = 2**21
"""Takes the place of an identity in the random key of the split into training and test people."""
_NAMES = 2**20
"""Takes the place of an index in the random key of file names."""


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
        InputError: a number is out of range, or `root` holds something else.
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
    root = Path(root).absolute()
    if _is_drawn(root, settings):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(f".{root.name}.drawing-{uuid.uuid4().hex[:8]}")
    try:
        counts = _draw_files(unfinished, settings)
        marker = {**dataclasses.asdict(settings), "images": counts}
        (unfinished / MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        try:
            unfinished.rename(root)
        except OSError:
            # Another process may have finished the same drawing first.
            if not _is_drawn(root, settings):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
        marker = json.loads((root / MARKER).read_text())
        counts = marker["images"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{root}: exists and is not a complete drawn data set (no valid {MARKER}); {remedy}"
        ) from None
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
    for folder, identity, camera, index in _plan(settings):
        image = photograph(
            settings.seed, identity, camera, index, height=settings.height, width=settings.width
        )
        path = root / folder / _file_name(settings.seed, identity, camera, index)
        image.save(path, quality=_QUALITY, subsampling=0)
        counts[folder] += 1
    return counts


def _plan(settings: Settings) -> Iterator[tuple[str, int, int, int]]:
    """The images: folder, identity, camera, and index among those of identity and camera."""
    train, test, query = FOLDERS
    people = settings.train_identities + settings.test_identities
    order = key(settings.seed, _SHUFFLE, 0, 0).permutation(people) + 1
    for position, identity in enumerate(order.tolist()):
        for camera in range(1, len(CAMERAS) + 1):
            for index in range(settings.images_per_identity_camera):
                tested = position >= settings.train_identities
                yield (query if index == 0 else test) if tested else train, identity, camera, index
    for identity, number in ((0, settings.distractors), (-1, settings.junk)):
        for image in range(number):
            yield test, identity, 1 + image % len(CAMERAS), image // len(CAMERAS)


def _file_name(seed: int, identity: int, camera: int, index: int) -> str:
    """A name like 0002_c1s1_000451_03.jpg: identity, camera, sequence, frame, box."""
    start, box = key(seed, identity, camera, _NAMES).integers((5000, 4)).tolist()
    frame = start + 25 * index
    person = "-1" if identity == -1 else f"{identity:04d}"
    return f"{person}_c{camera}s{min(6, 1 + frame // 1500)}_{frame:06d}_{box:02d}.jpg"


def main() -> None:
    """The command line: draws the data set and prints the number of images."""
    parser = argparse.ArgumentParser(prog="python -m dgnet_jax.data.synthetic", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to draw; made if missing")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    arguments = parser.parse_args()
    try:
        draw_dataset(arguments.folder, seed=arguments.seed)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    marker = json.loads((arguments.folder / MARKER).read_text())
    people = f"{marker['train_identities']} training and {marker['test_identities']} test people"
    images = ", ".join(f"{count} in {folder}" for folder, count in marker["images"].items())
    print(f"{arguments.folder}: {people}, {len(CAMERAS)} cameras; images: {images}")


if __name__ == "__main__":
    main()
