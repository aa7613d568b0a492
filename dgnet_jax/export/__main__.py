"""The command of the package.

python -m dgnet_jax.export runs/l1_rmse OUT
python OUT/embed.py CROPS features.npz
"""

import argparse
import sys

from dgnet_jax.command_line import parse_step
from dgnet_jax.errors import one_line


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser(
        "python -m dgnet_jax.export",
        description="Writes the re-ID encoder of a run as StableHLO (jax.export, any batch, for "
        "CPU, CUDA and TPU), with a description and an example that embeds a folder of crops.",
    )
    result.add_argument("workdir", help="the folder of a run; or a converted released checkpoint")
    result.add_argument("out", help="the folder to write")
    result.add_argument(
        "--step",
        type=parse_step,
        metavar="N|best",
        help="which checkpoint; 'best' is the one with the best mAP; default: the last",
    )
    result.add_argument(
        "--alpha", type=float, help="weight of the fine embedding; default: the run's"
    )
    result.add_argument("--onnx", action="store_true", help="writes OUT/embedder.onnx too")
    return result


def main(argv: list[str]) -> None:
    """The command; what a user can correct ends it with status 1 and "error: ..."."""
    arguments = parser().parse_args(argv)
    from dgnet_jax.export import EXAMPLE, export_run

    with one_line():
        found = export_run(
            arguments.workdir,
            arguments.out,
            step=arguments.step,
            alpha=arguments.alpha,
            onnx=arguments.onnx,
        )
        if found.onnx:
            print(found.onnx)
        size = found.artefact.stat().st_size / 1e6
        print(f"{found.artefact}: {size:.1f} MB, step {found.step} of {found.source}")
        print(f"python {found.artefact.parent / EXAMPLE} CROPS features.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
