"""Swaps of a drawn data set against their truth (docs/method.md, section 7.10).

Where anybody can be drawn in the clothes of anybody else, a swap has a right answer, and what a
generator makes can be compared with it pixel by pixel and garment by garment.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from dgnet_jax.data.drawing.wardrobe import PARTS
from dgnet_jax.data.synthetic import Settings, TrueSwaps, choose_shots, draw_true_swaps
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.diversity import DATA_RANGE, rgb_to_lab
from dgnet_jax.losses.similarity import GAUSSIAN, ssim

GARMENTS = ("top", "lower", "shoes")
"""The parts that the appearance transfer is measured on; lower are trousers, shorts or a skirt."""

COLOURED = (*GARMENTS, "hair", "skin", "background")
"""The parts whose colour errors are measured."""

LEAST_VARIATION = 1e-6
"""Variance of a garment's colour below which it is one colour: that of float32's rounding."""

Swaps = UInt8[np.ndarray, "n m height width 3"]


@lru_cache(maxsize=4)
def chosen_swaps(settings: Settings, count: int, seed: int, height: int, width: int) -> TrueSwaps:
    """The true swaps of `choose_shots`, drawn once: runs of a study share them.

    Args:
        settings: of the data set.
        count, seed: of the choice of test people.
        height, width: of the generator's images.
    """
    return draw_true_swaps(settings, *choose_shots(settings, count, seed), height, width)


def measure_truth(generated: Swaps, swaps: TrueSwaps) -> dict[str, float]:
    """All measures of generated swaps against the truth.

    Colours are in CIE Lab (D65), masks are those of the truth's parts.

    - `appearance_transfer`, the mean of `truth_transfer_top`, `_lower` and `_shoes`, weighted by
      the garments' areas: how much of a garment's colour follows the appearance image, see
      `transfer`. `truth_structure_colour_top`, ...: how much follows the structure image still.
    - `structure_kept`: the mean SSIM of L* between swap and truth. Not between swap and structure
      image, as is usual where there is no truth: a right swap changes the brightness of clothes,
      so it would score below a generator that changes nothing.
    - `truth_ssim`: the same over L*, a* and b*.
    - `truth_l1`: the mean absolute difference to the truth in shares of 255.
    - `truth_colour_error_top`, ... of `COLOURED`: the mean CIEDE2000 of a part's pixels; of the
      background it is outside of the truth's person, where truth and structure image agree but
      for outlines and for clothes of the structure image that are wider or longer.
    - Those of the last four groups with `_copy` at the end: of the structure image itself, what a
      generator would get that ignores the appearance.
    - `truth_pairs`: how many swaps.

    What a mask without any pixel would be needed for is left out.

    Args:
        generated: [i, j] has appearance i of `swaps` and structure j.
        swaps: the truth.

    Raises:
        InputError: fewer than two appearances or structures, another shape than the truth's, or
            images smaller than SSIM's window.
    """
    _check(generated, swaps)
    copies = np.broadcast_to(swaps.structures, swaps.truth.shape)
    results = transfer(generated, swaps) | _differences(generated, swaps)
    results |= {f"{name}_copy": value for name, value in _differences(copies, swaps).items()}
    return results | {"truth_pairs": generated.shape[0] * generated.shape[1]}


def measure_in_short(generated: Swaps, swaps: TrueSwaps) -> dict[str, float]:
    """`appearance_transfer`, `structure_kept` and `structure_kept_copy` of `measure_truth`."""
    _check(generated, swaps)
    copies = np.broadcast_to(swaps.structures, swaps.truth.shape)
    found = transfer(generated, swaps)
    results = {name: found[name] for name in ("appearance_transfer",) if name in found}
    results["structure_kept"] = _structure_kept(generated, swaps.truth)
    results["structure_kept_copy"] = _structure_kept(copies, swaps.truth)
    return results


def transfer(generated: Swaps, swaps: TrueSwaps) -> dict[str, float]:
    """How far the colours of garments follow the appearance image, and the structure image.

    Over the truth's mask of a garment, swap [i, j] has a mean colour y, its truth t and its
    structure image s. By least squares over all swaps, weighted by the area of the mask,

        y = a t + b s + c_j,    then, with this a,    y - a t = b s + c

    where c_j is a constant for each structure and each of L*, a* and b*, and c for each of L*, a*
    and b*. a is the transfer: 1 for the truth, 0 where the appearance image has no say, be it that
    a generator copies the structure image (b = 1), or paints one colour or noise. Halfway between
    truth and structure it is 0.5. Structures have constants of their own in the first fit because
    t has their light: clothes of any colour in the light of the scene would follow it a little.

    The share of the way from s to t on which y lies would not do: the mean colour of all clothes
    lies about halfway between any two of them, so a gray blur would score 0.5.

    Returns:
        `truth_transfer_GARMENT` (a) and `truth_structure_colour_GARMENT` (b), without garments
        that are nowhere to be seen or in one colour throughout; and `appearance_transfer`, the mean
        of a, weighted by the garments' areas, if there is one.
    """
    results: dict[str, float] = {}
    transfers, areas = [], []
    for garment, colours in _mean_colours(generated, swaps).items():
        fitted = _fit(colours)
        if fitted is None:
            continue
        results[f"truth_transfer_{garment}"] = fitted[0]
        results[f"truth_structure_colour_{garment}"] = fitted[1]
        transfers.append(fitted[0])
        areas.append(colours.areas.sum())
    if not transfers:
        return results
    return {"appearance_transfer": float(np.average(transfers, weights=areas))} | results


class _Colours(NamedTuple):
    """Mean colours of a garment in CIE Lab, and its area in pixels; 0 where it is not seen."""

    generated: Float[np.ndarray, "n m 3"]
    truth: Float[np.ndarray, "n m 3"]
    structure: Float[np.ndarray, "n m 3"]
    areas: Float[np.ndarray, "n m"]


def _fit(colours: _Colours) -> tuple[float, float] | None:
    """a and b of `transfer`; None where t does not depend on the appearance, or s is constant."""
    weights = colours.areas[..., None]

    def centred(values: np.ndarray, axes: int | tuple[int, int]) -> np.ndarray:
        """Minus the mean over appearances, or over all swaps; in the metric of the weights."""
        areas = np.maximum(weights.sum(axes, keepdims=True), 1)
        mean = (weights * values).sum(axes, keepdims=True) / areas
        return (np.sqrt(weights) * (values - mean)).ravel()

    y, t, s = (centred(values, 0) for values in colours[:3])
    nothing = LEAST_VARIATION * max(colours.areas.sum(), 1)
    if t @ t <= nothing:
        return None
    (a, _), *_ = np.linalg.lstsq(np.stack([t, s], axis=1), y)
    rest, s = (centred(x, (0, 1)) for x in (colours.generated - a * colours.truth, colours[2]))
    return None if s @ s <= nothing else (float(a), float(rest @ s / (s @ s)))


def _mean_colours(generated: Swaps, swaps: TrueSwaps) -> dict[str, _Colours]:
    """Of each garment of `GARMENTS`."""
    structure = _lab(swaps.structures)
    sums, areas = [], []
    for painted, true, parts in zip(generated, swaps.truth, swaps.parts, strict=True):
        images = np.stack([_lab(painted), _lab(true), structure])
        masks = np.stack([parts == PARTS.index(garment) for garment in GARMENTS], axis=1)
        masks = masks.reshape(*masks.shape[:2], -1).astype(float)
        sums.append(masks @ images.reshape(*images.shape[:2], -1, 3))
        areas.append(masks.sum(-1))
    # Each is now (n, m, garments), the means with (which image, ...) and (..., channel) around.
    all_areas = np.stack(areas)
    means = np.stack(sums, axis=1) / np.maximum(all_areas, 1)[..., None]
    found = {}
    for place, garment in enumerate(GARMENTS):
        y, t, s = means[:, :, :, place]
        found[garment] = _Colours(y, t, s, all_areas[:, :, place])
    return found


def _differences(generated: Swaps, swaps: TrueSwaps) -> dict[str, float]:
    """The measures that compare a swap with its truth alone."""
    # Importing it takes longer than the rest of the package, and only drawn data needs it.
    from skimage.color import deltaE_ciede2000

    similarities, errors = [], []
    sums, areas = np.zeros(len(COLOURED)), np.zeros(len(COLOURED))
    for painted, true, parts in zip(generated, swaps.truth, swaps.parts, strict=True):
        similarities.append(np.asarray(_similarities(painted, true)))
        errors.append(np.abs(painted.astype(int) - true).mean())
        colour_errors = deltaE_ciede2000(_lab(painted), _lab(true))
        for place, mask in enumerate(_masks(parts)):
            sums[place] += colour_errors[mask].sum(dtype=float)
            areas[place] += mask.sum()
    lightness, *chroma = np.mean(similarities, axis=(0, 1), dtype=float).tolist()
    return {
        "structure_kept": lightness,
        "truth_ssim": (lightness + sum(chroma)) / 3,
        "truth_l1": float(np.mean(errors)) / 255,
    } | {
        f"truth_colour_error_{part}": float(total / area)
        for part, total, area in zip(COLOURED, sums, areas, strict=True)
        if area
    }


def _masks(parts: UInt8[np.ndarray, "m height width"]) -> Iterator[Bool[np.ndarray, "m h w"]]:
    """Of each part of `COLOURED`."""
    return (parts == PARTS.index(part) for part in COLOURED)


def _structure_kept(generated: Swaps, truth: Swaps) -> float:
    values = [
        _lightness_similarity(painted, true) for painted, true in zip(generated, truth, strict=True)
    ]
    return float(np.mean(values, dtype=float))


def _lab(images: UInt8[np.ndarray, "m height width 3"]) -> Float32[np.ndarray, "m height width 3"]:
    return np.asarray(_to_lab(images))


_to_lab = jax.jit(rgb_to_lab)


@jax.jit
def _lightness_similarity(
    first: UInt8[Array, "m height width 3"], second: UInt8[Array, "m height width 3"]
) -> Float[Array, " m"]:
    """SSIM of L* of pairs of RGB images."""
    return ssim(rgb_to_lab(first)[..., :1], rgb_to_lab(second)[..., :1], DATA_RANGE)


@jax.jit
def _similarities(
    first: UInt8[Array, "m height width 3"], second: UInt8[Array, "m height width 3"]
) -> Float[Array, "m 3"]:
    """SSIM of L*, a* and b* of pairs of RGB images."""
    pairs = zip(
        jnp.split(rgb_to_lab(first), 3, axis=-1),
        jnp.split(rgb_to_lab(second), 3, axis=-1),
        strict=True,
    )
    return jnp.stack([ssim(*pair, DATA_RANGE) for pair in pairs], axis=-1)


def unmeasurable(swaps: TrueSwaps) -> str:
    """Why nothing can be compared with these; empty if it can."""
    n, m, height, width, _ = swaps.truth.shape
    if min(n, m) < 2:
        return f"appearances: {n}, structures: {m}; two of each are needed to tell them apart"
    size = GAUSSIAN.size
    if min(height, width) < size:
        return (
            f"images of {height} x {width} pixels are smaller than SSIM's window of {size} x {size}"
        )
    return ""


def _check(generated: Swaps, swaps: TrueSwaps) -> None:
    reason = unmeasurable(swaps)
    if generated.shape != swaps.truth.shape:
        reason = f"images of shape {generated.shape}, the truth's is {swaps.truth.shape}"
    if reason:
        raise InputError(f"swaps against their truth: {reason}")
