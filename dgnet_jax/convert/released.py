"""PyTorch's files to .safetensors, and a network here to the files of the released program."""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from dgnet_jax.convert.architecture import Kind, check, recognise, unknown_keys
from dgnet_jax.convert.names import is_unused, state_dict
from dgnet_jax.convert.pth import import_torch, read_pth, save_pth
from dgnet_jax.errors import InputError
from dgnet_jax.runtime.atomic import replacing
from dgnet_jax.runtime.paths import user_path

RELEASED: tuple[Kind, ...] = ("gen", "id", "dis")
# torchvision's ResNet-50 has so many ImageNet classes; the released E_a carries the layer along.
_IMAGENET_CLASSES = 1000


class Written(NamedTuple):
    """What a conversion wrote, and what it left out of it.

    Attributes:
        path: the .safetensors file.
        kinds: the networks in it.
        tensors: how many.
        unknown: keys of layers that the networks here do not have (non-local blocks, ...).
        unused: keys of known tensors that no computation uses.
        missing: keys that an incomplete ResNet or Inception lacks.
    """

    path: Path
    kinds: tuple[Kind, ...]
    tensors: int
    unknown: list[str]
    unused: list[str]
    missing: list[str]


def convert(sources: Sequence[str | Path], target: str | Path, kind: Kind | None = None) -> Written:
    """Writes PyTorch files as one .safetensors file, in PyTorch's names and layout.

    A released DG-Net's parts get the prefixes "gen.", "id." and "dis.", and keep the tensors that
    nothing uses, so that the checkpoint stays complete.

    Args:
        sources: one file; or the files of a released checkpoint, or the folder that holds them, of
            which the newest iteration is taken.
        target: the .safetensors file.
        kind: what the file is; recognised from its keys by default.

    Raises:
        InputError: PyTorch or a file is missing, unreadable, of no known or another network, or
            incomplete. Nothing is written then.
    """
    target = user_path(target)
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: the file to write comes last and ends in .safetensors")
    files = [file for source in sources for file in _files(user_path(source))]
    if kind is not None and len(files) > 1:
        raise InputError(f"--kind={kind} is for one file; found {len(files)}")
    tensors: dict[str, np.ndarray] = {}
    written = Written(target, (), 0, [], [], [])
    for file in files:
        part = _read_part(file, kind, len(files) > 1)
        if set(part.kinds) & set(written.kinds):
            raise InputError(f"{file}: a second {part.kinds[0]} file; give one of each")
        tensors |= part.tensors
        written = Written(
            target,
            written.kinds + part.kinds,
            len(tensors),
            written.unknown + part.unknown,
            written.unused + part.unused,
            written.missing + part.missing,
        )
    _make_folder(target.parent)
    with replacing(target) as temporary:
        # save_file would make a file that only its owner can read.
        temporary.write_bytes(save(tensors, {"networks": " ".join(written.kinds)}))
    return written


class _Part(NamedTuple):
    kinds: tuple[Kind, ...]
    tensors: dict[str, np.ndarray]
    unknown: list[str]
    unused: list[str]
    missing: list[str]


def _read_part(file: Path, kind: Kind | None, several: bool) -> _Part:
    tensors = read_pth(file)
    kind = kind or recognise(list(tensors), str(file))
    released = kind in RELEASED
    if several and not released:
        raise InputError(
            f"{file}: recognised as {kind}; only the parts of a released DG-Net checkpoint "
            f"({', '.join(RELEASED)}) go into one file"
        )
    missing = check(kind, {key: tensor.shape for key, tensor in tensors.items()}, str(file))
    unknown = unknown_keys(kind, list(tensors))
    unused = [] if released else [key for key in tensors if is_unused(key)]
    kept = {
        key: np.ascontiguousarray(tensor)
        for key, tensor in tensors.items()
        if key not in unknown and key not in unused
    }
    for key, tensor in kept.items():
        if tensor.dtype != np.float32 and not key.endswith("num_batches_tracked"):
            raise InputError(
                f"{file}: {key} holds {tensor.dtype} values, not the floats of a weight"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"{file}: {key} holds NaN or infinite values")
        if key.endswith("running_var") and (tensor < 0).any():
            raise InputError(f"{file}: {key} holds negative values, which no variance has")
    prefix = f"{kind}." if released else ""

    def named(keys: list[str]) -> list[str]:
        return [prefix + key for key in keys]

    return _Part(
        (kind,),
        {prefix + key: tensor for key, tensor in kept.items()},
        named(unknown),
        named(unused),
        named(missing),
    )


def _files(source: Path) -> list[Path]:
    """A file itself; of a folder, the files of its newest released checkpoint."""
    if not source.is_dir():
        return [source]
    iterations: dict[int, dict[str, Path]] = {}
    for file in sorted(source.iterdir()):
        match = re.fullmatch(r"(gen|id|dis)_(\d+)\.pt", file.name)
        if match:
            iterations.setdefault(int(match[2]), {})[match[1]] = file
    whole = [iteration for iteration, parts in iterations.items() if {"gen", "id"} <= parts.keys()]
    if not whole:
        names = sorted(file.name for file in source.iterdir())[:6]
        raise InputError(
            f"{source}: no gen_*.pt and id_*.pt of the same iteration in this folder; found "
            f"{', '.join(names) or 'nothing'}"
        )
    parts = iterations[max(whole)]
    return [parts[part] for part in RELEASED if part in parts]


def released_state_dicts(
    generator: Mapping[str, Any],
    appearance: Mapping[str, Any],
    discriminator: Mapping[str, Any],
    step: int,
) -> dict[Kind, dict[str, np.ndarray]]:
    """The gen, id and dis state dicts of a network here, whole for a strict load_state_dict.

    What the released networks carry and nothing uses is made up: E_a's ImageNet layer is 0, the
    running averages of the decoder's AdaIN are those of a fresh layer, and every batch norm has
    counted `step` batches.

    Args:
        generator: parameters {"structure_encoder", "decoder"}.
        appearance: E_a's variables {"params", "batch_stats"}.
        discriminator: D's parameters.
        step: training steps done.
    """
    gen = state_dict("gen", {"params": generator})
    for key in list(gen):
        match = re.fullmatch(r"(dec\.model\.1\.model\.\d+\.model\.\d)\.conv\.bias", key)
        if match:
            gen[f"{match[1]}.norm.running_mean"] = np.zeros_like(gen[key])
            gen[f"{match[1]}.norm.running_var"] = np.ones_like(gen[key])
    encoder = state_dict("id", appearance)
    for key in list(encoder):
        if key.endswith(".running_var"):
            counter = key.removesuffix("running_var") + "num_batches_tracked"
            encoder[counter] = np.array(step, np.int64)
    channels = encoder["classifier1.add_block.0.weight"].shape[1]
    encoder["model.fc.weight"] = np.zeros((_IMAGENET_CLASSES, channels), np.float32)
    encoder["model.fc.bias"] = np.zeros(_IMAGENET_CLASSES, np.float32)
    return {"gen": gen, "id": encoder, "dis": state_dict("dis", {"params": discriminator})}


def write_released(
    state_dicts: Mapping[Kind, Mapping[str, np.ndarray]], folder: str | Path, step: int
) -> list[Path]:
    """Writes gen_########.pt, id_########.pt and dis_########.pt, each {"a": state dict}."""
    import_torch()
    folder = user_path(folder)
    _make_folder(folder)
    paths = [folder / f"{part}_{step:08d}.pt" for part in RELEASED]
    # All are complete before the first gets its name.
    with ExitStack() as stack:
        for part, path in zip(RELEASED, paths, strict=True):
            save_pth({"a": state_dicts[part]}, stack.enter_context(replacing(path)))
    return paths


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror})") from error
