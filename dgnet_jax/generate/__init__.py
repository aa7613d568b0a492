"""Pictures and data sets painted by a trained DG-Net: `launch.py --mode=generate`, and a library.

`swap` and `interpolate` have functions from an `inference.DGNet` to arrays, `dataset` writes a
synthetic re-ID data set; `tasks.generate` is the command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dgnet_jax.errors import InputError


@dataclass(frozen=True)
class GenerateOptions:
    """What the tasks of `tasks.generate` can be asked for; each is the flag of its name.

    Attributes:
        appearance, structure: images, or folders of images, that give their appearance or their
            structure. Empty: a seeded choice of training images; one empty: those of the other.
        seed: of every random choice of sources, 0 or above.
        count: swap: how many training images to choose (8 by default); dataset: training images in
            total (by default one for each real one, as for the FID).
        per_identity: dataset: training images of each identity, in the place of `count`.
        test_per_identity: dataset: query and gallery images of each person of the real queries; 0
            for training images only.
        soft_labels: dataset: whether the teacher's soft labels are written.
        quality: dataset: of the JPEGs, 1 to 95; 75 is the FID protocol's.
        frames: interpolate: pictures of a strip, 2 or more.
        animation: interpolate: form of the animations.

    Raises:
        InputError: a number is out of range.
    """

    appearance: Sequence[str | Path] = ()
    structure: Sequence[str | Path] = ()
    seed: int = 0
    count: int | None = None
    per_identity: int | None = None
    test_per_identity: int = 2
    soft_labels: bool = True
    quality: int = 75
    frames: int = 9
    animation: Literal["gif", "webp"] = "gif"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("seed", 0, None),
            ("count", 1, None),
            ("test_per_identity", 0, None),
            ("quality", 1, 95),
            ("frames", 2, None),
        ):
            value = getattr(self, name)
            if value is not None and (value < low or (high is not None and value > high)):
                limits = f"{low} or more" if high is None else f"{low} to {high}"
                raise InputError(f"--{name}: found {value}. Give {limits}")
        if self.animation not in ("gif", "webp"):
            raise InputError(f"--animation: found {self.animation!r}, neither 'gif' nor 'webp'")
