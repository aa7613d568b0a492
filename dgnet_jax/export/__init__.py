"""The re-ID encoder alone, compiled for deployment: StableHLO with its parameters inside.

`python -m dgnet_jax.export WORKDIR OUT` is the command. What it writes needs jax, flatbuffers,
NumPy and Pillow, but neither Flax nor this package.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from dgnet_jax.config import default_config, trained_config
from dgnet_jax.errors import InputError
from dgnet_jax.export import embed as example
from dgnet_jax.inference import DGNet, load_model
from dgnet_jax.models.forward import Forward
from dgnet_jax.runtime.atomic import replacing, write_json
from dgnet_jax.runtime.checkpoints import Step
from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.provenance import package_versions

PLATFORMS = ("cpu", "cuda", "tpu")
ARTEFACT, DESCRIPTION, EXAMPLE = "embedder.jax", "embedder.json", "embed.py"


class Features(NamedTuple):
    """What the exported function returns, all float32.

    prime, fine: (batch, dim), the two embeddings over the image and its mirror, of unit norm.
    ranking: (batch, 2 dim): their inner product is prime . prime + alpha * fine . fine.
    """

    prime: jax.Array
    fine: jax.Array
    ranking: jax.Array


class ExportedRun(NamedTuple):
    """artefact, onnx: the files, the latter None if not asked for; step, source: of the model."""

    artefact: Path
    onnx: Path | None
    step: int
    source: str


def export_run(
    workdir: str | Path,
    folder: str | Path,
    *,
    step: Step | None = None,
    alpha: float | None = None,
    onnx: bool = False,
) -> ExportedRun:
    """Exports the re-ID encoder of a run, or of a converted released checkpoint.

    Args:
        workdir: of the run; or a .safetensors file.
        folder: gets the files.
        step: as `inference.load_model`'s.
        alpha: weight of the fine embedding; the run's own by default.
        onnx: whether `embedder.onnx` is written too.

    Raises:
        InputError: there is no such run or checkpoint, alpha or the folder cannot be used, or
            jax2onnx is missing.
    """
    from dgnet_jax.export.onnx_file import require_jax2onnx, write_onnx

    if onnx:
        require_jax2onnx()
    workdir = user_path(workdir)
    if workdir.suffix == ".safetensors":
        config = default_config()
        config.released = str(workdir)
    else:
        config = trained_config(workdir)
    model = load_model(config, workdir, step)
    alpha = config.evaluation.alpha if alpha is None else alpha
    folder = write_export(model, folder, alpha)
    onnx_file = write_onnx(model, folder / "embedder.onnx", alpha) if onnx else None
    return ExportedRun(folder / ARTEFACT, onnx_file, model.step, model.source)


def embedder(model: DGNet, alpha: float) -> Callable[[jax.Array], Features]:
    """The function that is exported: (batch, rows, columns, 3) uint8 RGB to `Features`.

    Bicubic resize to the network's size, normalisation and the pass over the mirror are inside, as
    in evaluation.
    """
    forward = Forward(model.networks, *model.image_size)
    # Arrays, so that the two passes share one copy of the constants.
    appearance = jax.tree.map(jnp.asarray, jax.device_get(model.appearance))

    def embed(images: jax.Array) -> Features:
        prime, fine = forward.embeddings(appearance, images)
        return Features(prime, fine, jnp.concatenate([prime, alpha**0.5 * fine], axis=-1))

    return embed


def export_embedder(model: DGNet, alpha: float) -> jax_export.Exported:
    """Exports `embedder` for CPUs, NVIDIA GPUs and TPUs, for any batch.

    Its images have the size at which evaluation keeps them in memory (`config.data.cache_height`
    and `cache_width`), so that it computes what evaluation does. Convolutions are written down in
    the form that suits the device at hand; every platform runs either form.
    """
    rows, columns = model.config.data.cache_height, model.config.data.cache_width
    shape = jax_export.symbolic_shape(f"batch, {rows}, {columns}, 3")
    # Results are a plain tuple: a NamedTuple would have to be registered wherever it is loaded.
    function = embedder(model, alpha)
    return jax_export.export(jax.jit(lambda images: tuple(function(images))), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, jnp.uint8)
    )


def write_export(model: DGNet, folder: str | Path, alpha: float) -> Path:
    """Writes the exported function, its description, and the runnable example into a folder.

    Raises:
        InputError: alpha is negative or not finite, or the folder cannot be made.
    """
    if not 0 <= alpha < np.inf:
        raise InputError(f"--alpha: found {alpha}. Give a finite weight of 0 or above, such as 0.5")
    folder = user_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror})") from error
    exported = export_embedder(model, alpha)
    with replacing(folder / ARTEFACT) as path:
        path.write_bytes(exported.serialize())
    write_json(folder / DESCRIPTION, describe(model, exported, alpha))
    with replacing(folder / EXAMPLE) as path:
        shutil.copyfile(example.__file__, path)
    return folder


def describe(model: DGNet, exported: jax_export.Exported, alpha: float) -> dict[str, Any]:
    """What the example needs to know, and a person who writes another."""
    prime, fine, ranking = (["batch", *aval.shape[1:]] for aval in exported.out_avals)
    rows, columns = exported.in_avals[0].shape[1:3]
    return {
        "file": ARTEFACT,
        "input": {
            "shape": ["batch", rows, columns, 3],
            "dtype": "uint8",
            "meaning": "RGB crops of a person, resized with Pillow's bicubic filter; everything "
            "else (resize to the network's size, normalisation, the mirror image) is inside",
        },
        "outputs": [
            {"name": "prime", "shape": prime, "meaning": "embedding of unit norm"},
            {"name": "fine", "shape": fine, "meaning": "embedding of unit norm"},
            {
                "name": "ranking",
                "shape": ranking,
                "meaning": "prime and sqrt(alpha) fine; the inner product of two crops' is their "
                "score prime . prime + alpha fine . fine",
            },
        ],
        "alpha": alpha,
        "network_size": list(model.image_size),
        "source": {"path": model.source, "step": model.step},
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        "versions": package_versions("jax", "jaxlib", "flax"),
    }
