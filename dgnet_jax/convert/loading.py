"""Converted weights, from .safetensors files to Flax variables."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from dgnet_jax.convert.architecture import Fit, Shape, fit, generator_shapes, module_shapes
from dgnet_jax.convert.names import Network, convert_state_dict
from dgnet_jax.errors import InputError
from dgnet_jax.models import Networks, Variables
from dgnet_jax.models.reid import Teacher
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import Tensors, read_safetensors


class Loaded(NamedTuple):
    """variables with what the file held put in; missing: paths that kept their start values."""

    variables: dict[str, Any]
    missing: list[str]


class Released(NamedTuple):
    """A DG-Net from a converted checkpoint, in float32 on the host.

    Attributes:
        generator: parameters {"structure_encoder", "decoder"}.
        appearance: E_a's variables {"params", "batch_stats"}.
        discriminator: D's parameters; None if the file is without them.
        step: of the training, if the file says so (`export.released.to_safetensors`), else 0.
    """

    generator: dict[str, Any]
    appearance: Variables
    discriminator: dict[str, Any] | None
    step: int


def load_released(path: str | Path, networks: Networks) -> Released:
    """A released DG-Net checkpoint, as `python -m dgnet_jax.convert` writes it.

    The number of identities is the file's, whatever that of `networks` is:
    `appearance["params"]["prime"]["classifier"]["kernel"]` has as many columns.

    Args:
        path: the file of `--config.released`, keys prefixed with "gen.", "id." and "dis.".
        networks: of the checkpoint's sizes; the published ones, for the released checkpoints.

    Raises:
        InputError: no such file, not a safetensors file of finite numbers, a part of the checkpoint
            is missing, or its sizes are not those of `networks`.
    """
    flag, path = "--config.released", user_path(path)
    tensors, metadata = _read(flag, path, "a released DG-Net checkpoint")
    parts: dict[Network, dict[str, np.ndarray]] = {"gen": {}, "id": {}, "dis": {}}
    for part, named in parts.items():
        prefix = f"{part}."
        named |= {
            key.removeprefix(prefix): tensor
            for key, tensor in tensors.items()
            if key.startswith(prefix)
        }
    absent = [part for part in ("gen", "id") if not parts[part]]
    if absent:
        raise InputError(
            f"{flag}: {path} holds no tensor of {' and '.join(absent)} (its first keys: "
            f"{_first(tensors)}). Convert the checkpoint's folder, or its three files gen_*.pt, "
            "id_*.pt and dis_*.pt together"
        )
    identities = _identities(parts["id"], "classifier1.classifier.0.weight")
    encoder = networks.appearance_encoder.clone(num_identities=identities)
    wanted: dict[Network, dict[str, Shape]] = {
        "gen": generator_shapes(networks.structure_encoder, networks.decoder, encoder.code_size),
        "id": module_shapes("id", encoder),
        "dis": module_shapes("dis", networks.discriminator),
    }
    if not parts["dis"]:
        del wanted["dis"], parts["dis"]
    fits = [_fit_of(parts[part], shapes, f"{part}.") for part, shapes in wanted.items()]
    compared = Fit(
        [key for found in fits for key in found.missing],
        [misfit for found in fits for misfit in found.misshapen],
    )
    if compared.faults:
        raise InputError(
            f"{flag}: {path} does not hold the networks of this configuration: "
            f"{compared.describe()}. The released checkpoints have the published sizes: use "
            "configs/market.py without the flag 'small'. A file of --to-safetensors holds its own "
            f"configuration: --config=dgnet_jax/config.py:{path}"
        )
    step = metadata.get("step", "")
    converted = {part: _variables(part, parts[part], set(wanted[part])) for part in wanted}
    return Released(
        converted["gen"]["params"],
        converted["id"],
        converted["dis"]["params"] if "dis" in converted else None,
        int(step) if re.fullmatch("[0-9]{1,9}", step) else 0,
    )


def load_teacher_weights(path: str | Path, teacher: Teacher) -> Variables:
    """The teacher from a converted `net_last.pth`: {"params", "batch_stats"}, float32 on the host.

    The number of identities is the file's, whatever that of `teacher` is:
    `["params"]["head"]["classifier"]["kernel"]` has as many columns.

    Raises:
        InputError: no such file, not a safetensors file, or another network than `teacher`.
    """
    flag, path = "--config.teacher.checkpoint", user_path(path)
    tensors = _read(flag, path, "a teacher").arrays
    identities = _identities(tensors, "classifier.classifier.0.weight")
    wanted = module_shapes("teacher", teacher.clone(num_identities=identities))
    compared = _fit_of(tensors, wanted)
    if compared.faults:
        raise InputError(
            f"{flag}: {path} does not hold the teacher of this configuration: "
            f"{compared.describe()}. config.teacher gives its sizes"
        )
    return _variables("teacher", tensors, set(wanted))


def load_backbone(path: str | Path, variables: Mapping[str, Any]) -> Loaded:
    """Puts ImageNet weights (torchvision's names, .safetensors) into a network's backbone.

    Args:
        path: the file of `--config.pretrained`.
        variables: {"params", "batch_stats"} of a network with a "backbone".

    Raises:
        InputError: no such file, not a safetensors file, no ResNet in it, or a wrong shape.
    """
    path = user_path(path)
    tensors = _read("--config.pretrained", path, "torchvision's ResNet").arrays
    found = convert_state_dict("resnet", tensors).variables
    leaves = {
        (collection, *path): value
        for collection, tree in found.items()
        for path, value in flatten_dict(tree).items()
    }
    if not leaves:
        raise InputError(
            f"--config.pretrained: {path} holds no tensor of a ResNet (its first keys: "
            f"{_first(tensors)}); torchvision's names are expected, like 'layer1.0.conv1.weight'"
        )
    missing: list[str] = []

    def fill(tree: Mapping[str, Any], prefix: tuple[str, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in tree.items():
            key = (*prefix, name)
            if isinstance(value, Mapping):
                result[name] = fill(value, key)
            elif key in leaves:
                if leaves[key].shape != value.shape:
                    raise InputError(
                        f"--config.pretrained: {'/'.join(key)} in {path} has shape "
                        f"{leaves[key].shape}, the network's is {value.shape}; the file is of "
                        "another architecture"
                    )
                result[name] = leaves[key].astype(value.dtype)
            else:
                result[name] = value
                if "backbone" in key:
                    missing.append("/".join(key[1:]))
        return result

    filled = {collection: fill(variables[collection], (collection,)) for collection in variables}
    return Loaded(filled, missing)


def _read(flag: str, path: Path, what: str) -> Tensors:
    try:
        tensors = read_safetensors(path)
        for name, array in tensors.arrays.items():
            if name.endswith("running_var") and (array < 0).any():
                raise ValueError(f"{name} holds negative values, which no variance has")
        return tensors
    except FileNotFoundError as error:
        raise InputError(
            f"{flag}: no file {path}. Give {what} as a .safetensors file, which `python -m "
            "dgnet_jax.convert` writes from PyTorch's"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{flag}: {path} is not a readable safetensors file ({error}). PyTorch's files are "
            "converted first: python -m dgnet_jax.convert FILE.pth OUT.safetensors"
        ) from error


def _identities(tensors: Mapping[str, np.ndarray], key: str) -> int:
    """The rows of a classifier; 1 if there is none, which is then reported as missing."""
    classifier = tensors.get(key)
    return classifier.shape[0] if classifier is not None and classifier.ndim else 1


def _fit_of(
    tensors: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], prefix: str = ""
) -> Fit:
    found = {prefix + key: tensor.shape for key, tensor in tensors.items()}
    return fit(found, {prefix + key: shape for key, shape in wanted.items()})


def _variables(network: Network, tensors: Mapping[str, np.ndarray], wanted: set[str]) -> Variables:
    """Flax variables of the wanted keys, as float32."""
    kept = {key: tensors[key].astype(np.float32) for key in wanted}
    return convert_state_dict(network, kept).variables


def _first(tensors: Mapping[str, Any]) -> str:
    return ", ".join(list(tensors)[:3]) or "none"
