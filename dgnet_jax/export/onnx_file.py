"""The re-ID encoder as an ONNX file, through jax2onnx (the extra `[onnx]`).

Tried with jax2onnx 0.13.0 (what pip resolves on Python 3.11), jax 0.10.2, onnx 1.23 and onnxruntime
1.31: any batch, uint8 images, the features of the full-size network equal to 1e-4. Two operations
it did not take with a symbolic batch: `jax.image.resize`, so the resize is written here as two
products with constant matrices, and `lax.pad`, for which `jnp.pad` stands in `models.resnet`. A
choice by platform it does not take at all, so convolutions have their plain form.
"""

import logging
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from dgnet_jax.errors import InputError
from dgnet_jax.export import Features, embedder
from dgnet_jax.inference import DGNet
from dgnet_jax.models.blocks import plain_convolutions
from dgnet_jax.runtime.atomic import replacing


def write_onnx(model: DGNet, path: str | Path, alpha: float) -> Path:
    """Writes `embedder` as ONNX: images (batch, rows, columns, 3) uint8 to `Features`.

    Raises:
        InputError: jax2onnx is not installed.
    """
    jax2onnx = require_jax2onnx()
    # It warns once for each shape that it need not write down.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    rows, columns = model.config.data.cache_height, model.config.data.cache_width
    height, width = model.image_size
    # Made outside of the conversion, which puts an operation of its own in the resize's place.
    matrices = _resize_matrix(rows, height), _resize_matrix(columns, width)
    embed = embedder(model, alpha)

    def embed_resized(images: jax.Array) -> tuple[jax.Array, ...]:
        with plain_convolutions():
            return tuple(embed(_resize(images, *matrices)))

    shape = jax_export.symbolic_shape(f"batch, {rows}, {columns}, 3")
    converted = jax2onnx.to_onnx(
        embed_resized,
        [jax.ShapeDtypeStruct(shape, jnp.uint8)],
        model_name="dgnet_embedder",
        input_names=["images"],
        output_names=list(Features._fields),
    )
    with replacing(path) as temporary:
        temporary.write_bytes(converted.SerializeToString())
    return Path(path)


def require_jax2onnx() -> ModuleType:
    """The converter, which is no requirement of the package itself.

    Raises:
        InputError: it is not installed.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise InputError("--onnx needs jax2onnx: pip install 'jax2onnx>=0.13'") from error
    return jax2onnx


def _resize_matrix(found: int, wanted: int) -> np.ndarray | None:
    """(wanted, found): what the bicubic resize makes of each unit vector; None for no change."""
    if found == wanted:
        return None
    unit = jnp.eye(found, dtype=jnp.float32)
    return np.asarray(jax.image.resize(unit, (wanted, found), "cubic", antialias=True))


def _resize(images: jax.Array, rows: np.ndarray | None, columns: np.ndarray | None) -> jax.Array:
    """`data.augment.resize` of (batch, rows, columns, 3) uint8 by matrices."""
    for matrix, product in ((columns, "bhwc,ow->bhoc"), (rows, "bhwc,oh->bowc")):
        if matrix is not None:
            resized = jnp.einsum(product, images.astype(jnp.float32), matrix)
            images = jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)
    return images
