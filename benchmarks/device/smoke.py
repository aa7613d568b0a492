"""Both calls of a lease with tiny networks on drawn images, on a CPU."""

import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.device import pack
from benchmarks.device.lease import Place, run_call
from benchmarks.device.presets import SMOKE
from benchmarks.device.stages import Row
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.models.inception import parameter_shapes

_PATIENCE = 1800.0
_INCEPTION_DIMS = 64


def write_weights(folder: Path) -> None:
    """Random weights in the place of real ones: a few tensors of ResNet-50's, a small Inception."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    stem = {"conv1.weight": rng.standard_normal((64, 3, 7, 7)).astype(np.float32)}
    save_file(stem, folder / "resnet50-drawn.safetensors")
    tensors = {}
    for (layer, leaf), shape in parameter_shapes(_INCEPTION_DIMS).items():
        if leaf == "kernel":
            values = rng.standard_normal((*shape[:1:-1], *shape[:2])) / np.sqrt(shape[2] * 9)
            tensors[f"{layer}.conv.weight"] = values.astype(np.float32)
        else:
            for name in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{layer}.bn.{name}"] = rng.random(shape, np.float32)
    save_file(tensors, folder / "fid-inception-drawn.safetensors")


def make_packs(folder: Path) -> None:
    """Draws a data set of few people and packs it: `folder`/first and `folder`/second."""
    drawn = folder / "drawn"
    draw_dataset(
        drawn,
        train_identities=5,
        test_identities=3,
        images_per_identity_camera=2,
        distractors=2,
        junk=2,
        height=32,
        width=16,
    )
    write_weights(folder / "weights")
    dataset = load_dataset("market1501", drawn)
    pack.write_pack(
        folder / "first",
        pack.LIMIT_MIB,
        archive=pack.training_images(dataset),
        weights=pack.find_weights(folder / "weights"),
    )
    pack.write_pack(folder / "second", pack.LIMIT_MIB, archive=pack.test_images(dataset))


def smoke(folder: Path, out: Path) -> list[Row]:
    """Packs, makes both calls, and returns all rows.

    Args:
        folder: for everything on the way.
        out: what a call brings back.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    make_packs(folder)
    rows = []
    for call in ("first", "second"):
        place = Place(folder / "work", folder / call, out)
        rows += run_call(call, SMOKE, place, _PATIENCE)
    return rows
