"""The command of the package.

python -m dgnet_jax.export runs/l1_rmse OUT
python OUT/embed.py CROPS features.npz
"""

import argparse
import sys

from dgnet_jax.command_line import parse_step
from dgnet_jax.errors import InputError


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
    result.add_argument("--alpha", type=float, help="weight of the fine embedding; default: 0.5")
    result.add_argument("--onnx", action="store_true", help="writes OUT/embedder.onnx too")
    return result


def main(argv: list[str]) -> None:
    """The command; what a user can mend ends it with status 1 and "error: ..."."""
    arguments = parser().parse_args(argv)
    from dgnet_jax.config import default_config, trained_config
    from dgnet_jax.export import ARTEFACT, EXAMPLE, write_export
    from dgnet_jax.export.onnx_file import require_jax2onnx, write_onnx
    from dgnet_jax.inference import load_model

    try:
        if arguments.onnx:
            require_jax2onnx()
        if arguments.workdir.endswith(".safetensors"):
            config = default_config()
            config.released = arguments.workdir
        else:
            config = trained_config(arguments.workdir)
        model = load_model(config, arguments.workdir, arguments.step)
        alpha = config.evaluation.alpha if arguments.alpha is None else arguments.alpha
        folder = write_export(model, arguments.out, alpha)
        if arguments.onnx:
            print(write_onnx(model, folder / "embedder.onnx", alpha))
    except (InputError, OSError) as error:  # OSError: a full disk, no permission
        raise SystemExit(f"error: {error}") from error
    size = (folder / ARTEFACT).stat().st_size / 1e6
    print(f"{folder / ARTEFACT}: {size:.1f} MB, step {model.step} of {model.source}")
    print(f"python {folder / EXAMPLE} CROPS features.npz")


if __name__ == "__main__":
    main(sys.argv[1:])
