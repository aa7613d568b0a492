"""Reading `dgnet_step.npz` and making its inputs and weights (shared/reference/README.md)."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np


def seeded(text: str) -> np.random.Generator:
    """The generator of a name."""
    return np.random.default_rng(zlib.crc32(text.encode()))


def fill(shapes: dict[str, list[int]], seed_text: Callable[[str], str]) -> dict[str, np.ndarray]:
    """A state dict filled by the rule of the reference's README: each tensor from its own name."""
    tenth, fifth, half, twentieth = (np.float32(x) for x in (0.1, 0.2, 0.5, 0.05))
    tensors = {}
    for key, shape in shapes.items():
        rng = seeded(seed_text(key))
        n = np.asarray(rng.standard_normal(tuple(shape)), np.float32)
        u = np.asarray(rng.random(tuple(shape)), np.float32)
        last = key.rpartition(".")[2]
        if last == "num_batches_tracked":
            value = np.zeros(shape)
        elif last == "running_mean":
            value = tenth * n
        elif last == "running_var":
            value = half + u
        elif last == "gamma":
            value = u
        elif last == "beta":
            value = tenth * n
        elif last == "bias":
            value = twentieth * n
        elif len(shape) == 1:
            value = tenth + fifth * u if ".bn3." in key else half + u
        else:
            value = n.astype(np.float64) * np.sqrt(2 / np.prod(shape[1:]))
        tensors[key] = np.asarray(value).astype(np.float32)
    return tensors


class Reference:
    """One reference file: `meta`, its numbers, and the inputs and weights that they belong to."""

    def __init__(self, path: Path, shapes_path: Path) -> None:
        self.numbers = dict(np.load(path))
        self.meta = json.loads(str(self.numbers.pop("meta")))
        self.shapes = json.loads(shapes_path.read_text())

    def weights(self, network: str) -> dict[str, np.ndarray]:
        """The filled state dict of gen, id, dis or teacher, for the file's number of identities."""
        shapes = {
            key: [self.meta["num_classes"], *shape[1:]] if ".classifier.0." in key else shape
            for key, shape in self._shapes(network).items()
        }
        return fill(shapes, lambda key: f"{self.meta['salt']}{network}.{key}")

    def _shapes(self, network: str) -> dict[str, list[int]]:
        return {
            key: shape
            for key, shape in self.shapes[network].items()
            if not (network == "teacher" and key.startswith("model.fc."))
        }

    def images(self, step: int, tag: str) -> np.ndarray:
        """Normalised images (batch, 256, 128, 3) of a step; tag: xa, xb, pa, pb."""
        rng = seeded(f"{self.meta['salt']}batch.{step}.{tag}")
        coarse = rng.standard_normal((self.meta["batch"], 3, 32, 16))
        return np.kron(coarse, np.ones((8, 8))).transpose(0, 2, 3, 1)

    def labels(self, step: int, tag: str) -> np.ndarray:
        """Identities (batch,) of a step; tag: la, lb."""
        rng = seeded(f"{self.meta['salt']}batch.{step}.{tag}")
        return rng.integers(0, self.meta["num_classes"], self.meta["batch"])

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The numbers whose name starts with a prefix, without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.numbers.items()
            if name.startswith(prefix)
        }
