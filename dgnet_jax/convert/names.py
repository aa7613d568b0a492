"""Names and layouts of PyTorch checkpoints, and where each tensor lives here.

One table serves released DG-Net checkpoints (`gen`, `id`, `dis`), the teacher, and torchvision's
ResNets, in both directions. PyTorch keeps kernels as (out, in, rows, columns) and (out, in); here
they are (rows, columns, in, out) and (in, out).
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dgnet_jax.models import Variables

Network = Literal["gen", "id", "dis", "teacher", "resnet"]


class Location(NamedTuple):
    """Where a tensor lives: collection "params" or "batch_stats", and the path inside it."""

    collection: str
    path: tuple[str, ...]


class _Template:
    """Text with numbers in it: "{i}" stands for i, "{i:+5}" for i + 5 and "{d:*2}" for 2 d."""

    def __init__(self, text: str) -> None:
        pieces = re.split(r"\{(\w)(?::([+*]\d))?\}", text)
        self._literals = pieces[0::3]
        self._fields = list(zip(pieces[1::3], pieces[2::3], strict=True))
        pattern = re.escape(self._literals[0])
        for (name, _), literal in zip(self._fields, self._literals[1:], strict=True):
            pattern += rf"(?P<{name}>\d+)" + re.escape(literal)
        self._pattern = re.compile(pattern)

    def parse(self, text: str) -> dict[str, int] | None:
        """The numbers in `text`; None if it is not of this form."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        numbers = {}
        for name, change in self._fields:
            number = int(match[name])
            if change and change[0] == "+":
                number -= int(change[1:])
            elif change:
                if number % int(change[1:]):
                    return None
                number //= int(change[1:])
            if number < 0:
                return None
            numbers[name] = number
        return numbers

    def fill(self, numbers: Mapping[str, int]) -> str:
        """The inverse of `parse`."""
        text = self._literals[0]
        for (name, change), literal in zip(self._fields, self._literals[1:], strict=True):
            number = numbers[name]
            if change:
                by = int(change[1:])
                number = number + by if change[0] == "+" else number * by
            text += f"{number}{literal}"
        return text


# (the module's key there, its path here). Names that the released networks do not have, because
# they have another number of blocks or other dilations, follow from the same forms.
_RESNET = [
    ("conv1", "backbone/conv1"),
    ("bn1", "backbone/bn1"),
    ("layer{s}.{i}.conv{c}", "backbone/layer{s}_{i}/conv{c}"),
    ("layer{s}.{i}.bn{c}", "backbone/layer{s}_{i}/bn{c}"),
    ("layer{s}.{i}.downsample.0", "backbone/layer{s}_{i}/downsample_conv"),
    ("layer{s}.{i}.downsample.1", "backbone/layer{s}_{i}/downsample_bn"),
]


def _reid(heads: Mapping[str, str]) -> list[tuple[str, str]]:
    layers = (("add_block.0", "reduce"), ("add_block.1", "bn"), ("classifier.0", "classifier"))
    return [
        *((f"model.{released}", ours) for released, ours in _RESNET),
        *(
            (f"{key}.{layer}", f"{name}/{path}")
            for key, name in heads.items()
            for layer, path in layers
        ),
    ]


_PYRAMID = "enc_content.model.5"
_MODULES: dict[str, list[tuple[str, str]]] = {
    "gen": [
        ("enc_content.model.{i}.conv", "structure_encoder/conv_{i}/conv"),
        ("enc_content.model.4.model.{i}.model.{c}.conv", "structure_encoder/residual_{i}/conv_{c}"),
        (f"{_PYRAMID}.conv1.conv", "structure_encoder/pyramid/point/conv"),
        (f"{_PYRAMID}.conv{{d:*2}}.0.conv", "structure_encoder/pyramid/reduce_{d}/conv"),
        (f"{_PYRAMID}.conv{{d:*2}}.1.conv", "structure_encoder/pyramid/dilated_{d}/conv"),
        (f"{_PYRAMID}.fuse.conv", "structure_encoder/pyramid/fuse/conv"),
        ("dec.model.1.model.{i}.model.{c}.conv", "decoder/residual_{i}/conv_{c}"),
        ("dec.model.3.conv", "decoder/upsample_0"),
        ("dec.model.3.norm", "decoder/upsample_norm_0"),
        ("dec.model.5.conv", "decoder/upsample_1"),
        ("dec.model.5.norm", "decoder/upsample_norm_1"),
        ("dec.model.6.conv", "decoder/refine_0"),
        ("dec.model.7.conv", "decoder/refine_1"),
        ("dec.model.8.conv", "decoder/to_image"),
        ("mlp_w{i:+1}.model.{c}.fc", "decoder/scale_mlp_{i}/dense_{c}"),
        ("mlp_b{i:+1}.model.{c}.fc", "decoder/shift_mlp_{i}/dense_{c}"),
    ],
    "dis": [
        ("cnns.{s}.{i}.conv", "scales_{s}/conv_{i}"),
        ("cnns.{s}.{i:+5}.model.{c}.conv", "scales_{s}/residual_{i}/conv_{c}"),
        # n residual blocks come before it.
        ("cnns.{s}.{n:+5}", "scales_{s}/scores"),
    ],
    "id": _reid({"classifier1": "prime", "classifier2": "fine"}),
    "teacher": _reid({"classifier": "head"}),
    "resnet": _RESNET,
}
_RULES = {
    network: [(_Template(released), _Template(ours)) for released, ours in modules]
    for network, modules in _MODULES.items()
}

# Keys that a checkpoint carries and that no computation uses: counters, the ImageNet layer of
# E_a, and the running averages of the decoder's AdaIN.
_UNUSED = re.compile(r".*num_batches_tracked|(model\.)?fc\..*|dec\..*\.norm\.running_(mean|var)")

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
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
    for released, ours in _RULES[network]:
        numbers = released.parse(module)
        if numbers is None:
            continue
        path = tuple(ours.fill(numbers).split("/"))
        if leaf in _STATISTICS:
            return Location("batch_stats", (*path, _STATISTICS[leaf]))
        if leaf == "weight":
            leaf = "scale" if path[-1].startswith(("bn", "downsample_bn")) else "kernel"
        return Location("params", (*path, leaf))
    return None


def torch_keys(network: Network, variables: Mapping[str, Any]) -> dict[str, Location]:
    """The inverse of `locate` for all leaves of {"params": ..., "batch_stats": ...}.

    Raises:
        KeyError: a leaf is none of this network.
    """
    keys = {}
    for collection, tree in variables.items():
        blocks = {path[:2] for path in flatten_dict(tree) if path[1].startswith("residual_")}
        for path in flatten_dict(tree):
            module, leaf = "/".join(path[:-1]), path[-1]
            count = sum(scale == path[0] for scale, _ in blocks)
            found = (
                released.fill({"n": count, **numbers})
                for released, ours in _RULES[network]
                if (numbers := ours.parse(module)) is not None
            )
            key = next(found, None)
            if key is None:
                raise KeyError(f"{collection}/{module}/{leaf} has no name in {network!r}")
            keys[f"{key}.{_LEAVES.get(leaf, leaf)}"] = Location(collection, path)
    return keys


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


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `to_torch_layout` gives an array of this one."""
    return to_torch_layout(np.broadcast_to(np.float32(0), shape)).shape


class Conversion(NamedTuple):
    """variables: {"params", "batch_stats"} as nested dicts; unknown: keys of no known layer."""

    variables: Variables
    unknown: list[str]


def convert_state_dict(network: Network, tensors: Mapping[str, np.ndarray]) -> Conversion:
    """A PyTorch state dict to Flax variables; known but unused tensors are left out."""
    leaves: dict[str, dict[tuple[str, ...], Any]] = {"params": {}, "batch_stats": {}}
    unknown = []
    for key, tensor in tensors.items():
        location = locate(network, key)
        if location is not None:
            leaves[location.collection][location.path] = to_flax_layout(np.asarray(tensor))
        elif not is_unused(key):
            unknown.append(key)
    return Conversion({name: unflatten_dict(tree) for name, tree in leaves.items()}, unknown)


def lookup(variables: Mapping[str, Any], location: Location) -> Any:
    """The array at a location of {"params": ..., "batch_stats": ...}."""
    node: Any = variables[location.collection]
    for name in location.path:
        node = node[name]
    return node


def state_dict(network: Network, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flax variables to PyTorch's names and layout: the inverse of `convert_state_dict`."""
    return {
        key: np.ascontiguousarray(to_torch_layout(np.asarray(lookup(variables, location))))
        for key, location in torch_keys(network, variables).items()
    }
