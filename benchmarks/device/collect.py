"""Takes home what a run has made: few and small files.

    python -m benchmarks.device.collect WORK OUT [--evaluation WORK/evaluation.json]

copies the run's metrics and log, results of evaluations, and grids as JPEG into OUT, as far as they
are there. With --evaluation it prints that evaluation's numbers as one JSON line.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.device.training import run_folder

# Pixels of a grid's longer side, and of the largest file that is copied as it is.
_LONGEST = 1800
_LARGEST = 16 * 2**20


def collect(work: Path, out: Path) -> list[str]:
    """Copies what there is, and returns the names of its files."""
    run = run_folder(work)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for source in (
        run / "metrics.jsonl",
        work / "training.log",
        work / "evaluation.json",
    ):
        if source.is_file() and source.stat().st_size <= _LARGEST:
            shutil.copyfile(source, out / source.name)
            written.append(source.name)
    grids = {
        "swap.jpg": [run / "generated/swap/swap.png"],
        "training_swaps.jpg": sorted((run / "pictures").glob("swaps_*.png")),
    }
    for name, candidates in grids.items():
        if candidates and candidates[-1].is_file():
            with Image.open(candidates[-1]) as picture:
                small = picture.convert("RGB")
            small.thumbnail((_LONGEST, _LONGEST))
            small.save(out / name, quality=88)
            written.append(name)
    return written


def numbers(evaluation: Path) -> dict[str, Any]:
    """What an evaluation measured, without its configuration."""
    found = json.loads(evaluation.read_text())
    names = ("step", "ranking", "counts", "generated_images", "seconds", "device")
    return {name: found[name] for name in names}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.device.collect", description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--evaluation", type=Path)
    arguments = parser.parse_args(argv)
    collect(arguments.work, arguments.out)
    if arguments.evaluation:
        print(json.dumps(numbers(arguments.evaluation)), flush=True)


if __name__ == "__main__":
    main()
