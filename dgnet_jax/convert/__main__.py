"""The command of the package.

python -m dgnet_jax.convert resnet50-0676ba61.pth resnet50.safetensors
python -m dgnet_jax.convert CHECKPOINTS_OF_THE_RELEASED_PROGRAM dgnet.safetensors
python -m dgnet_jax.convert --to-released runs/l1_rmse OUT_DIR
python -m dgnet_jax.convert --to-safetensors runs/l1_rmse OUT.safetensors
"""

import argparse
import sys
from pathlib import Path

from dgnet_jax.command_line import parse_step
from dgnet_jax.convert.architecture import KINDS
from dgnet_jax.convert.released import Written, convert
from dgnet_jax.errors import InputError, one_line
from dgnet_jax.runtime.paths import user_path

_NETWORKS = "\n".join(f"  {kind}: {text}" for kind, text in KINDS.items())
_DESCRIPTION = f"""\
Converts PyTorch weights to a .safetensors file, without executing anything in them, or a trained
DG-Net to the three files of the released program, or to one .safetensors file. Needs PyTorch but
for the last. The networks that it knows:
{_NETWORKS}
"""


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    result = argparse.ArgumentParser(
        "python -m dgnet_jax.convert",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--kind KIND] SOURCE [SOURCE ...] OUT.safetensors\n"
        "       %(prog)s --to-released WORKDIR OUT_DIR [--step N|best]\n"
        "       %(prog)s --to-safetensors WORKDIR OUT.safetensors [--step N|best] [--dtype TYPE]",
    )
    result.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a .pth file; or gen_*.pt, id_*.pt and dis_*.pt of a released checkpoint, or the "
        "folder that holds them (its newest iteration is taken); then the file to write",
    )
    result.add_argument(
        "--to-safetensors",
        action="store_true",
        help="WORKDIR's generator and E_a, with its configuration, for --config.released",
    )
    result.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="--to-safetensors: of the kernels; default: float32",
    )
    result.add_argument("--kind", choices=list(KINDS), help="what the file is; default: its keys'")
    result.add_argument(
        "--to-released",
        action="store_true",
        help="WORKDIR's checkpoint to OUT_DIR/gen_########.pt, id_########.pt, dis_########.pt",
    )
    result.add_argument(
        "--step",
        type=parse_step,
        metavar="N|best",
        help="of WORKDIR: which checkpoint; 'best' is the one with the best mAP; default: last",
    )
    return result


def as_text(written: Written) -> str:
    """What was written, for people."""
    lines = [f"{written.path}: {written.tensors} tensors of {', '.join(written.kinds)}"]
    if written.missing:
        lines.append(f"not in the source: {_listed(written.missing)}")
    if written.unknown:
        lines.append(f"left out, no layer of the networks here: {_listed(written.unknown)}")
    if written.unused:
        counters = sum(key.endswith("num_batches_tracked") for key in written.unused)
        others = [key for key in written.unused if not key.endswith("num_batches_tracked")]
        names = [*others, f"{counters} counters of batches"] if counters else others
        lines.append(f"left out, used by nothing: {_listed(names)}")
    if written.kinds[0] in ("gen", "id", "dis") and not {"gen", "id"} <= set(written.kinds):
        lines.append("a part of a checkpoint: --config.released needs gen and id in one file")
    return "\n".join(lines)


def _listed(keys: list[str], limit: int = 8) -> str:
    more = f", ... ({len(keys)} in all)" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more


def _write_run(arguments: argparse.Namespace, paths: list[Path]) -> None:
    """A work directory in another form."""
    # Imported here: only a run has checkpoints.
    from dgnet_jax.export.released import to_released, to_safetensors

    if arguments.to_released and arguments.to_safetensors:
        raise InputError("--to-released and --to-safetensors: give one of them")
    flag = "--to-released" if arguments.to_released else "--to-safetensors"
    if len(paths) != 2:
        raise InputError(f"{flag}: found {len(paths)} paths; give WORKDIR and what to write")
    if arguments.kind:
        raise InputError(f"--kind: is for PyTorch's files, not for a run; leave it out with {flag}")
    workdir, target = paths
    if arguments.to_safetensors:
        file = to_safetensors(workdir, target, arguments.step, arguments.dtype or "float32")
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
        return
    if arguments.dtype is not None:
        raise InputError("--dtype is for --to-safetensors")
    for path in to_released(workdir, target, arguments.step):
        print(path)


def main(argv: list[str]) -> None:
    """The command; what a user can correct ends it with status 1 and "error: ..."."""
    arguments = parser().parse_args(argv)
    with one_line():
        paths = [user_path(path) for path in arguments.paths]
        if arguments.to_released or arguments.to_safetensors:
            _write_run(arguments, paths)
        else:
            if arguments.dtype is not None:
                raise InputError("--dtype is for --to-safetensors")
            if arguments.step is not None:
                raise InputError("--step is for --to-safetensors and --to-released")
            if len(paths) < 2:
                raise InputError(f"found {len(paths)} path; give SOURCE and OUT.safetensors")
            print(as_text(convert(paths[:-1], paths[-1], arguments.kind)))


if __name__ == "__main__":
    main(sys.argv[1:])
