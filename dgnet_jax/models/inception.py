"""The 2015 Inception that FID is defined by (TensorFlow's inception-2015-12-05 graph).

It is not torchvision's Inception v3: average pools do not count padding, and the pool branch of the
last block takes a 3x3 maximum. Layers have the names that pytorch-fid gives them, so a weight file
is read key by key. The network is only ever applied, so each batch norm (eps 1e-3) is folded into
its convolution when the weights are read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Float, Float64, UInt8

from dgnet_jax.errors import InputError
from dgnet_jax.models.blocks import Array, Geometry, convolve, kaiming_fan_in
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import read_safetensors

# Feature choices, by their channels: after the first and the second max pool, before the auxiliary
# classifier, and the last pool (pytorch-fid's `--dims`).
DIMS = (64, 192, 768, 2048)
INPUT_SIZE = 299
BATCH_NORM_EPSILON = 1e-3

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
HOW_TO_GET_WEIGHTS = (
    f"Download {WEIGHTS_FILE} (github.com/mseitzer/pytorch-fid, release fid_weights) and convert "
    f"it: python -m dgnet_jax.convert {WEIGHTS_FILE} inception.safetensors"
)


class ConvRelu(nn.Module):
    """Convolution with zero padding (rows, columns), bias, ReLU."""

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch out_h out_w {self.features}"]:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = jnp.asarray(self.param("kernel", kaiming_fan_in, shape), x.dtype)
        bias = jnp.asarray(self.param("bias", nn.initializers.zeros, (self.features,)), x.dtype)
        geometry = Geometry(self.stride, padding=self.padding)
        return nn.relu(convolve(x, kernel, geometry) + bias)


def max_pool(
    x: Float[Array, "batch h w c"], stride: int = 2, padding: int = 0
) -> Float[Array, "batch out_h out_w c"]:
    """3x3 maximum."""
    widths = ((padding, padding), (padding, padding))
    return nn.max_pool(x, (3, 3), (stride, stride), widths)


def average_pool(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
    """3x3 average, stride 1, over those of the nine pixels that lie inside the image."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _concatenate(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


class Mixed35(nn.Module):
    """The blocks at 35 x 35 (Mixed_5b to 5d)."""

    pool_features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch h w 224+{self.pool_features}"]:
        point = ConvRelu(64, name="branch1x1")(x)
        five = ConvRelu(48, name="branch5x5_1")(x)
        five = ConvRelu(64, (5, 5), padding=(2, 2), name="branch5x5_2")(five)
        double = ConvRelu(64, name="branch3x3dbl_1")(x)
        double = ConvRelu(96, (3, 3), padding=(1, 1), name="branch3x3dbl_2")(double)
        double = ConvRelu(96, (3, 3), padding=(1, 1), name="branch3x3dbl_3")(double)
        pool = ConvRelu(self.pool_features, name="branch_pool")(average_pool(x))
        return _concatenate(point, five, double, pool)


class ReduceTo17(nn.Module):
    """35 x 35 to 17 x 17 (Mixed_6a)."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h//2 w//2 c+480"]:
        three = ConvRelu(384, (3, 3), stride=2, name="branch3x3")(x)
        double = ConvRelu(64, name="branch3x3dbl_1")(x)
        double = ConvRelu(96, (3, 3), padding=(1, 1), name="branch3x3dbl_2")(double)
        double = ConvRelu(96, (3, 3), stride=2, name="branch3x3dbl_3")(double)
        return _concatenate(three, double, max_pool(x))


class Mixed17(nn.Module):
    """The blocks at 17 x 17 (Mixed_6b to 6e), `width` channels inside their branches."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w 768"]:
        point = ConvRelu(192, name="branch1x1")(x)
        seven = ConvRelu(self.width, name="branch7x7_1")(x)
        seven = _row(self.width, "branch7x7_2")(seven)
        seven = _column(192, "branch7x7_3")(seven)
        double = ConvRelu(self.width, name="branch7x7dbl_1")(x)
        double = _column(self.width, "branch7x7dbl_2")(double)
        double = _row(self.width, "branch7x7dbl_3")(double)
        double = _column(self.width, "branch7x7dbl_4")(double)
        double = _row(192, "branch7x7dbl_5")(double)
        pool = ConvRelu(192, name="branch_pool")(average_pool(x))
        return _concatenate(point, seven, double, pool)


class ReduceTo8(nn.Module):
    """17 x 17 to 8 x 8 (Mixed_7a)."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h//2 w//2 c+512"]:
        three = ConvRelu(192, name="branch3x3_1")(x)
        three = ConvRelu(320, (3, 3), stride=2, name="branch3x3_2")(three)
        seven = ConvRelu(192, name="branch7x7x3_1")(x)
        seven = _row(192, "branch7x7x3_2")(seven)
        seven = _column(192, "branch7x7x3_3")(seven)
        seven = ConvRelu(192, (3, 3), stride=2, name="branch7x7x3_4")(seven)
        return _concatenate(three, seven, max_pool(x))


class Mixed8(nn.Module):
    """The blocks at 8 x 8 (Mixed_7b and 7c), which differ in their pool."""

    pool: Callable[[Float[Array, "batch h w c"]], Float[Array, "batch h w c"]]

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w 2048"]:
        point = ConvRelu(320, name="branch1x1")(x)
        three = ConvRelu(384, name="branch3x3_1")(x)
        double = ConvRelu(448, name="branch3x3dbl_1")(x)
        double = ConvRelu(384, (3, 3), padding=(1, 1), name="branch3x3dbl_2")(double)
        pool = ConvRelu(192, name="branch_pool")(self.pool(x))
        return _concatenate(
            point,
            ConvRelu(384, (1, 3), padding=(0, 1), name="branch3x3_2a")(three),
            ConvRelu(384, (3, 1), padding=(1, 0), name="branch3x3_2b")(three),
            ConvRelu(384, (1, 3), padding=(0, 1), name="branch3x3dbl_3a")(double),
            ConvRelu(384, (3, 1), padding=(1, 0), name="branch3x3dbl_3b")(double),
            pool,
        )


def _row(features: int, name: str) -> ConvRelu:
    return ConvRelu(features, (1, 7), padding=(0, 3), name=name)


def _column(features: int, name: str) -> ConvRelu:
    return ConvRelu(features, (7, 1), padding=(3, 0), name=name)


class Inception(nn.Module):
    """The network up to the stage with `dims` channels, one of `DIMS`."""

    dims: int = 2048

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 299 299 3"]
    ) -> dict[int, Float[Array, "batch _h _w _channels"]]:
        """The feature maps of the stages up to `dims`.

        Args:
            images: in [-1, 1], from `prepare`.

        Returns:
            By channels: {64: (batch, 73, 73, 64), 192: (batch, 35, 35, 192),
            768: (batch, 17, 17, 768), 2048: (batch, 8, 8, 2048)}.
        """
        maps = {}
        x = ConvRelu(32, (3, 3), stride=2, name="Conv2d_1a_3x3")(images)
        x = ConvRelu(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = ConvRelu(64, (3, 3), padding=(1, 1), name="Conv2d_2b_3x3")(x)
        x = maps[64] = max_pool(x)
        if self.dims >= 192:
            x = ConvRelu(80, name="Conv2d_3b_1x1")(x)
            x = ConvRelu(192, (3, 3), name="Conv2d_4a_3x3")(x)
            x = maps[192] = max_pool(x)
        if self.dims >= 768:
            for letter, pool_features in (("b", 32), ("c", 64), ("d", 64)):
                x = Mixed35(pool_features, name=f"Mixed_5{letter}")(x)
            x = ReduceTo17(name="Mixed_6a")(x)
            for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
                x = Mixed17(width, name=f"Mixed_6{letter}")(x)
            maps[768] = x
        if self.dims >= 2048:
            x = ReduceTo8(name="Mixed_7a")(x)
            x = Mixed8(average_pool, name="Mixed_7b")(x)
            maps[2048] = Mixed8(lambda y: max_pool(y, 1, 1), name="Mixed_7c")(x)
        return maps


def prepare(
    images: UInt8[Array, "batch height width 3"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch 299 299 3"]:
    """Resizes to 299 x 299 and scales to [-1, 1], as pytorch-fid does it.

    Bilinear with half-pixel centres and without antialiasing, whatever the direction.
    """
    x = images.astype(dtype) / 255
    for axis in (1, 2):
        # Two matmuls of which the weights are exact; jax.image.resize computes them in float32.
        weights = jnp.asarray(_bilinear_weights(images.shape[axis], INPUT_SIZE), dtype)
        subscripts = "bhwc,oh->bowc" if axis == 1 else "bhwc,ow->bhoc"
        x = jnp.einsum(subscripts, x, weights, precision=lax.Precision.HIGHEST)
    return 2 * x - 1


def _bilinear_weights(size: int, target: int) -> Float64[np.ndarray, "{target} {size}"]:
    """Each output pixel as a mean of the two nearest input pixels."""
    centres = np.maximum((np.arange(target) + 0.5) * size / target - 0.5, 0)
    lower = np.floor(centres).astype(int)
    share = centres - lower
    weights = np.zeros((target, size))
    rows = np.arange(target)
    np.add.at(weights, (rows, lower), 1 - share)
    np.add.at(weights, (rows, np.minimum(lower + 1, size - 1)), share)
    return weights


def inception_features(
    params: Mapping[str, Any],
    images: UInt8[Array, "batch height width 3"],
    dims: int,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "batch {dims}"]:
    """Features for FID: the spatial mean of a stage. Pure; jit the caller.

    Args:
        params: from `load_inception`.
        images: of any size.
        dims: 64, 192, 768 or 2048.
        dtype: of all arithmetic.
    """
    # The default precision of GPUs and TPUs (TF32, bfloat16) would shift the distance.
    with jax.default_matmul_precision("highest"):
        maps = Inception(dims).apply({"params": params}, prepare(images, dtype))
    assert isinstance(maps, dict)
    return maps[dims].mean((1, 2))


def check_dims(dims: int) -> None:
    """Raises InputError unless `dims` is one of `DIMS`."""
    if dims not in DIMS:
        raise InputError(f"dims: found {dims}. Give one of {', '.join(map(str, DIMS))}.")


def parameter_shapes(dims: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Path to shape of every parameter that `dims` needs."""
    images = jax.ShapeDtypeStruct((1, INPUT_SIZE, INPUT_SIZE, 3), jnp.float32)
    tree = jax.eval_shape(Inception(dims).init, jax.random.key(0), images)["params"]
    return {path: leaf.shape for path, leaf in flatten_dict(tree).items()}


_TENSORS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def convert_inception(
    read: Callable[[str], np.ndarray], keys: set[str], dims: int, source: str
) -> dict[str, Any]:
    """The parameters of `Inception(dims)` from tensors in pytorch-fid's names.

    Args:
        read: a key to its tensor; only what `dims` needs is read.
        keys: those that there are; further ones are left alone.
        source: the file's name, for messages.

    Returns:
        Nested dict of float64 arrays.

    Raises:
        InputError: tensors are missing or of another shape.
    """
    check_dims(dims)
    shapes = parameter_shapes(dims)
    layers = [path[:-1] for path in shapes if path[-1] == "kernel"]
    missing = [
        key
        for layer in layers
        for key in (".".join((*layer, name)) for name in _TENSORS)
        if key not in keys
    ]
    if missing:
        raise InputError(_missing_message(source, dims, missing, keys))
    params: dict[tuple[str, ...], np.ndarray] = {}
    for layer in layers:
        tensors = [np.asarray(read(".".join((*layer, name))), np.float64) for name in _TENSORS]
        rows, columns, inputs, outputs = shapes[(*layer, "kernel")]
        expected = (outputs, inputs, rows, columns)
        for name, tensor in zip(_TENSORS, tensors, strict=True):
            wanted = expected if name == "conv.weight" else (outputs,)
            if tensor.shape != wanted:
                raise InputError(
                    f"{source}: {'.'.join((*layer, name))} has shape {tensor.shape}, the FID "
                    f"Inception's is {wanted}; the file is of another network. {HOW_TO_GET_WEIGHTS}"
                )
        kernel, scale, shift, mean, variance = tensors
        if not (variance >= 0).all():
            raise InputError(
                f"{source}: {'.'.join((*layer, 'bn.running_var'))} holds negative values, which no "
                f"variance has; the file is damaged. {HOW_TO_GET_WEIGHTS}"
            )
        factor = scale / np.sqrt(variance + BATCH_NORM_EPSILON)
        params[(*layer, "kernel")] = kernel.transpose(2, 3, 1, 0) * factor
        params[(*layer, "bias")] = shift - mean * factor
    return unflatten_dict(params)


def _missing_message(source: str, dims: int, missing: list[str], keys: set[str]) -> str:
    found = len({key for key in keys if key.endswith(".conv.weight")})
    if not found:
        names = ", ".join(sorted(keys)[:3]) or "none"
        return (
            f"{source}: no tensor of the FID Inception in it (its first keys: {names}; expected "
            f"are such as Conv2d_1a_3x3.conv.weight). {HOW_TO_GET_WEIGHTS}"
        )
    smaller = [
        choice
        for choice in DIMS
        if choice < dims
        and all(
            ".".join((*path[:-1], name)) in keys
            for path in parameter_shapes(choice)
            for name in _TENSORS
        )
    ]
    hint = f" This file is enough for --dims {smaller[-1]}." if smaller else ""
    return (
        f"{source}: {dims}-d features need {len(missing)} tensors that it lacks, the first "
        f"{missing[0]}. {HOW_TO_GET_WEIGHTS}.{hint}"
    )


def load_inception(path: str | Path, dims: int = 2048) -> dict[str, Any]:
    """The parameters of `Inception(dims)` from a .safetensors file in pytorch-fid's names.

    Returns:
        Nested dict of float32 arrays, the batch norms folded in float64.

    Raises:
        InputError: no such file, not safetensors, or without what `dims` needs; says how to get it.
    """
    check_dims(dims)
    path = user_path(path)
    try:
        tensors = read_safetensors(path).arrays
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file of Inception weights. {HOW_TO_GET_WEIGHTS}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}). A .pth is converted first: "
            f"python -m dgnet_jax.convert FILE.pth OUT.safetensors. {HOW_TO_GET_WEIGHTS}"
        ) from error
    params = convert_inception(tensors.__getitem__, set(tensors), dims, str(path))
    return jax.tree.map(lambda array: array.astype(np.float32), params)
