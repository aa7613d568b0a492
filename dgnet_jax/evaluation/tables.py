"""The tables that the commands print."""

from collections.abc import Mapping
from typing import Any

import ml_collections
from tabulate import tabulate

_COLUMNS = {
    "Rank@1": "rank1",
    "Rank@5": "rank5",
    "Rank@10": "rank10",
    "Rank@20": "rank20",
    "mAP": "mAP",
    "mAP (standard)": "mAP_standard",
    "mINP": "mINP",
}
_COUNTS = {
    "queries": "queries",
    "queries_without_match": "of them without a match",
    "gallery": "gallery images",
    "distractors": "of them distractors",
    "junk": "junk images left out",
    "multi_query_images": "images for multi-query",
    "queries_without_multi_query": "queries without any of them",
}
_NOTE = "In percent; mAP is the trapezoid one of DG-Net and the thesis."


def table(metrics: Mapping[str, float], config: ml_collections.ConfigDict) -> str:
    """The ranking metrics at the end of a training, in percent, and what they were measured on."""
    if not metrics:
        return "not evaluated: config.evaluation.every_steps is negative"
    name = "baseline" if config.get("baseline") else config.reconstruction_loss
    body = _ranking_table("loss", {name: metrics})
    return f"{body}\n{_counts(metrics)}. {_NOTE}"


def evaluation_table(evaluation: Mapping[str, Any]) -> str:
    """All rows of `evaluator.evaluate_fully`'s results, and what they were measured on."""
    body = _ranking_table("ranking", {row["name"]: row["metrics"] for row in evaluation["ranking"]})
    lines = [
        body,
        f"{_counts(evaluation['counts'])}. {_NOTE}",
        f"Trained on {evaluation['trained_on']} ({evaluation['identities']} identities, step "
        f"{evaluation['step']}, {evaluation['reconstruction_loss'] or 'baseline'}), evaluated on "
        f"{evaluation['evaluated_on']} ({evaluation['data_root']}).",
    ]
    if "multi_query_images" not in evaluation["counts"]:
        lines.append("No multi-query row: the data set comes without images for it (gt_bbox).")
    return "\n".join(lines + _images_table(evaluation["generated_images"]))


def _images_table(images: Mapping[str, Any]) -> list[str]:
    """Lines of the measures of generated images (`generated_images.evaluate_generated`)."""
    if not images:
        return []
    fid = f"FID ({images['dims']}-d)" if "dims" in images else "FID"
    columns = {
        fid: ("fid_png", "fid_jpeg", "fid_real"),
        "KID": ("kid_mean", "kid_jpeg_mean", "kid_real_mean"),
        "KID sd": ("kid_sd", "kid_jpeg_sd", "kid_real_sd"),
        "Frechet distance, teacher's features": ("teacher_frechet", "", "teacher_frechet_real"),
        "diversity": ("diversity", "", "diversity_real"),
        "identity consistency": ("identity_consistency", "", ""),
    }
    present = {
        title: names for title, names in columns.items() if any(name in images for name in names)
    }
    titles = ("generated, PNG", "generated, JPEG (as published)", "real: gallery")
    rows = [
        [title, *(images.get(names[index], "") for names in present.values())]
        for index, title in enumerate(titles)
    ]
    lines = ["", tabulate(rows, headers=["images", *present], floatfmt=".4g", tablefmt="github")]
    sizes = ", ".join(
        f"{images[key]} {text}"
        for key, text in (
            ("generated", "generated"),
            ("real", "real training images"),
            ("gallery", "gallery images"),
        )
        if key in images
    )
    lines.append(
        f"{sizes}. Distances are to the training images, of which the last row gives the diversity."
    )
    if images.get("fid_singular"):
        lines.append("Too few images for these features: the covariance is singular; prefer KID.")
    return lines + [value for value in images.values() if isinstance(value, str)]


def _ranking_table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """`rows`: name to metrics in shares of 1; those of an older checkpoint may lack columns."""
    columns = {
        shown: name
        for shown, name in _COLUMNS.items()
        if any(name in metrics for metrics in rows.values())
    }
    cells = [
        [row, *(100 * metrics[name] for name in columns.values())] for row, metrics in rows.items()
    ]
    return tabulate(cells, headers=[title, *columns], floatfmt=".2f", tablefmt="github")


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{int(counts[key])} {text}" for key, text in _COUNTS.items() if key in counts)
