"""What network a PyTorch state dict is of, and whether it is whole."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from dgnet_jax.convert.names import Network, is_unused, locate, torch_keys, torch_shape
from dgnet_jax.errors import InputError
from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.discriminator import Discriminator
from dgnet_jax.models.inception import DIMS, HOW_TO_GET_WEIGHTS, parameter_shapes
from dgnet_jax.models.reid import AppearanceEncoder, Teacher
from dgnet_jax.models.resnet import ResNet
from dgnet_jax.models.structure_encoder import StructureEncoder

Kind = Literal["gen", "id", "dis", "teacher", "resnet", "inception"]
Shape = tuple[int, ...]

KINDS: dict[Kind, str] = {
    "gen": "a released DG-Net's gen_*.pt (structure encoder, decoder, MLPs)",
    "id": "a released DG-Net's id_*.pt (appearance encoder)",
    "dis": "a released DG-Net's dis_*.pt (discriminator)",
    "teacher": "the teacher's net_last.pth",
    "resnet": "torchvision's ResNet",
    "inception": "the FID Inception (pt_inception-2015-12-05)",
}
# Kinds of which a part is of use: a backbone's first stages, the FID features before the last.
INCOMPLETE: tuple[Kind, ...] = ("resnet", "inception")
# Keys of each kind and of no other.
_SIGNATURES: dict[Kind, str] = {
    "gen": r"(enc_content|dec|mlp_[wb]\d+)\..*",
    "id": r"classifier[12]\..*",
    "dis": r"cnns\.\d+\..*",
    "teacher": r"classifier\.(add_block|classifier)\..*",
    "resnet": r"(conv1|layer\d\.\d+\.conv\d)\.weight",
    "inception": r"(Conv2d_\d\w_|Mixed_\d\w\.).*",
}
# Any image will do: parameters do not depend on its size.
_IMAGES = jax.ShapeDtypeStruct((2, 256, 128, 3), jnp.float32)


class Fit(NamedTuple):
    """How tensors compare with a network: keys that it lacks, and (key, found, wanted) shapes."""

    missing: list[str]
    misshapen: list[tuple[str, Shape, Shape]]

    @property
    def faults(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.misshapen)

    def describe(self, limit: int = 4) -> str:
        """The first faults in words."""
        items = [f"{key} is missing" for key in self.missing]
        items += [f"{key} has shape {found}, not {wanted}" for key, found, wanted in self.misshapen]
        more = f" and {len(items) - limit} more" if len(items) > limit else ""
        return "; ".join(items[:limit]) + more


def recognise(keys: list[str], source: str) -> Kind:
    """The kind of a state dict with these keys.

    Raises:
        InputError: it is none of `KINDS`, or of several.
    """
    found = [
        kind
        for kind, signature in _SIGNATURES.items()
        if any(re.fullmatch(signature, key) for key in keys)
    ]
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
    raise InputError(
        f"{source}: its keys are those of {' and '.join(found) or 'no network known here'} "
        f"({_first(keys)}). Known are {known}. --kind chooses one"
    )


def check(kind: Kind, shapes: Mapping[str, Shape], source: str) -> list[str]:
    """Compares a state dict with the network of its kind: the published one, or one of other sizes.

    Args:
        kind: of which network the file is.
        shapes: key to shape, in PyTorch's layout.
        source: the file's name.

    Returns:
        The keys that an incomplete file lacks.

    Raises:
        InputError: no tensor of this kind, a wrong shape, or a missing tensor.
    """
    if not any(re.fullmatch(_SIGNATURES[kind], key) for key in shapes):
        raise InputError(
            f"{source}: no tensor of {KINDS[kind]} in it (its first keys: {_first(list(shapes))})"
        )
    if kind == "inception":
        best = fit(shapes, _inception(shapes, source))
    else:
        identities = _size(shapes, r"classifier\d?\.classifier\.0\.weight", 0, 751)
        best = fit(shapes, _expected(kind, {}, identities))
        if best.faults:
            resized = fit(shapes, _expected(kind, shapes, identities))
            best = min(best, resized, key=lambda found: found.faults)
    if kind in INCOMPLETE:
        best, missing = best._replace(missing=[]), best.missing
    else:
        missing = []
    if best.faults:
        raise InputError(
            f"{source}: not a whole {kind} network ({KINDS[kind]}): {best.describe()}. The file "
            "is damaged or of another architecture"
        )
    return missing


def fit(found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> Fit:
    """Compares shapes by key; keys that are not wanted are ignored."""
    return Fit(
        [key for key in wanted if key not in found],
        [
            (key, tuple(found[key]), shape)
            for key, shape in wanted.items()
            if key in found and tuple(found[key]) != shape
        ],
    )


def shapes_of(network: Network, variables: Mapping[str, Any]) -> dict[str, Shape]:
    """PyTorch's key to the shape there, of arrays or of what `jax.eval_shape` returns."""
    leaves = {name: flatten_dict(tree) for name, tree in variables.items()}
    return {
        key: torch_shape(leaves[location.collection][location.path].shape)
        for key, location in torch_keys(network, variables).items()
    }


def generator_shapes(
    structure_encoder: StructureEncoder, decoder: Decoder, code_size: int
) -> dict[str, Shape]:
    """Of the gen file of these modules."""

    def init(images: jax.Array) -> Any:
        key = jax.random.key(0)
        structure = structure_encoder.init(key, images)["params"]
        rows, columns = images.shape[1] // 4, images.shape[2] // 4
        code = jnp.zeros((2, rows, columns, 8 * structure_encoder.dim))
        appearance = jnp.zeros((2, code_size))
        return {
            "params": {
                "structure_encoder": structure,
                "decoder": decoder.init(key, code, appearance)["params"],
            }
        }

    return shapes_of("gen", jax.eval_shape(init, _IMAGES))


def module_shapes(
    network: Network, module: AppearanceEncoder | Discriminator | Teacher
) -> dict[str, Shape]:
    """Of the id, dis or teacher file of a module."""
    return shapes_of(network, jax.eval_shape(module.init, jax.random.key(0), _IMAGES))


def _expected(kind: Kind, sizes: Mapping[str, Shape], identities: int) -> dict[str, Shape]:
    """What a network of these sizes holds; those not given are the published ones."""
    if kind == "gen":
        return _generator(sizes)
    return _discriminator(sizes) if kind == "dis" else _reid(kind, sizes, identities)


def _generator(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    blocks = _count(shapes, r"mlp_w(\d+)\..*", 5) - 1
    dilations = {
        int(match[1]) // 2
        for key in shapes
        if (match := re.fullmatch(r"enc_content\.model\.5\.conv(\d+)\.\d\.conv\.weight", key))
    }
    return generator_shapes(
        StructureEncoder(
            dim=_size(shapes, r"enc_content\.model\.0\.conv\.weight", 0, 16),
            num_residual=_count(shapes, r"enc_content\.model\.4\.model\.(\d+)\..*", 4),
            dilations=tuple(sorted(dilations)) or (3, 6, 9),
        ),
        Decoder(blocks, _size(shapes, r"mlp_w1\.model\.0\.fc\.weight", 0, 512)),
        blocks * _size(shapes, r"mlp_w1\.model\.0\.fc\.weight", 1, 2048),
    )


def _discriminator(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    module = Discriminator(
        dim=_size(shapes, r"cnns\.0\.0\.conv\.weight", 0, 32),
        num_residual=_count(shapes, r"cnns\.0\.(\d+)\.model\..*", 9) - 5,
        num_scales=_count(shapes, r"cnns\.(\d+)\..*", 3),
    )
    return module_shapes("dis", module)


def _reid(kind: Kind, shapes: Mapping[str, Shape], identities: int) -> dict[str, Shape]:
    stages = range(1, _count(shapes, r"(?:model\.)?layer(\d)\..*", 5))
    sizes: Shape = (3, 4, 6, 3)
    widths: Shape = (64, 128, 256, 512)
    bottleneck = True
    if shapes:
        prefix = r"(?:model\.)?layer"
        sizes = tuple(_count(shapes, rf"{prefix}{stage}\.(\d+)\..*", 1) for stage in stages)
        bottleneck = any(re.fullmatch(rf"{prefix}1\.0\.conv3\.weight", key) for key in shapes)
        widths = tuple(
            _size(shapes, rf"{prefix}{stage}\.0\.conv1\.weight", 0, 1) for stage in stages
        )
    backbone = ResNet(stage_sizes=sizes, stage_widths=widths, bottleneck=bottleneck)
    embedding = _size(shapes, r"classifier\d?\.add_block\.0\.weight", 0, 512)
    if kind == "id":
        encoder = AppearanceEncoder(backbone, identities, embedding=embedding)
        return module_shapes("id", encoder)
    teacher = module_shapes("teacher", Teacher(backbone, identities, embedding=embedding))
    if kind == "teacher":
        return teacher
    prefix = "model."
    return {
        key.removeprefix(prefix): shape for key, shape in teacher.items() if key.startswith(prefix)
    }


def _inception(shapes: Mapping[str, Shape], source: str) -> dict[str, Shape]:
    """What the FID network holds; torchvision's, whose keys are the same, is refused."""
    if any(key.startswith("AuxLogits.") for key in shapes) or shapes.get("fc.bias") == (1000,):
        raise InputError(
            f"{source}: torchvision's Inception v3, which gives other features than the network "
            f"that FID is defined with. {HOW_TO_GET_WEIGHTS}"
        )
    wanted: dict[str, Shape] = {}
    for (*layer, leaf), shape in parameter_shapes(max(DIMS)).items():
        module = ".".join(layer)
        if leaf == "kernel":
            wanted[f"{module}.conv.weight"] = torch_shape(shape)
        else:
            for name in ("weight", "bias", "running_mean", "running_var"):
                wanted[f"{module}.bn.{name}"] = shape
    return wanted


def unknown_keys(kind: Kind, keys: list[str]) -> list[str]:
    """Keys that the network of a kind does not have, such as those of non-local blocks."""
    if kind == "inception":
        return [
            key
            for key in keys
            if not is_unused(key) and not re.fullmatch(_SIGNATURES["inception"], key)
        ]
    return [key for key in keys if not is_unused(key) and locate(kind, key) is None]


def _size(shapes: Mapping[str, Shape], pattern: str, axis: int, default: int) -> int:
    for key, shape in shapes.items():
        if re.fullmatch(pattern, key) and len(shape) > axis and shape[axis]:
            return shape[axis]
    return default


def _count(shapes: Mapping[str, Shape], pattern: str, default: int) -> int:
    """One more than the largest number that the group of a pattern finds in the keys."""
    numbers = [int(match[1]) for key in shapes if (match := re.fullmatch(pattern, key))]
    # A key may hold any number; there are no more blocks than keys.
    return min(1 + max(numbers), len(shapes)) if numbers else default


def _first(keys: list[str], limit: int = 3) -> str:
    return ", ".join(keys[:limit]) or "none"
