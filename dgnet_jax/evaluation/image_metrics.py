"""The measures of generated images, for `--mode=evaluate` and for studies."""

from functools import partial
from pathlib import Path

import ml_collections
from absl import logging

from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.splits import JUNK
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.extraction import InceptionExtractor, load_extractor
from dgnet_jax.evaluation.fid_protocol import swapped_training_images
from dgnet_jax.evaluation.generated_images import FeatureFn, RealImages, Results, evaluate_generated
from dgnet_jax.inference import DGNet, load_teacher_model


def measure_images(config: ml_collections.ConfigDict, model: DGNet, data: ReidData) -> Results:
    """DG-Net's protocol for a model on a data set, with the networks that there are.

    Args:
        config: `inception` ("" leaves FID and KID out), `evaluation.fid_dims`,
            `evaluation.fid_images`, `evaluation.batch_size`, `seed`; `teacher` for its network.
        model: paints one image for every training image.
        data: training images, and the gallery for the floor.

    Returns:
        What `evaluate_generated` returns; `teacher_missing` says why there is no teacher.

    Raises:
        InputError: the file of `config.inception` cannot be used.
    """
    missing: Results = {}
    teacher: FeatureFn | None = None
    try:
        # Released weights are a file: their teacher is another one, config.teacher.checkpoint.
        workdir = None if config.get("released", "") else model.source
        teacher = load_teacher_model(config, workdir).embeddings
    except InputError as error:
        missing["teacher_missing"] = (
            f"identity consistency and the Frechet distance in the teacher's space are not "
            f"available: {error}"
        )
    return measure_against(real_images(config, data, teacher), model) | missing


def real_images(
    config: ml_collections.ConfigDict,
    data: ReidData,
    teacher: FeatureFn | None,
    *,
    cache: str | Path | None = None,
) -> RealImages:
    """What `measure_images` compares with; several models can share it.

    Args:
        config, data: as `measure_images`'.
        teacher: its embeddings, or None.
        cache: a file for the Inception features of real images, see `RealImages`.

    Raises:
        InputError: the file of `config.inception` cannot be used, or a number is out of range.
    """
    limit = config.evaluation.get("fid_images", 0)
    if limit < 0:
        raise InputError(
            f"--config.evaluation.fid_images: found {limit}. Give a number of images, or 0 for all."
        )
    gallery = data.gallery
    return RealImages(
        data.train_images,
        data.train_labels,
        gallery.images[gallery.identities != JUNK],
        inception=_inception(config),
        teacher=teacher,
        limit=limit,
        seed=config.seed,
        cache=cache,
    )


def measure_against(real: RealImages, model: DGNet) -> Results:
    """Measures a model against `real`, whose seed also chooses structures; see `measure_images`."""
    logging.info("measuring %d generated images", len(real.images))
    generate = partial(swapped_training_images, model, seed=real.seed)
    return evaluate_generated(generate, real)


def _inception(config: ml_collections.ConfigDict) -> InceptionExtractor | None:
    path = config.get("inception", "")
    if not path:
        return None
    try:
        return load_extractor(
            path, config.evaluation.get("fid_dims", 2048), config.evaluation.batch_size
        )
    except InputError as error:
        raise InputError(f"--config.inception: {error}") from error
