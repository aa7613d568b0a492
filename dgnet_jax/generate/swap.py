"""Every appearance on every structure: figure 1 of DG-Net (Zheng et al., CVPR 2019)."""

from collections.abc import Iterator

import numpy as np

from dgnet_jax.errors import InputError
from dgnet_jax.inference import DGNet

MOST_SWAPS = 4096
"""Pictures of one figure; 64 x 64 of 256 x 128 pixels take 0.4 GB, and some copies of it."""

# Batches a call: within one the device does not wait for the host.
_BATCHES = 8


def check_figure(appearances: int, structures: int, flag: str, remedy: str) -> None:
    """Raises InputError for more than `MOST_SWAPS` pictures; `remedy` follows "fewer images"."""
    if appearances * structures > MOST_SWAPS:
        raise InputError(
            f"{flag}: {appearances} appearances x {structures} structures, more than {MOST_SWAPS} "
            f"pictures, are too many for one figure. Give fewer images {remedy}"
        )


def swap_batches(
    model: DGNet, appearance_images: np.ndarray, structure_images: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields all swaps of n appearance and m structure images, some batches at a time.

    Args:
        appearance_images, structure_images: (n or m, rows, columns, 3) uint8.

    Yields:
        indices of the appearances (b,) and of the structures (b,), the latter running faster, and
        the pictures (b, height, width, 3) uint8.
    """
    codes = model.appearance_codes(appearance_images)
    n, m = len(appearance_images), len(structure_images)
    count = _BATCHES * model.batch_size
    for start in range(0, n * m, count):
        i, j = np.divmod(np.arange(start, min(start + count, n * m)), m)
        yield i, j, model.repaint(structure_images[j], codes[i])


def swap_grid(
    model: DGNet, appearance_images: np.ndarray, structure_images: np.ndarray
) -> np.ndarray:
    """All swaps of n appearance and m structure images at once.

    Returns:
        (n, m, height, width, 3) uint8; [i, j] has appearance i and structure j.
    """
    shape = len(appearance_images), len(structure_images), *model.image_size, 3
    grid = np.empty(shape, np.uint8)
    for i, j, pictures in swap_batches(model, appearance_images, structure_images):
        grid[i, j] = pictures
    return grid
