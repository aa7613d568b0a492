"""Packs what a borrowed machine lacks: wheels, images, weights, reference numbers.

    python -m benchmarks.device.pack --market Market-1501-v15.09.15.zip --weights WEIGHTS_DIR \
        --reference REFERENCE_DIR

writes `device_pack/first` (wheels, weights, training images, reference) and `device_pack/second`
(query and gallery), each small enough for one call. README.md says what becomes of them there.
"""

import argparse
import io
import json
import shutil
import sys
import tarfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from benchmarks.device import wheels
from dgnet_jax.convert.released import convert
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.splits import ReidDataset, Split
from dgnet_jax.errors import InputError

MIB = 2**20
# Of one call's folder; the checkout's own files travel beside it.
LIMIT_MIB = 60.0
# Name in the pack, and how the file begins in --weights.
WEIGHTS = {
    "resnet50.safetensors": ("resnet50",),
    "inception.safetensors": ("fid", "pt_inception"),
}
REFERENCE = ("dgnet_step.npz", "state_dict_shapes.json")
# The reader of a data set wants query and gallery to be there; until they come, so many images of
# each stand in for them.
_STAND_INS = 8
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_REPOSITORY = Path(__file__).resolve().parents[2]


def write_archive(images: Iterable[tuple[str, bytes]], path: Path) -> int:
    """Stores files as .tar.xz and returns their number.

    JPEGs of one data set begin with the same 600 bytes or so, which a solid archive holds once: of
    Market-1501's training images it is a quarter smaller than a zip.
    """
    count = 0
    with tarfile.open(path, "w:xz", preset=6) as archive:
        for name, content in images:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
            count += 1
    return count


def open_market(path: str) -> ReidDataset:
    """Market-1501 in a folder or zip; InputError if it is not there."""
    try:
        return load_dataset("market1501", path)
    except InputError as error:
        raise InputError(f"--market={path} cannot be read. {error}") from error


def training_images(dataset: ReidDataset) -> Iterable[tuple[str, bytes]]:
    """Names and bytes of the training images, and of the first people's queries and gallery."""
    yield from _files(dataset.train, range(len(dataset.train)))
    for split in (dataset.query, dataset.gallery):
        people = np.flatnonzero(split.identities > 0)
        yield from _files(split, people[:_STAND_INS].tolist())


def test_images(dataset: ReidDataset) -> Iterable[tuple[str, bytes]]:
    """Names and bytes of all query and gallery images."""
    for split in (dataset.query, dataset.gallery):
        yield from _files(split, range(len(split)))


def _files(split: Split, indices: Iterable[int]) -> Iterable[tuple[str, bytes]]:
    for index in indices:
        try:
            yield split.files[index], split.read_bytes(index)
        except OSError as error:
            raise InputError(f"--market: {split.paths[index]}: {error}") from error


def pack_weights(source: Path, target: Path) -> None:
    """Copies a .safetensors file (a .pth is converted first) with its kernels in float16.

    The loaders widen to float32. What is one-dimensional, the norms and biases, stays as it is: it
    is small, and a variance below 6e-5 would lose digits.

    Raises:
        InputError: not readable, PyTorch is missing, or a weight is too large for float16.
    """
    if source.suffix == ".pth":
        convert([source], target)
        source = target
    try:
        tensors = load_file(source)
    except (SafetensorError, OSError) as error:
        raise InputError(f"--weights: {source} is not a safetensors file ({error})") from error
    narrow = {}
    for name, tensor in tensors.items():
        if tensor.ndim > 1 and tensor.dtype == np.float32:
            if not np.abs(tensor).max() < _FLOAT16_MAX:
                raise InputError(f"--weights: {source}: {name} is not finite in float16")
            tensor = tensor.astype(np.float16)
        narrow[name] = tensor
    save_file(narrow, target)


def find_weights(folder: Path) -> dict[str, Path]:
    """The sources of `WEIGHTS` in a folder, .safetensors before .pth.

    Raises:
        InputError: none fits a name.
    """
    found = {}
    for name, starts in WEIGHTS.items():
        candidates = [
            path
            for suffix in (".safetensors", ".pth")
            for path in sorted(folder.glob(f"*{suffix}"))
            if path.name.startswith(starts)
        ]
        if not candidates:
            wanted = " or ".join(f"{word}*.safetensors, {word}*.pth" for word in starts)
            raise InputError(f"--weights={folder}: no {wanted} in it")
        found[name] = candidates[0]
    return found


def sizes(folder: Path) -> dict[str, float]:
    """Mebibytes of what lies directly in a folder."""
    result = {}
    for entry in sorted(folder.iterdir()):
        files = [entry] if entry.is_file() else [p for p in entry.rglob("*") if p.is_file()]
        result[entry.name] = sum(file.stat().st_size for file in files) / MIB
    return result


def check_size(folder: Path, limit: float) -> float:
    """The mebibytes of a pack; InputError if they are more than `limit`, with what takes them."""
    parts = sizes(folder)
    total = sum(parts.values())
    if total > limit:
        listed = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
        raise InputError(
            f"{folder.name}: {total:.2f} MiB, {total - limit:.2f} MiB more than the {limit:g} MiB "
            f"of --limit_mib ({listed}). Leave something out, or raise the limit"
        )
    return total


def write_pack(
    target: Path,
    limit: float,
    *,
    archive: Iterable[tuple[str, bytes]],
    weights: dict[str, Path] | None = None,
    reference: Path | None = None,
    wheel_files: Sequence[Path] = (),
) -> dict[str, float]:
    """Writes the folder of one call, whole or not at all.

    Returns:
        Mebibytes of its parts.

    Raises:
        InputError: something cannot be read, or the folder is too large.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
    unfinished.mkdir()
    try:
        images = write_archive(archive, unfinished / "images.tar.xz")
        for name, source in (weights or {}).items():
            (unfinished / "weights").mkdir(exist_ok=True)
            pack_weights(source, unfinished / "weights" / name)
        if reference is not None:
            (unfinished / "reference").mkdir()
            for name in REFERENCE:
                if not (reference / name).is_file():
                    raise InputError(f"--reference={reference}: no {name} in it")
                shutil.copyfile(reference / name, unfinished / "reference" / name)
        for wheel in wheel_files:
            (unfinished / "wheels").mkdir(exist_ok=True)
            shutil.copyfile(wheel, unfinished / "wheels" / wheel.name)
        (unfinished / "pack.json").write_text(json.dumps({"images": images}) + "\n")
        check_size(unfinished, limit)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sizes(target)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser(
        "python -m benchmarks.device.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--market", required=True, help="Market-1501: folder or zip")
    result.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="a folder with torchvision's ResNet-50 (resnet50*) and the FID Inception (fid*, "
        "pt_inception*), as .safetensors, or as .pth, which needs PyTorch",
    )
    result.add_argument(
        "--reference", type=Path, help=f"a folder with {' and '.join(REFERENCE)}; default: none"
    )
    result.add_argument("--out", type=Path, default=Path("device_pack"))
    result.add_argument(
        "--wheels",
        type=Path,
        default=Path("device_pack/wheels"),
        help="where wheels are kept; missing ones are downloaded with pip",
    )
    result.add_argument(
        "--present",
        type=Path,
        default=Path(__file__).with_name("present.txt"),
        help="names of the packages that the machine has",
    )
    result.add_argument("--no_download", action="store_true", help="take --wheels as it is")
    result.add_argument("--limit_mib", type=float, default=LIMIT_MIB)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command; what a user can correct ends it with status 1 and "error: ..."."""
    arguments = parser().parse_args(argv)
    try:
        weights = find_weights(arguments.weights)
        dataset = open_market(arguments.market)
        if not arguments.no_download:
            requirements = wheels.read_requirements(_REPOSITORY / "requirements.txt")
            present = wheels.read_names(arguments.present)
            names = wheels.download_missing(requirements, present, arguments.wheels)
            print(f"wheels: {', '.join(names)}")
        written = {
            "first": write_pack(
                arguments.out / "first",
                arguments.limit_mib,
                archive=training_images(dataset),
                weights=weights,
                reference=arguments.reference,
                wheel_files=sorted(arguments.wheels.glob("*.whl")),
            ),
            "second": write_pack(
                arguments.out / "second", arguments.limit_mib, archive=test_images(dataset)
            ),
        }
    except InputError as error:
        sys.exit(f"error: {error}")
    for name, parts in written.items():
        listed = ", ".join(f"{part} {size:.2f}" for part, size in parts.items())
        print(f"{arguments.out / name}: {sum(parts.values()):.2f} MiB ({listed})")


if __name__ == "__main__":
    main()
