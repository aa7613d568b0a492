"""Straight lines between two appearances, or two structures (Zheng et al., CVPR 2019, figure 6)."""

import numpy as np

from dgnet_jax.inference import DGNet


def interpolate_appearance(
    model: DGNet, first: np.ndarray, last: np.ndarray, structure: np.ndarray, frames: int
) -> np.ndarray:
    """One structure, its appearance going from that of one image to that of another.

    Args:
        first, last, structure: images (rows, columns, 3) uint8.
        frames: 2 or more, the two ends among them.

    Returns:
        (frames, height, width, 3) uint8.
    """
    codes = np.concatenate([model.appearance_codes(image[None]) for image in (first, last)])
    structure_code = model.structure_codes(structure[None])
    return model.decode(np.repeat(structure_code, frames, axis=0), _between(codes, frames))


def interpolate_structure(
    model: DGNet, first: np.ndarray, last: np.ndarray, appearance: np.ndarray, frames: int
) -> np.ndarray:
    """One appearance, its structure going from that of one image to that of another.

    Args and result: as `interpolate_appearance`.
    """
    codes = np.concatenate([model.structure_codes(image[None]) for image in (first, last)])
    appearance_code = model.appearance_codes(appearance[None])
    return model.decode(_between(codes, frames), np.repeat(appearance_code, frames, axis=0))


def _between(codes: np.ndarray, frames: int) -> np.ndarray:
    """(2, ...) to (frames, ...) on the line from the first to the second."""
    if frames < 2:
        raise ValueError(f"frames: {frames}, but an interpolation has at least its two ends")
    share = np.linspace(0, 1, frames, dtype=codes.dtype).reshape(-1, *[1] * (codes.ndim - 1))
    return (1 - share) * codes[0] + share * codes[1]
