"""The measures of generated images, for `--mode=evaluate` and for studies."""

from functools import partial
from pathlib import Path

import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Int

from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.data.poses import read_poses
from dgnet_jax.data.splits import JUNK
from dgnet_jax.data.synthetic import Settings, drawn_settings
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.extraction import InceptionExtractor, load_extractor
from dgnet_jax.evaluation.fid_protocol import swapped_training_images
from dgnet_jax.evaluation.garment_bands import check_poses, measure_garments
from dgnet_jax.evaluation.generated_images import FeatureFn, RealImages, Results, evaluate_generated
from dgnet_jax.evaluation.truth import chosen_swaps, measure_truth, unmeasurable
from dgnet_jax.inference import DGNet, load_teacher_model
from dgnet_jax.runtime.devices import on_first_process
from dgnet_jax.runtime.workdir import load_config

# Test people of a drawn data set on either side of its true swaps, at most.
TRUE_PEOPLE = 16


def measure_images(config: ml_collections.ConfigDict, model: DGNet, data: ReidData) -> Results:
    """DG-Net's protocol for a model on a data set, with the networks that there are.

    Args:
        config: `inception` ("" leaves FID and KID out), `evaluation.fid_dims`,
            `evaluation.fid_images`, `evaluation.fid_jpeg`, `evaluation.batch_size`, `seed`;
            `teacher` for its network;
            `data.poses`, `data.root`.
        model: paints one image for every training image.
        data: training images, and the gallery for the floor.

    Returns:
        What `evaluate_generated` returns; `teacher_missing` says why there is no teacher; and
        what `measure_garments` returns of the gallery, unless the data set is drawn. Of a drawn one
        what `truth.measure_truth` returns, or `truth_missing`, the reason why it cannot.

    Raises:
        InputError: the file of `config.inception` or of `data.poses` cannot be used, or the
            teacher, if one is asked for (`teacher_is_given`).
    """
    poses = gallery_poses(config, data)
    missing: Results = {}
    teacher: FeatureFn | None = None
    # Released weights are a file: their teacher is another one, config.teacher.checkpoint.
    workdir = None if config.get("released", "") else model.source
    try:
        teacher = load_teacher_model(config, workdir).embeddings
    except InputError as error:
        if teacher_is_given(config, workdir):
            raise
        missing["teacher_missing"] = (
            f"identity consistency and the Frechet distance in the teacher's space are not "
            f"available: {error}"
        )
    real = real_images(config, data, teacher)
    results = measure_against(real, model) | missing
    if real.drawn is None:
        results |= measure_garments(model.swap, data.gallery, poses, config.seed)
    return results


def teacher_is_given(config: ml_collections.ConfigDict, workdir: str | Path | None) -> bool:
    """Whether a teacher is asked for now: not by the configuration that the run was trained with.

    A run remembers where the teacher was when it was trained, which may have been moved since.

    Args:
        config: of this evaluation.
        workdir: of the run; None with `config.released`.
    """
    asked = config.teacher.checkpoint
    if not asked or workdir is None:
        return bool(asked)
    return asked != load_config(workdir).teacher.get("checkpoint")


def gallery_poses(
    config: ml_collections.ConfigDict, data: ReidData
) -> dict[str, Int[np.ndarray, "18 2"]]:
    """The poses of `config.data.poses`; none, with a warning, for drawn people.

    Raises:
        InputError: a file cannot be used, or it has no image of the gallery.
    """
    files = config.data.get("poses", "")
    if files and on_first_process(partial(drawn_settings, config.data.root)) is not None:
        logging.warning("--config.data.poses is not used: of drawn people the truth is known")
        return {}
    poses = read_poses(files)
    check_poses(data.gallery, poses)
    return poses


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
        drawn=on_first_process(partial(drawn_settings, config.data.root)),
        jpeg=config.evaluation.get("fid_jpeg", True),
    )


def measure_against(real: RealImages, model: DGNet) -> Results:
    """Measures a model against `real`, whose seed also chooses structures; see `measure_images`."""
    logging.info("measuring %d generated images", len(real.images))
    generate = partial(swapped_training_images, model, seed=real.seed)
    results = evaluate_generated(generate, real)
    return results if real.drawn is None else results | _against_truth(real.drawn, real.seed, model)


def _against_truth(drawn: Settings, seed: int, model: DGNet) -> Results:
    """`measure_truth` for a choice of test people, or why it cannot be."""
    truth = chosen_swaps(drawn, TRUE_PEOPLE, seed, *model.image_size)
    reason = unmeasurable(truth)
    if reason:
        return {"truth_missing": f"Swaps were not compared with their truth: {reason}."}
    n, m = truth.truth.shape[:2]
    painted = model.swap(
        np.repeat(truth.appearances, m, axis=0), np.tile(truth.structures, (n, 1, 1, 1))
    )
    return {**measure_truth(painted.reshape(truth.truth.shape), truth)}


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
