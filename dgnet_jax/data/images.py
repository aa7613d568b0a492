"""All images of a folder, at any depth, decoded and resized in parallel."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dgnet_jax.data.decoding import DECODE_ERRORS, decode_image, reason
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.threads import available_cpus

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def image_files(folder: str | Path) -> list[Path]:
    """The images below a folder by their suffix, sorted; hidden files are left out.

    Raises:
        InputError: no such folder, or no image in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
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
            return decode_image(path.read_bytes(), height, width)
        except DECODE_ERRORS as error:
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
