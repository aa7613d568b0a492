"""What the generators of a study paint from the same images: the thesis's figures 5.4 to 5.10."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dgnet_jax.ablation.report.runs import Run
from dgnet_jax.config import trained_config
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.fid_protocol import resize_bicubic
from dgnet_jax.figures import image_grid, swap_matrix
from dgnet_jax.generate.swap import swap_grid
from dgnet_jax.inference import load_model

# Images a batch: the study's own would mostly be filled with padding.
_BATCH = 32
# Rows of pixels that an image has in a figure, at least; and in an enlarged one. Images grow by
# whole factors.
_ROWS, _ENLARGED_ROWS = 128, 384


class Painting(NamedTuple):
    """What one run makes of the chosen images.

    Attributes:
        run: whose generator it is.
        step: of the checkpoint.
        originals: (n, height, width, 3) uint8, the chosen images in the network's size.
        swapped: (n, n, height, width, 3) uint8; [i, j] has appearance i and structure j.
    """

    run: Run
    step: int
    originals: np.ndarray
    swapped: np.ndarray

    @property
    def title(self) -> str:
        """Loss, and its FID or that it diverged, for above a column."""
        if self.run.diverged:
            return f"{self.run.label}\ndiverged"
        fid = self.run.result.get("fid_png")
        return self.run.label if fid is None else f"{self.run.label}\nFID {fid:.2f}"


def paint(run: Run, images: np.ndarray) -> Painting:
    """Paints all swaps of (n, rows, columns, 3) uint8 images with a run's latest checkpoint.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    config = trained_config(str(run.workdir))
    config.evaluation.batch_size = min(config.evaluation.batch_size, _BATCH)
    model = load_model(config, run.workdir)
    originals = resize_bicubic(images, *model.image_size)
    return Painting(run, model.step, originals, swap_grid(model, images, images))


def paint_first(runs: Sequence[Run], images: np.ndarray) -> Painting | str:
    """Paints with the first run that can; finished ones go first. Says why if none can."""
    reason = "no run"
    for run in sorted(runs, key=lambda run: (run.diverged, run.seed)):
        try:
            return paint(run, images)
        except InputError as error:
            reason = f"seed {run.seed}: {error}"
    return reason


def side_by_side(paintings: Sequence[Painting]) -> Image.Image:
    """The same pairs of inputs and what each loss makes of them (figures 5.4 and 5.5).

    A row has an appearance, a structure, and for each loss the second dressed as the first.
    """
    return _rows_of(paintings, range(len(paintings[0].originals)), _ROWS)


def enlarged_pair(first: Painting, second: Painting, index: int) -> Image.Image:
    """Two losses beside each other on one appearance and one structure, enlarged (5.9, 5.10).

    Pixels become squares, so that nothing is smoothed.

    Args:
        first, second: of the losses.
        index: of the appearance among the chosen images.
    """
    return _rows_of((first, second), (index,), _ENLARGED_ROWS)


def swaps(painting: Painting) -> Image.Image:
    """Every appearance on every structure (figures 5.6 and 5.7)."""
    originals = list(painting.originals)
    return swap_matrix(originals, originals, painting.swapped, scale=_scale(painting, _ROWS))


def enlarged(painting: Painting) -> Image.Image:
    """A pair of images of one loss enlarged: rebuilt, and with swapped clothes."""
    swapped, count = painting.swapped, len(painting.originals)
    other = _partner(0, count)
    rows: list[list[np.ndarray | None]] = [
        [painting.originals[0], swapped[0, 0], swapped[0, other]],
        [painting.originals[other], swapped[other, other], swapped[other, 0]],
    ]
    titles = ("input", "rebuilt from its own codes", "its appearance on the other's structure")
    return image_grid(rows, column_titles=titles, scale=_scale(painting, _ENLARGED_ROWS))


def metadata(painting: Painting) -> dict[str, str]:
    """What a picture says about itself."""
    run = painting.run
    return {"loss": run.label, "seed": str(run.seed), "step": str(painting.step)}


def _rows_of(
    paintings: Sequence[Painting], indices: Iterable[int], rows_of_pixels: int
) -> Image.Image:
    """A row for each appearance: it, the structure, and what each loss makes of the two."""
    first = paintings[0]
    rows = []
    for index in indices:
        other = _partner(index, len(first.originals))
        inputs = [first.originals[index], first.originals[other]]
        rows.append([*inputs, *(painting.swapped[index, other] for painting in paintings)])
    titles = ["appearance", "structure", *(painting.title for painting in paintings)]
    return image_grid(rows, column_titles=titles, scale=_scale(first, rows_of_pixels))


def _partner(index: int, count: int) -> int:
    """Whose structure image `index` gets."""
    return (index + 1) % count


def _scale(painting: Painting, rows: int) -> int:
    return -(-rows // painting.originals.shape[1])
