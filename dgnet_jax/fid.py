"""The command that measures FID and KID between two sets of images.

python -m dgnet_jax.fid REAL GENERATED --weights inception.safetensors
python -m dgnet_jax.fid REAL --weights inception.safetensors --save-stats real.npz
python -m dgnet_jax.fid real.npz GENERATED --weights inception.safetensors --dims 768
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dgnet_jax.data.images import image_files, read_images
from dgnet_jax.errors import InputError, one_line
from dgnet_jax.evaluation.extraction import BATCH_SIZE, InceptionExtractor, load_extractor
from dgnet_jax.evaluation.fid import FeatureStatistics, load_statistics, save_statistics
from dgnet_jax.evaluation.kid import SUBSET_SIZE, SUBSETS, KernelDistance, kid
from dgnet_jax.models.inception import DIMS, HOW_TO_GET_WEIGHTS
from dgnet_jax.runtime.devices import use_compilation_cache
from dgnet_jax.runtime.paths import user_path

_DESCRIPTION = f"""\
FID and KID between two sets of images, in the manner of pytorch-fid, with the 2015 FID Inception.
Each side is a folder of images, at any depth, or an .npz of statistics (of --save-stats, or of
pytorch-fid). Images of another size than --size are resized to it with Pillow's bicubic filter.

{HOW_TO_GET_WEIGHTS}
"""


class Side(NamedTuple):
    """One side of the comparison.

    features: (images, dims) float32, None if it is saved statistics without them; broken: files
    that were skipped.
    """

    name: str
    statistics: FeatureStatistics
    features: np.ndarray | None
    broken: int = 0


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser(
        "python -m dgnet_jax.fid",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("real", metavar="REAL", help="folder or .npz")
    result.add_argument(
        "generated", metavar="GENERATED", nargs="?", help="folder or .npz; not with --save-stats"
    )
    result.add_argument("--weights", type=user_path, help="the FID Inception, a .safetensors file")
    result.add_argument(
        "--dims", type=int, choices=DIMS, default=2048, help="length of the features; default 2048"
    )
    result.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, help=f"images a batch; default {BATCH_SIZE}"
    )
    result.add_argument(
        "--size", default="256x128", metavar="HxW", help="pixels of all images; default 256x128"
    )
    result.add_argument("--save-stats", metavar="F", help="write REAL's statistics to F, an .npz")
    result.add_argument(
        "--with-features", action="store_true", help="--save-stats: the features too, for KID"
    )
    result.add_argument(
        "--kid-subsets", type=int, default=SUBSETS, help=f"subsets; default {SUBSETS}"
    )
    result.add_argument(
        "--kid-subset-size",
        type=int,
        default=SUBSET_SIZE,
        help=f"images of a subset, at most half of the smaller side; default {SUBSET_SIZE}",
    )
    result.add_argument("--seed", type=int, default=0, help="of KID's subsets; default 0")
    result.add_argument("--json", action="store_true", help="print one JSON object")
    return result


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Measures what the arguments ask for.

    Returns:
        `dims`, and `fid`, `real`, `generated` (counts, None if unknown), `singular`, `kid_mean`,
        `kid_sd`, `kid_subsets`, `kid_subset_size`, as far as they can be had; `broken`, the number
        of files that were skipped.

    Raises:
        InputError: a path, a size or the weights are wrong.
    """
    size = _size(arguments.size)
    if arguments.save_stats and not _is_saved(arguments.save_stats):
        raise InputError(f"--save-stats: found {arguments.save_stats!r}; name a file .npz")
    if arguments.batch_size < 1:
        raise InputError(f"--batch-size: found {arguments.batch_size}, 1 or more is needed")
    if arguments.generated is None and not arguments.save_stats:
        raise InputError("GENERATED is missing; one side alone is for --save-stats")
    sources = [source for source in (arguments.real, arguments.generated) if source is not None]
    for source in sources:
        if not user_path(source).exists():
            raise InputError(f"{source}: no such folder or file")
    # Before the network is read and compiled.
    files = {source: image_files(source) for source in sources if not _is_saved(source)}
    extractor = None
    if files:
        if not arguments.weights:
            raise InputError(f"--weights is missing. {HOW_TO_GET_WEIGHTS}")
        use_compilation_cache()
        extractor = load_extractor(arguments.weights, arguments.dims, arguments.batch_size)
    real = _side(arguments.real, files, extractor, size)
    if arguments.save_stats:
        kept = real.features if arguments.with_features else None
        save_statistics(user_path(arguments.save_stats), real.statistics, kept)
        _say(f"{arguments.save_stats}: statistics of {_number(real.statistics.count)} images")
    if arguments.generated is None:
        return {"dims": real.statistics.dims, "real": real.statistics.count}
    generated = _side(arguments.generated, files, extractor, size)
    return _compare(real, generated, arguments)


def _compare(real: Side, generated: Side, arguments: argparse.Namespace) -> dict[str, object]:
    if real.statistics.dims != generated.statistics.dims:
        raise InputError(
            f"{real.name} has {real.statistics.dims} dims, {generated.name} has "
            f"{generated.statistics.dims}; --dims and the weights of both must be the same"
        )
    for side in (real, generated):
        if side.statistics.singular:
            _say(
                f"warning: {side.name}: the covariance of {side.statistics.count} images in "
                f"{side.statistics.dims} dims is singular, and FID too large for it; at least "
                f"{side.statistics.dims + 1} images are needed. KID does not suffer from this"
            )
    result: dict[str, object] = {
        "dims": real.statistics.dims,
        "real": real.statistics.count,
        "generated": generated.statistics.count,
        "fid": real.statistics.distance(generated.statistics),
        "singular": real.statistics.singular or generated.statistics.singular,
        "broken": real.broken + generated.broken,
    }
    without = [side.name for side in (real, generated) if side.features is None]
    few = min(side.statistics.count or 4 for side in (real, generated)) < 4
    if without:
        _say(
            f"KID is not available: {' and '.join(without)} hold no features (--save-stats with "
            "--with-features keeps them)"
        )
    elif few:
        _say("KID is not available: it needs 4 images a side")
    else:
        assert real.features is not None and generated.features is not None
        distance = kid(
            real.features,
            generated.features,
            subsets=arguments.kid_subsets,
            subset_size=arguments.kid_subset_size,
            seed=arguments.seed,
        )
        result |= {f"kid_{name}": value for name, value in distance._asdict().items()}
    return result


def as_text(result: dict[str, object], seed: int) -> str:
    """The result in words."""
    if "fid" not in result:
        return ""
    lines = [
        f"FID ({result['dims']}-d): {result['fid']:.4f}, {_number(result['real'])} real and "
        f"{_number(result['generated'])} generated images"
    ]
    if "kid_mean" in result:
        names = KernelDistance._fields
        distance = KernelDistance(*(result[f"kid_{name}"] for name in names))  # type: ignore[arg-type]
        lines.append(
            f"KID ({result['dims']}-d): mean {distance.mean:.6f}, sd {distance.sd:.6f} over "
            f"{distance.subsets} subsets of {distance.subset_size} images, seed {seed}"
        )
    return "\n".join(lines)


def _side(
    source: str,
    files: Mapping[str, list[Path]],
    extractor: InceptionExtractor | None,
    size: tuple[int, int],
) -> Side:
    if _is_saved(source):
        statistics, features = load_statistics(user_path(source))
        return Side(source, statistics, features)
    assert extractor is not None
    broken: list[Path] = []

    def skip(path: Path, reason: str) -> None:
        _say(f"warning: {path}: skipped: {reason}")
        broken.append(path)

    # Some batches at a time, so that the device does not wait for the host at each.
    chunk = extractor.batch_size * -(-256 // extractor.batch_size)
    parts = [extractor(images) for images in read_images(files[source], *size, chunk, skip)]
    images = sum(map(len, parts))
    if images < 2:
        raise InputError(
            f"{source}: {images} images that can be read, of {len(files[source])}; a covariance "
            "needs 2"
        )
    features = np.concatenate(parts)
    return Side(source, FeatureStatistics.of(features), features, len(broken))


def _number(count: object) -> str:
    return "an unknown number of" if count is None else str(count)


def _is_saved(source: str) -> bool:
    return source.endswith(".npz")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise InputError(f"--size: found {text!r}; give HEIGHTxWIDTH, such as 256x128")
    return int(match[1]), int(match[2])


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main(argv: list[str]) -> None:
    """The command; what a user can correct ends it with status 1 and "error: ..."."""
    arguments = parser().parse_args(argv)
    with one_line():
        result = run(arguments)
        if arguments.json:
            print(json.dumps(result))
        elif text := as_text(result, arguments.seed):
            print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
