"""Embeds a folder of person crops with the exported re-ID encoder beside this file.

    python embed.py CROPS OUT.npz [--batch-size 64]

It needs no more than: pip install jax flatbuffers numpy pillow. OUT.npz holds paths (n,), prime and
fine (n, dim), and ranking (n, 2 dim): ranking @ ranking.T are the scores of all pairs, the higher
the more alike.
"""

import argparse
import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from PIL import Image, ImageOps

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_crop(path: Path, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    if not path.is_file():  # a FIFO would be waited for
        raise OSError("not a file")
    with Image.open(path) as image:
        rgb = ImageOps.exif_transpose(image).convert("RGB")
        if rgb.size != (width, height):
            rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(rgb)


def embed_folder(crops: Path, model: Path, batch_size: int) -> dict[str, np.ndarray]:
    """Embeds every image under a folder, at any depth; unreadable ones are named and left out."""
    try:
        description = json.loads((model / "embedder.json").read_text())
        height, width = map(int, description["input"]["shape"][1:3])
        names = [output["name"] for output in description["outputs"]]
        embed = jax.jit(export.deserialize((model / description["file"]).read_bytes()).call)
    except Exception as error:  # of JSON, of its shape, of the serialised function
        raise SystemExit(
            f"error: {model}: embedder.json, or the function beside it, is damaged "
            f"({type(error).__name__}: {error}); export the run again"
        ) from error

    paths: list[str] = []
    images: list[np.ndarray] = []
    features: list[tuple[Any, ...]] = []

    def flush() -> None:
        if not images:
            return
        # One shape for every batch, so that the function is compiled once.
        batch = np.zeros((batch_size, height, width, 3), np.uint8)
        batch[: len(images)] = images
        features.append(tuple(np.asarray(values)[: len(images)] for values in embed(batch)))
        images.clear()

    for path in sorted(crops.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            images.append(read_crop(path, height, width))
        except Exception as error:  # Pillow has many kinds for a broken file
            print(f"{path}: left out, unreadable ({error})")
            continue
        paths.append(str(path.relative_to(crops)))
        if len(images) == batch_size:
            flush()
    flush()
    if not paths:
        raise SystemExit(f"error: {crops}: no readable images ({', '.join(sorted(SUFFIXES))})")
    columns = zip(*features, strict=True)
    return {"paths": np.array(paths)} | {
        name: np.concatenate(values) for name, values in zip(names, columns, strict=True)
    }


def user_path(given: str) -> Path:
    """The path, with "~" at its start as the home folder."""
    try:
        return Path(given).expanduser()
    except RuntimeError as error:  # of ~NAME without such a user
        raise argparse.ArgumentTypeError(f"{given}: {error}") from error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Embeds a folder of person crops.")
    parser.add_argument("crops", type=user_path, help="a folder of images, at any depth")
    parser.add_argument("out", type=user_path, help="the .npz file to write")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid UTF-8
    if arguments.batch_size < 1 or not arguments.crops.is_dir():
        parser.error("give a folder of images, and a batch of 1 or more")
    embedded = embed_folder(arguments.crops, Path(__file__).parent, arguments.batch_size)
    arrays: dict[str, Any] = dict(embedded)
    content = io.BytesIO()
    np.savez(content, **arrays)
    unfinished = arguments.out.with_name(f".{arguments.out.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content.getvalue())
        unfinished.replace(arguments.out)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        print(f"error: {arguments.out}: cannot be written ({error.strerror})", file=sys.stderr)
        raise SystemExit(74 if error.errno == errno.ENOSPC else 1) from error
    shape = embedded["ranking"].shape
    print(f"{arguments.out}: {shape[0]} crops, ranking features of {shape[1]} values")


if __name__ == "__main__":
    main()
