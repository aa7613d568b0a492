"""Unpacks a pack on the borrowed machine; only the standard library, nothing else is there yet.

    python -m benchmarks.device.unpack PACK_FOLDER WORK_FOLDER

WORK_FOLDER gets `site` (installed wheels), `data` (images, one call's beside the other's),
`weights` and `shared/reference`. Prints one JSON line.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

# The name of the data set's folder, which its reader looks for.
DATA = "Market-1501-v15.09.15"


def unpack(pack: Path, work: Path) -> dict[str, int]:
    """Returns the numbers of images, weight files, reference files and wheels."""
    counts = {"images": 0, "weights": 0, "reference": 0, "wheels": 0}
    data = work / "data" / DATA
    data.mkdir(parents=True, exist_ok=True)
    with tarfile.open(pack / "images.tar.xz") as archive:
        for entry in archive:
            archive.extract(entry, data, filter="data")
            counts["images"] += 1
    expected = json.loads((pack / "pack.json").read_text())["images"]
    if counts["images"] != expected:
        raise ValueError(f"{pack}: {counts['images']} images, packed were {expected}")
    for name, target in (("weights", work / "weights"), ("reference", work / "shared/reference")):
        for file in sorted(pack.glob(f"{name}/*")):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.name)
            counts[name] += 1
    wheels = sorted(map(str, pack.glob("wheels/*.whl")))
    if wheels:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-compile", "--upgrade", f"--target={work / 'site'}", *wheels]
        subprocess.run(command, check=True)
        counts["wheels"] = len(wheels)
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser("python -m benchmarks.device.unpack", description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args(argv)
    try:
        counts = unpack(arguments.pack, arguments.work)
    except (OSError, ValueError, tarfile.TarError, subprocess.CalledProcessError) as error:
        parser.exit(1, f"error: {arguments.pack} cannot be unpacked: {error}\n")
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
