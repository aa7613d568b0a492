"""Names and layouts of PyTorch checkpoints, mapped to parameters here.

One mapping serves released DG-Net checkpoints (`gen`, `id`, `dis`), the teacher, and torchvision's
ResNet-50. PyTorch keeps kernels as (out, in, rows, columns) and (out, in); here they are
(rows, columns, in, out) and (in, out).
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dgnet_jax.atomic import replacing
from dgnet_jax.errors import InputError

Network = Literal["gen", "id", "dis", "teacher", "resnet"]


class Location(NamedTuple):
    """Where a tensor lives: collection "params" or "batch_stats", and the path inside it."""

    collection: str
    path: tuple[str, ...]


_PYRAMID = {"conv1": "point", "fuse": "fuse"}
_PYRAMID_DILATIONS = {"conv6": 3, "conv12": 6, "conv18": 9}

# (pattern of the module's key, path with the groups of the pattern filled in).
_MODULES: dict[str, list[tuple[str, str]]] = {
    "gen": [
        (r"enc_content\.model\.([0-3])\.conv", r"structure_encoder/conv_\1/conv"),
        (
            r"enc_content\.model\.4\.model\.(\d+)\.model\.(\d)\.conv",
            r"structure_encoder/residual_\1/conv_\2",
        ),
        (r"dec\.model\.1\.model\.(\d+)\.model\.(\d)\.conv", r"decoder/residual_\1/conv_\2"),
        (r"dec\.model\.3\.conv", "decoder/upsample_0"),
        (r"dec\.model\.3\.norm", "decoder/upsample_norm_0"),
        (r"dec\.model\.5\.conv", "decoder/upsample_1"),
        (r"dec\.model\.5\.norm", "decoder/upsample_norm_1"),
        (r"dec\.model\.6\.conv", "decoder/refine_0"),
        (r"dec\.model\.7\.conv", "decoder/refine_1"),
        (r"dec\.model\.8\.conv", "decoder/to_image"),
        *(
            (rf"mlp_{letter}{index + 1}\.model\.(\d)\.fc", rf"decoder/{name}_mlp_{index}/dense_\1")
            for letter, name in (("w", "scale"), ("b", "shift"))
            for index in range(4)
        ),
        *(
            (rf"enc_content\.model\.5\.{key}\.conv", f"structure_encoder/pyramid/{name}/conv")
            for key, name in _PYRAMID.items()
        ),
        *(
            (
                rf"enc_content\.model\.5\.{key}\.{index}\.conv",
                f"structure_encoder/pyramid/{name}_{dilation}/conv",
            )
            for key, dilation in _PYRAMID_DILATIONS.items()
            for index, name in ((0, "reduce"), (1, "dilated"))
        ),
    ],
    "dis": [
        (r"cnns\.(\d)\.([0-4])\.conv", r"scales_\1/conv_\2"),
        *(
            (rf"cnns\.(\d)\.{index + 5}\.model\.(\d)\.conv", rf"scales_\1/residual_{index}/conv_\2")
            for index in range(4)
        ),
        (r"cnns\.(\d)\.9", r"scales_\1/scores"),
    ],
    "resnet": [
        (r"conv1", "backbone/conv1"),
        (r"bn1", "backbone/bn1"),
        (r"layer(\d)\.(\d+)\.(conv\d|bn\d)", r"backbone/layer\1_\2/\3"),
        (r"layer(\d)\.(\d+)\.downsample\.0", r"backbone/layer\1_\2/downsample_conv"),
        (r"layer(\d)\.(\d+)\.downsample\.1", r"backbone/layer\1_\2/downsample_bn"),
    ],
}


def _heads(names: Mapping[str, str]) -> list[tuple[str, str]]:
    layers = (("add_block.0", "reduce"), ("add_block.1", "bn"), ("classifier.0", "classifier"))
    return [
        (re.escape(f"{key}.{layer}"), f"{name}/{path}")
        for key, name in names.items()
        for layer, path in layers
    ]


_BACKBONE = [("model\\." + pattern, path) for pattern, path in _MODULES["resnet"]]
_MODULES["id"] = _BACKBONE + _heads({"classifier1": "prime", "classifier2": "fine"})
_MODULES["teacher"] = _BACKBONE + _heads({"classifier": "head"})

# Keys that a checkpoint carries and that no computation uses: counters, the ImageNet layer of
# E_a, and the running averages of the decoder's AdaIN.
_UNUSED = re.compile(r".*num_batches_tracked|(model\.)?fc\..*|dec\..*\.norm\.running_(mean|var)")

_STATISTICS = {"running_mean": "mean", "running_var": "var"}


def is_unused(key: str) -> bool:
    """Whether a checkpoint's tensor is known and has no counterpart here."""
    return _UNUSED.fullmatch(key) is not None


def locate(network: Network, key: str) -> Location | None:
    """Where the tensor of a PyTorch key lives; None for one of no known layer or without use.

    `network` is "gen" (structure encoder, decoder, MLPs), "id" (E_a), "dis", "teacher" or
    "resnet" (torchvision's names).
    """
    if is_unused(key):
        return None
    module, _, leaf = key.rpartition(".")
    for pattern, replacement in _MODULES[network]:
        match = re.fullmatch(pattern, module)
        if not match:
            continue
        path = tuple(match.expand(replacement).split("/"))
        if leaf in _STATISTICS:
            return Location("batch_stats", (*path, _STATISTICS[leaf]))
        if leaf == "weight":
            leaf = "scale" if path[-1].startswith(("bn", "downsample_bn")) else "kernel"
        return Location("params", (*path, leaf))
    return None


def to_flax_layout(tensor: np.ndarray) -> np.ndarray:
    """(out, in, rows, columns) or (out, in) to (rows, columns, in, out) or (in, out)."""
    if tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    return tensor.T if tensor.ndim == 2 else tensor


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    """The inverse of `to_flax_layout`."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 else array


class Conversion(NamedTuple):
    """variables: {"params", "batch_stats"} as nested dicts; unknown: keys of no known layer."""

    variables: dict[str, dict[str, Any]]
    unknown: list[str]


def convert_state_dict(network: Network, tensors: Mapping[str, np.ndarray]) -> Conversion:
    """A PyTorch state dict to Flax variables; known but unused tensors are left out."""
    variables: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    unknown = []
    for key, tensor in tensors.items():
        location = locate(network, key)
        if location is None:
            if not is_unused(key):
                unknown.append(key)
            continue
        node = variables[location.collection]
        for name in location.path[:-1]:
            node = node.setdefault(name, {})
        node[location.path[-1]] = to_flax_layout(np.asarray(tensor))
    return Conversion(variables, unknown)


def lookup(variables: Mapping[str, Any], location: Location) -> Any:
    """The array at a location of {"params": ..., "batch_stats": ...}."""
    node: Any = variables[location.collection]
    for name in location.path:
        node = node[name]
    return node


class Loaded(NamedTuple):
    """variables with what the file held put in; missing: paths that kept their start values."""

    variables: dict[str, Any]
    missing: list[str]


def _flatten(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterable[tuple]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def load_backbone(path: str, variables: Mapping[str, Any]) -> Loaded:
    """Puts ImageNet weights (torchvision's names, .safetensors) into a network's backbone.

    Args:
        path: the file of `--config.pretrained`.
        variables: {"params", "batch_stats"} of a network with a "backbone".

    Raises:
        InputError: no such file, not a safetensors file, no ResNet in it, or a wrong shape.
    """
    if not Path(path).is_file():
        raise InputError(
            f"--config.pretrained: no file {path}. Give a .safetensors file in torchvision's "
            "naming (BUILD.md says how to convert a .pth), or leave it empty to start from scratch"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"--config.pretrained: {path} is not a readable safetensors file ({error}). A .pth is "
            "converted first; BUILD.md says how"
        ) from error
    found = convert_state_dict("resnet", tensors).variables
    leaves = {
        (collection, *path): value
        for collection, tree in found.items()
        for path, value in _flatten(tree)
    }
    if not leaves:
        raise InputError(
            f"--config.pretrained: {path} holds no tensor of a ResNet (its first keys: "
            f"{', '.join(list(tensors)[:3])}); torchvision's names are expected, like "
            "'layer1.0.conv1.weight'"
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


def read_pth(path: str) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict file, read without executing anything in it.

    Raises:
        InputError: PyTorch is missing, or the file is not a plain state dict of tensors.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "reading .pth files needs PyTorch: pip install 'dgnet-jax[convert]' or torch"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # unpickling, zip and end-of-file errors of many kinds
        raise InputError(
            f"{path}: not a PyTorch state dict that can be read without executing code in it "
            f"({type(error).__name__}); save model.state_dict() with torch.save"
        ) from error
    if not isinstance(content, Mapping) or not all(
        isinstance(tensor, torch.Tensor) for tensor in content.values()
    ):
        raise InputError(
            f"{path}: expected a state dict (names to tensors), found {type(content).__name__}; "
            "save model.state_dict() instead of the model"
        )
    return {str(key): tensor.numpy() for key, tensor in content.items()}


def main(argv: list[str]) -> None:
    """`python -m dgnet_jax.convert FILE.pth OUT.safetensors`: torchvision's ResNet-50."""
    if len(argv) != 2:
        raise SystemExit("usage: python -m dgnet_jax.convert FILE.pth OUT.safetensors")
    source, target = argv
    try:
        tensors = read_pth(source)
        known = {key: tensor for key, tensor in tensors.items() if locate("resnet", key)}
        if not known:
            raise InputError(
                f"{source}: no tensor of torchvision's ResNet in it (its first keys: "
                f"{', '.join(list(tensors)[:3])})"
            )
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    with replacing(target) as temporary:
        save_file({key: np.ascontiguousarray(tensor) for key, tensor in known.items()}, temporary)
    unused = [key for key in tensors if key not in known]
    print(f"{target}: {len(known)} tensors; left out, not used here: {', '.join(unused) or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
