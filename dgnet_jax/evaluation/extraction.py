"""Inception features of images on the host, in batches over all devices."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from dgnet_jax.models.inception import inception_features, load_inception
from dgnet_jax.runtime.devices import Placement, place, run_batches
from dgnet_jax.runtime.provenance import checksum

BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class InceptionExtractor:
    """Images of one size to features.

    Attributes:
        params: of `Inception(dims)`, on the devices.
        dims: 64, 192, 768 or 2048.
        batch_size: images per call over all devices.
        name: the network, its dims and a sum of its weights; another name means other features.
    """

    params: Any
    dims: int
    batch_size: int
    name: str
    placement: Placement

    def __call__(
        self, images: UInt8[np.ndarray, "n height width 3"]
    ) -> Float[np.ndarray, "n {self.dims}"]:
        function = partial(_features, self.params, dims=self.dims)
        return run_batches(
            function, images, batch_size=self.batch_size, sharding=self.placement.sharded
        )


@partial(jax.jit, static_argnames="dims")
def _features(
    params: Any, images: UInt8[Array, "n height width 3"], dims: int
) -> Float[Array, "n {dims}"]:
    # A measure, so in full float32 wherever it runs, not in TensorFloat-32 or bfloat16.
    with jax.default_matmul_precision("highest"):
        return inception_features(params, images, dims)


def load_extractor(
    weights: str | Path, dims: int = 2048, batch_size: int = BATCH_SIZE
) -> InceptionExtractor:
    """The FID Inception from a .safetensors file.

    Args:
        weights: in pytorch-fid's names, as `python -m dgnet_jax.convert` writes it.
        dims: 64, 192, 768 or 2048.
        batch_size: rounded up to a multiple of the devices.

    Raises:
        InputError: the file is missing, unreadable, or lacks what `dims` needs.
    """
    params = load_inception(weights, dims)
    placement = place()
    return InceptionExtractor(
        placement.put_state(params),
        dims,
        placement.round_up("evaluation.batch_size", batch_size),
        f"inception-2015-12-05 {dims} {checksum(params):08x}",
        placement,
    )
