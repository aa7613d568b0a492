"""A user's images of any size, colour mode and format, as the networks take them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from dgnet_jax.data.decoding import DECODE_ERRORS, reason, to_rgb
from dgnet_jax.errors import InputError

# A person's crop is about twice as high as wide; beyond these it is squeezed beyond recognition.
_NARROWEST, _WIDEST = 1.0, 4.0


class Photographs(NamedTuple):
    """images: (n, height, width, 3) uint8 RGB; paths: of the n files; skipped: what is no image."""

    images: np.ndarray
    paths: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def read_photographs(
    sources: Sequence[str | Path], height: int, width: int, flag: str = "images"
) -> Photographs:
    """Reads images, and all images of folders in the order of their names.

    What is not an image is named in a warning and skipped.

    Args:
        sources: files and folders (not what lies in folders inside them).
        height, width: pixels of the result; the whole image is resized to them with Pillow's
            bicubic filter, whatever its shape.
        flag: where the sources come from, for messages.

    Raises:
        InputError: a source does not exist, or there is no image in any.
    """
    images, paths, skipped = [], [], []
    for path in _files(sources, flag):
        try:
            images.append(read_photograph(path, height, width))
            paths.append(str(path))
        except DECODE_ERRORS as error:
            logging.warning("%s: skipped: %s", path, reason(error))
            skipped.append(str(path))
    if not images:
        found = f"; skipped {', '.join(skipped[:5])}" if skipped else ""
        raise InputError(
            f"{flag}: no image in {', '.join(map(str, sources))}{found}. Give image files or a "
            "folder that holds some"
        )
    return Photographs(np.stack(images), tuple(paths), tuple(skipped))


def read_photograph(path: str | Path, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB of an image file, upright as its EXIF orientation says.

    Gray, palette, CMYK and 16-bit images are converted; transparent ones are laid on white; of an
    animation the first frame counts.

    Raises:
        one of `data.decoding.DECODE_ERRORS`: it is not a whole image.
    """
    with Image.open(path) as opened:
        opened.load()
        image = to_rgb(opened)
    if not _NARROWEST <= image.height / image.width <= _WIDEST:
        logging.warning(
            "%s: %d x %d pixels, which is not the shape of a person; it is squeezed into %d x %d",
            path,
            image.width,
            image.height,
            width,
            height,
        )
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _files(sources: Sequence[str | Path], flag: str) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            files += sorted(entry for entry in path.iterdir() if not entry.is_dir())
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{flag}: no file or folder {source}")
    return files
