"""What a study measures of a trained run."""

from pathlib import Path
from typing import Any

import ml_collections

from dgnet_jax.ablation.results import COUNTS, IMAGES, RANKING
from dgnet_jax.data.pipeline import ReidData
from dgnet_jax.evaluation.generated_images import RealImages
from dgnet_jax.evaluation.image_metrics import measure_against
from dgnet_jax.evaluation.retrieval import embed_split
from dgnet_jax.evaluation.variants import main_variant, rank
from dgnet_jax.inference import load_model
from dgnet_jax.training.loop import Metrics


def measure(
    config: ml_collections.ConfigDict,
    workdir: Path,
    data: ReidData,
    metrics: Metrics,
    real: RealImages | None,
) -> dict[str, Any]:
    """The ranking of the main row, and the measures of generated images.

    Args:
        config: of the run.
        workdir: of the run.
        data: the data set.
        metrics: the ranking at the end of training; empty if none was made.
        real: what generated images are compared with, the same for all runs of a study; None leaves
            their measures out.

    Returns:
        Fields of `results.FIELDS`.
    """
    model = load_model(config, workdir) if real is not None or not metrics else None
    if model is not None and not metrics:
        splits = (data.query, data.gallery)
        embedded = [embed_split(model.embeddings, split) for split in splits]
        metrics = rank(main_variant(config), *embedded).metrics
    found: dict[str, Any] = {name: metrics.get(name) for name in RANKING}
    found |= {name: int(metrics[name]) for name in COUNTS if name in metrics}
    if model is not None and real is not None:
        images = measure_against(real, model)
        found |= {name: images[name] for name in IMAGES if name in images}
    return found
