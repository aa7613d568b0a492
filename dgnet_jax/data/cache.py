"""A split decoded once into RAM.

Market-1501's training images are 318 MB and a few seconds of decoding; gathering batches from the
array is then faster than any step, without worker processes, and a batch is a pure function of its
indices.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from absl import logging

from dgnet_jax.data.decoding import decode_image, reason
from dgnet_jax.data.splits import Split
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.threads import available_cpus

MAX_BROKEN_FRACTION = 0.01
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class ImageCache:
    """The decoded images of a split.

    Attributes:
        images: (n, height, width, 3) uint8 RGB.
        kept: (n,) int64, each image's index in the split; all of them unless some are broken.
            `split.subset(kept)` and `labels[kept]` line up with the images.
        broken: paths of the images left out.
    """

    images: np.ndarray
    kept: np.ndarray
    broken: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def decode(
    split: Split,
    height: int,
    width: int,
    *,
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> ImageCache:
    """Decodes a split, resizing images of another size with Pillow's bicubic filter.

    A broken image is reported with its path and left out.

    Args:
        split: the images.
        height, width: pixels of the decoded images.
        out: memory for all images of the split, (n, height, width, 3) uint8; new by default.
        num_threads: by default one per CPU that this process may use.

    Raises:
        InputError: more than 1 % of the images are broken.
    """
    images = np.empty((len(split), height, width, 3), np.uint8) if out is None else out
    reasons: dict[int, str] = {}

    def decode_chunk(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(split))):
            try:
                images[i] = decode_image(split.read_bytes(i), height, width)
            except OSError as error:
                reasons[i] = reason(error)

    with ThreadPoolExecutor(num_threads or available_cpus()) as pool:
        for _ in pool.map(decode_chunk, range(0, len(split), _CHUNK)):
            pass

    broken = sorted(reasons)
    for i in broken:
        logging.warning("Broken image left out: %s: %s", split.paths[i], reasons[i])
    if len(broken) > MAX_BROKEN_FRACTION * len(split):
        first = "\n".join(f"    {split.paths[i]}: {reasons[i]}" for i in broken[:5])
        raise InputError(
            f"{len(broken)} of the {len(split)} images of the {split.name} split cannot be "
            f"decoded, more than {MAX_BROKEN_FRACTION:.0%}. Copy the data set again, or remove "
            f"these files if the run is meant to do without them. The first:\n{first}"
        )
    kept = np.delete(np.arange(len(split)), broken)
    # In place: a copy would need the memory twice.
    for new, old in enumerate(kept):
        if new != old:
            images[new] = images[old]
    return ImageCache(images[: len(kept)], kept, tuple(split.paths[i] for i in broken))
