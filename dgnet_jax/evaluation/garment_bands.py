"""How much of the garments' colours a swap moves, estimated on real images.

Nobody knows how a real person looks in somebody else's clothes. What can be measured is whether
the colours of the generated garments follow those of the appearance image or stay those of the
structure image. For each garment, over all pairs of n appearance and m structure images,

    y(i, j) = a t(i) + b s(j) + c

is fitted by least squares, one a and one b for L*, a* and b* together and one c for each. The
colours are means over masks in CIE Lab: y of the generated image in the mask of the structure
image, whose pose it has; t of the appearance image in its own mask; s of the structure image in
its own.

a (`band_transfer`) is the estimate of the share that is moved. It is 0 for a generator that copies
the structure image and for one that always paints the same. b (`band_structure`) is what stays of
the structure image's colours: 1 for the copy, 0 for the constant image. The mean of the two images
has about 0.5 and 0.5.

A perfect swap scores below 1, and its b above 0. The masks hold skin, bags and background too,
which are in y as they are in s; and camera and light are those of the structure image in y, but
those of the appearance image in t. Drawn people in exactly the other's clothes have an a of about
0.8, or 0.65 with fixed bands. The same fit on real images shows how much that can be:
`band_transfer_real` takes for y another image of the appearance's identity, by another camera
where there is one, in its own mask. A swap that brings clothes into another camera's light as well
as reality does scores this much. It is no bound: y may follow the one image that t is measured on
more closely than a second image of the same clothes does, and score between it and 1.

The masks come from the joints of `data.poses` where shoulders, hips and a knee are found: the
trunk between shoulders and hips, and the thighs, which trousers, shorts and skirts all cover.
Otherwise they are fixed bands, where most people of Market-1501 wear shirt and trousers; they hold
more that is no garment, so all estimates are lower.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8
from PIL import Image, ImageDraw

from dgnet_jax.data.drawing.figure import KEYPOINTS
from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.data.poses import HEIGHT, WIDTH
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.diversity import rgb_to_lab
from dgnet_jax.evaluation.fid_protocol import resize_bicubic
from dgnet_jax.evaluation.truth import LEAST_VARIATION
from dgnet_jax.runtime.devices import run_batches

GARMENTS = ("top", "lower")
PEOPLE = 24
"""Identities that give an appearance image, and as many others that give a structure image."""
REFERENCE = 750
"""Identities, at most, of the reference on real images; Market-1501's gallery has no more."""

# n appearance images and n structure images to n generated ones.
Swap = Callable[[np.ndarray, np.ndarray], np.ndarray]
# The joints (18, 2) of an image, y and x in pixels of a 128 x 64 image, -1 where not found.
Pose = Int[np.ndarray, "18 2"]
Results = dict[str, float | int | bool | str]

_LEAST = 4
_BATCH = 64
# Second word of the seed sequence, so that the choice is independent of other draws.
_CHOICE = 901

_SHOULDERS, _HIPS, _KNEES = (
    [KEYPOINTS.index(f"{side} {joint}") for side in ("right", "left")]
    for joint in ("shoulder", "hip", "knee")
)
# Shares of the way from shoulders to hips and from hip to knee that are taken. Many shirts end
# below the hips, and many shorts above the knees.
_TRUNK, _THIGH = (0.05, 0.80), (0.25, 0.75)
# The trunk's width, of that between the joints; and the least one in profile and that of a thigh,
# of the length from shoulders to hips.
_NARROWED, _PROFILE, _THICKNESS = 0.9, 0.30, 0.35
# First and last row, first and last column, in shares of the image.
_BANDS = {"top": (0.20, 0.42, 0.30, 0.70), "lower": (0.52, 0.70, 0.30, 0.70)}


class Masks(NamedTuple):
    """Where the garments of n images are.

    Attributes:
        garments: (n, 2, height, width), in the order of `GARMENTS`; each has a pixel.
        posed: whether an image's masks come from its joints.
    """

    garments: Bool[np.ndarray, "n 2 height width"]
    posed: Bool[np.ndarray, " n"]


class Choice(NamedTuple):
    """Rows of a split: of appearance and structure images, and pairs of one identity's images.

    `reference` is empty where no identity has two images.
    """

    appearances: Int[np.ndarray, " n"]
    structures: Int[np.ndarray, " n"]
    reference: Int[np.ndarray, "pairs 2"]


def measure_garments(
    swap: Swap, split: CachedSplit, poses: Mapping[str, np.ndarray], seed: int
) -> Results:
    """Measures a generator on people of a split, best of those whom training has not seen.

    Args:
        swap: n appearance images and n structure images, (n, rows, columns, 3) uint8, to n
            generated images of any one size; `DGNet.swap`.
        split: the images; junk and distractors are left out.
        poses: file names to joints, from `read_poses`; empty uses fixed bands.
        seed: of the choice of people and images, which does not depend on `poses`.

    Returns:
        What `measure_bands` returns; the same fits on real images, with `_real` appended, if four
        people have two images;
        `band_appearances` and `band_structures`, the numbers of images, each of another identity,
        and `band_posed`, how many of these have masks from joints; `band_real_pairs`,
        `band_real_images` and `band_real_posed` of the reference. Or `bands_missing`, why there is
        nothing.

    Raises:
        InputError: there are poses, but none of an image of the split.
    """
    people = len(np.unique(split.identities[split.identities > 0]))
    if people < 2 * _LEAST:
        return {
            "bands_missing": f"the garments' colours are not measured: {people} people in the "
            f"gallery; at least {2 * _LEAST} are needed"
        }
    check_poses(split, poses)
    choice = choose_images(split, seed)
    structures = split.images[choice.structures]
    rows = [
        swap(np.repeat(split.images[[row]], len(structures), axis=0), structures)
        for row in choice.appearances
    ]
    generated = np.stack(rows)
    size = generated.shape[2:4]
    worn, wanted = (
        garment_masks(_poses_of(split, rows, poses), *size)
        for rows in (choice.appearances, choice.structures)
    )
    results: Results = dict(
        measure_bands(
            generated,
            resize_bicubic(split.images[choice.appearances], *size),
            resize_bicubic(structures, *size),
            worn.garments,
            wanted.garments,
        )
    )
    results |= {
        "band_appearances": len(worn.posed),
        "band_structures": len(wanted.posed),
        "band_posed": int(worn.posed.sum() + wanted.posed.sum()),
    }
    return results | _reference(split, choice.reference, poses)


def choose_images(split: CachedSplit, seed: int) -> Choice:
    """Up to `PEOPLE` appearances, as many structures of other people, and `REFERENCE` people.

    A person's images are taken in a random order: the first is the appearance or the structure.
    In the reference it goes with one image by each other camera, or with one by its own if there
    is no other.
    """
    rng = np.random.default_rng([seed, _CHOICE])
    order = rng.permutation(np.flatnonzero(split.identities > 0))
    people = rng.permutation(np.unique(split.identities[order]))
    rows = [order[split.identities[order] == person] for person in people[:REFERENCE]]
    half = min(PEOPLE, len(rows) // 2)
    firsts = np.array([row[0] for row in rows[: 2 * half]])
    pairs = [pair for row in rows for pair in _partners(row, split.cameras[row])]
    reference = np.array(pairs, np.int64).reshape(-1, 2)
    return Choice(firsts[:half], firsts[half:], reference)


def _partners(
    rows: Int[np.ndarray, " images"], cameras: Int[np.ndarray, " images"]
) -> list[tuple[int, int]]:
    """Pairs of a person's first image with others."""
    _, firsts = np.unique(cameras, return_index=True)
    others = [first for first in firsts if cameras[first] != cameras[0]]
    if not others and len(rows) > 1:
        others = [1]
    return [(int(rows[0]), int(rows[other])) for other in others]


def measure_bands(
    generated: UInt8[np.ndarray, "n m height width 3"],
    appearances: UInt8[np.ndarray, "n height width 3"],
    structures: UInt8[np.ndarray, "m height width 3"],
    appearance_masks: Bool[np.ndarray, "n 2 height width"],
    structure_masks: Bool[np.ndarray, "m 2 height width"],
) -> dict[str, float]:
    """Fits the generated garments' colours to those of both images, as the module describes.

    Args:
        generated: the swap of appearance i on structure j.
        appearances, structures: the real images, at the generated ones' size.
        appearance_masks, structure_masks: of `garment_masks`, in the order of `GARMENTS`.

    Returns:
        `band_transfer_GARMENT` (a) and `band_structure_GARMENT` (b); the same of L* alone as
        `band_transfer_GARMENT_lightness` and `band_structure_GARMENT_lightness`; `band_transfer`,
        the mean of a over the garments. A colour that all images share has a coefficient of 0.

    Raises:
        InputError: a mask is empty.
    """
    worn = mean_colours(appearances, appearance_masks)
    present = mean_colours(structures, structure_masks)
    painted = np.stack([mean_colours(row, structure_masks) for row in generated])
    return _fits(painted, worn[:, None], present[None])


def mean_colours(
    images: UInt8[np.ndarray, "n height width 3"], masks: Bool[np.ndarray, "n 2 height width"]
) -> Float32[np.ndarray, "n 2 3"]:
    """The mean CIE Lab of each image in each of its masks.

    Raises:
        InputError: a mask is empty.
    """
    if not masks.any(axis=(2, 3)).all():
        raise InputError("masks of garments: one is empty; give each at least a pixel")
    return run_batches(_mean_colours, images, masks, batch_size=min(_BATCH, len(images)))


@jax.jit
def _mean_colours(
    images: UInt8[Array, "n height width 3"], masks: Bool[Array, "n 2 height width"]
) -> Float[Array, "n 2 3"]:
    weights = masks.astype(jnp.float32)
    lab = rgb_to_lab(images)
    sums = jnp.einsum("nghw,nhwc->ngc", weights, lab, precision=jax.lax.Precision.HIGHEST)
    # Batches are filled up with zeros, whose masks are empty.
    return sums / jnp.maximum(weights.sum((2, 3)), 1)[..., None]


def _fits(target: np.ndarray, *sources: np.ndarray) -> dict[str, float]:
    """The coefficients of appearance and structure, of each garment, in Lab and in L* alone.

    Args:
        target, sources: (..., 2, 3) mean colours that broadcast against each other; the sources
            are the appearance's and, where there is one, the structure's.
    """
    results: dict[str, float] = {}
    for index, garment in enumerate(GARMENTS):
        for suffix, channels in (("", slice(None)), ("_lightness", slice(1))):
            chosen = [colours[..., index, channels] for colours in (target, *sources)]
            found = _coefficients(*chosen)
            for name, value in zip(("transfer", "structure"), found, strict=False):
                results[f"band_{name}_{garment}{suffix}"] = value
    transfers = [results[f"band_transfer_{garment}"] for garment in GARMENTS]
    return {"band_transfer": float(np.mean(transfers)), **results}


def _coefficients(target: np.ndarray, *sources: np.ndarray) -> list[float]:
    """Least squares of arrays (..., channels), each channel around its mean over the pairs."""
    pairs = np.broadcast_arrays(*(array.astype(np.float64) for array in (target, *sources)))
    flat = [array.reshape(-1, array.shape[-1]) for array in pairs]
    centred = [(array - array.mean(axis=0)).ravel() for array in flat]
    for source in centred[1:]:
        if np.mean(source**2) <= LEAST_VARIATION:
            source[:] = 0
    return np.linalg.lstsq(np.stack(centred[1:], axis=1), centred[0])[0].tolist()


def _reference(
    split: CachedSplit,
    pairs: Int[np.ndarray, "pairs 2"],
    poses: Mapping[str, np.ndarray],
) -> Results:
    """The fits on real images, at their own size; nothing without pairs of a few people."""
    if len(np.unique(pairs[:, 0])) < _LEAST:
        return {}
    rows, places = np.unique(pairs, return_inverse=True)
    masks = garment_masks(_poses_of(split, rows, poses), *split.images.shape[1:3])
    colours = mean_colours(split.images[rows], masks.garments)
    first, second = places.reshape(pairs.shape).T
    fits = _fits(colours[second], colours[first])
    results: Results = {f"{name}_real": value for name, value in fits.items()}
    return results | {
        "band_real_pairs": len(pairs),
        "band_real_images": len(rows),
        "band_real_posed": int(masks.posed.sum()),
    }


def _poses_of(
    split: CachedSplit, rows: Int[np.ndarray, " n"], poses: Mapping[str, np.ndarray]
) -> list[np.ndarray | None]:
    if not poses:
        return [None] * len(rows)
    return [poses.get(PurePosixPath(split.files[row]).name) for row in rows]


def check_poses(split: CachedSplit, poses: Mapping[str, np.ndarray]) -> None:
    """Raises InputError if there are poses, but none of an image of the split."""
    if poses and not any(PurePosixPath(file).name in poses for file in split.files):
        raise InputError(
            f"--config.data.poses: found {len(poses)} poses, such as {next(iter(poses))}, but none "
            f"of the {len(split.files)} gallery images, such as {split.files[0]}; name the file "
            "of the gallery's keypoints, or leave it empty"
        )


def garment_masks(poses: Sequence[Pose | None], height: int, width: int) -> Masks:
    """Where the garments of images are.

    Args:
        poses: the images' joints, or None for those without.
        height, width: of the masks in pixels; of any image, that of the poses is 128 x 64.
    """
    masks, posed = [], []
    for pose in poses:
        usable = pose is not None and _is_usable(pose)
        posed.append(usable)
        if pose is not None and usable:
            masks.append(np.stack(_pose_masks(pose, height, width)))
        else:
            masks.append(np.stack([_band(*_BANDS[name], height, width) for name in GARMENTS]))
    return Masks(np.stack(masks), np.array(posed))


def _is_usable(pose: Pose) -> bool:
    trunk, knees = pose[[*_SHOULDERS, *_HIPS]] >= 0, pose[_KNEES] >= 0
    return bool(trunk.all() and knees.all(axis=1).any())


def _pose_masks(pose: Pose, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The masks (height, width) of trunk and thighs of a usable pose."""
    # Pillow's x and y; a pixel's joint is in its middle.
    joints = ((pose + 0.5) * [height / HEIGHT, width / WIDTH] - 0.5)[:, ::-1]
    shoulders, hips = joints[_SHOULDERS], joints[_HIPS]
    neck, pelvis = shoulders.mean(axis=0), hips.mean(axis=0)
    length = float(np.linalg.norm(pelvis - neck))
    trunk, thighs = (Image.new("1", (width, height)) for _ in GARMENTS)
    pen = ImageDraw.Draw(trunk)
    upper, lower = (
        neck + _NARROWED * (shoulders - neck),
        pelvis + _NARROWED * (hips - pelvis),
    )
    right, left = (_between(upper[side], lower[side], _TRUNK) for side in (0, 1))
    pen.polygon(_points([*right, *left[::-1]]), fill=1)
    _line(pen, _between(neck, pelvis, _TRUNK), _PROFILE * length)
    pen = ImageDraw.Draw(thighs)
    for hip, knee in zip(_HIPS, _KNEES, strict=True):
        if (pose[knee] >= 0).all():
            _line(pen, _between(joints[hip], joints[knee], _THIGH), _THICKNESS * length)
    return np.asarray(trunk), np.asarray(thighs)


def _between(start: np.ndarray, end: np.ndarray, shares: tuple[float, float]) -> list[np.ndarray]:
    """Two points on the way."""
    return [start + share * (end - start) for share in shares]


def _line(pen: ImageDraw.ImageDraw, ends: Sequence[np.ndarray], thickness: float) -> None:
    pen.line(_points(ends), fill=1, width=max(1, round(thickness)))


def _points(points: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _band(
    first_row: float, last_row: float, first_column: float, last_column: float, *size: int
) -> np.ndarray:
    """A rectangle in an image of `size`, of at least a pixel."""
    height, width = size
    mask = np.zeros((height, width), bool)
    rows, columns = (
        slice(int(first * count), max(int(first * count) + 1, round(last * count)))
        for first, last, count in (
            (first_row, last_row, height),
            (first_column, last_column, width),
        )
    )
    mask[rows, columns] = True
    return mask
