"""Whether a long training, and many in one process, hold on to memory, threads or descriptors.

    python -m benchmarks.soak --steps 5000 --runs 20

trains a tiny DG-Net on drawn people with frequent pictures, evaluations and checkpoints, then 20
short ones after each other. It prints what the process holds (Linux: /proc) along the way, and the
growth per thousand steps and per run after the start, when everything is compiled and cached.
"""

import argparse
import gc
import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from configs import base
from dgnet_jax.data.synthetic import draw_dataset
from dgnet_jax.training.trainer import train


class Held(NamedTuple):
    """What the process holds: resident memory in MB, threads, open file descriptors."""

    megabytes: float
    threads: int
    descriptors: int


def held() -> Held:
    """Now, after a garbage collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Held(
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")) - 1,  # without that of the listing
    )


def tiny(root: Path, steps: int) -> ml_collections.ConfigDict:
    """A DG-Net of a few thousand parameters on 32 x 16 images, all its terms from step 0 on."""
    config = base.get_config()
    config.data.name, config.data.root = "folder", str(root)
    config.data.height = config.data.cache_height = 32
    config.data.width = config.data.cache_width = 16
    config.augment.pad = 2
    config.structure_encoder.dim, config.structure_encoder.num_residual = 4, 1
    config.structure_encoder.dilations = (2,)
    config.decoder.num_residual, config.decoder.mlp_width = 1, 8
    config.discriminator.dim = 4
    config.discriminator.num_residual = config.discriminator.num_scales = 1
    for network in (config.appearance, config.teacher):
        network.bottleneck, network.stem = False, "strided"
        network.stage_sizes, network.stage_widths, network.embedding = (1,), (4,), 8
    config.appearance.init = "teacher"
    config.batch_size = config.teacher.batch_size = 4
    config.teacher.total_steps, config.teacher.milestones = 10, ()
    config.ramp.start, config.ramp.scale = -2, 0.1
    config.total_steps, config.optimizer.milestones = steps, ()
    config.evaluation.batch_size = 16
    config.evaluation.every_steps = config.log.image_every_steps = 50
    config.log.checkpoint_every_steps = 25
    config.log.every_steps, config.log.image_rows = 10, 2
    return config


def growth(points: list[tuple[float, Held]]) -> dict[str, float]:
    """Slopes of straight lines through the points, in what is held for one more x."""
    x = np.array([place for place, _ in points])
    values = np.array([amount for _, amount in points], float)
    slopes = np.polyfit(x, values, 1)[0]
    return dict(zip(Held._fields, map(float, slopes), strict=True))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", type=int, default=5000, help="of the long run")
    parser.add_argument("--runs", type=int, default=20, help="short ones in the same process")
    parser.add_argument("--every", type=int, default=250, help="steps between measurements")
    arguments = parser.parse_args()
    if arguments.steps < 5 * arguments.every or arguments.runs < 5:
        parser.error("--steps: 5 times --every or more; --runs: 5 or more")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_dataset(
            folder / "data",
            train_identities=8,
            test_identities=4,
            images_per_identity_camera=2,
            height=32,
            width=16,
        )
        along: list[tuple[float, Held]] = []

        def progress(done: int) -> None:
            if done % arguments.every == 0:
                along.append((done / 1000, held()))
                print(f"step {done}: {along[-1][1]}", flush=True)

        train(tiny(folder / "data", arguments.steps), folder / "long", progress=progress)
        runs: list[tuple[float, Held]] = []
        for run in range(arguments.runs):
            train(tiny(folder / "data", 30), folder / f"run{run}")
            runs.append((run, held()))
            print(f"run {run}: {runs[-1][1]}", flush=True)
    # The first fifth compiles and fills caches.
    found = {
        "growth per 1000 steps": growth(along[len(along) // 5 :]),
        "growth per run": growth(runs[len(runs) // 5 :]),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
