"""Images of a user's folders: all of a folder in parallel, or a few of any size and form."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from dgnet_jax.data.decoding import decode_image, open_rgb, reason
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import IMAGE_BYTES, read_bytes
from dgnet_jax.runtime.threads import available_cpus

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def image_files(folder: str | Path) -> list[Path]:
    """The images below a folder by their suffix, sorted; hidden files are left out.

    Raises:
        InputError: no such folder, or no image in it.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )
    if not files:
        raise InputError(f"{folder}: no image in it ({', '.join(sorted(SUFFIXES))}), at any depth")
    return files


def read_images(
    files: list[Path],
    height: int,
    width: int,
    chunk: int,
    broken: Callable[[Path, str], None],
) -> Iterator[np.ndarray]:
    """Yields (n, height, width, 3) uint8 RGB of up to `chunk` images each, in order.

    Images of another size are resized with Pillow's bicubic filter. The next chunk is decoded while
    the caller works on one.

    Args:
        files: images.
        height, width: pixels.
        chunk: files a chunk; one may yield fewer images.
        broken: called with the path and the reason of each file that is no image; it is skipped.
    """

    def read(path: Path) -> np.ndarray | str:
        try:
            return decode_image(read_bytes(path, IMAGE_BYTES), height, width)
        except OSError as error:
            return reason(error)

    chunks = [files[start : start + chunk] for start in range(0, len(files), chunk)]
    with ThreadPoolExecutor(available_cpus()) as pool:
        decoding = [pool.submit(read, path) for path in chunks[0]] if chunks else []
        for index, paths in enumerate(chunks):
            results = [future.result() for future in decoding]
            following = chunks[index + 1] if index + 1 < len(chunks) else []
            decoding = [pool.submit(read, path) for path in following]
            images = []
            for path, result in zip(paths, results, strict=True):
                if isinstance(result, str):
                    broken(path, result)
                else:
                    images.append(result)
            if images:
                yield np.stack(images)


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
    for path in _files_of(sources, flag):
        try:
            images.append(read_photograph(path, height, width))
            paths.append(str(path))
        except OSError as error:
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
        OSError: it cannot be read; `data.decoding.ImageError`: it is not a whole image.
    """
    image = open_rgb(read_bytes(path, IMAGE_BYTES))
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


def _files_of(sources: Sequence[str | Path], flag: str) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        path = user_path(source)
        if path.is_dir():
            files += sorted(entry for entry in path.iterdir() if not entry.is_dir())
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{flag}: no file or folder {path}")
    return files
