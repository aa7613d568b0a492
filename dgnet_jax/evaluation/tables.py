"""The tables that the commands print."""

from collections.abc import Mapping
from typing import Any

import ml_collections
from tabulate import tabulate

from dgnet_jax.config_fields import reconstruction_text
from dgnet_jax.data.readers.counts import UNKNOWN_CAMERAS
from dgnet_jax.evaluation.fid_protocol import JPEG_IMAGES
from dgnet_jax.evaluation.truth import COLOURED

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
_TRUTH = {
    "appearance transfer": "appearance_transfer",
    "structure kept": "structure_kept",
    "L1": "truth_l1",
    "SSIM": "truth_ssim",
} | {f"ΔE {part}": f"truth_colour_error_{part}" for part in COLOURED}
_TRUTH_NOTE = (
    "Appearance transfer: 1 where garments have the truth's colours, 0 where the appearance image "
    "has no say. Structure kept: SSIM of lightness to the truth."
)


def table(metrics: Mapping[str, float], config: ml_collections.ConfigDict) -> str:
    """The ranking metrics at the end of a training, in percent, and what they were measured on.

    Of a drawn data set also how its swaps compare with their truth.
    """
    if "mAP" in metrics:
        name = "baseline" if config.get("baseline") else reconstruction_text(config)
        lines = [_ranking_table("loss", {name: metrics}), f"{_counts(metrics)}. {_NOTE}"]
        lines += _of_cameras(metrics, config.data.get("cameras", True))
    else:
        lines = ["not ranked: config.evaluation.every_steps is negative"]
    return "\n".join(lines + _truth_table(metrics))


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
    cameras = evaluation.get("configuration", {}).get("data", {}).get("cameras", True)
    lines += _of_cameras(evaluation["counts"], cameras)
    if cameras and "multi_query_images" not in evaluation["counts"]:
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
    titles = (
        "generated, PNG (ours)",
        "generated, JPEG (DG-Net's protocol)",
        "real: training images against the gallery",
    )
    rows = [
        [title, *(images.get(names[index], "") for names in present.values())]
        for index, title in enumerate(titles)
        if any(names[index] in images for names in present.values())
    ]
    lines = ["", tabulate(rows, headers=["images", *present], floatfmt=".4g", tablefmt="github")]
    sizes = ", ".join(
        f"{images[key]} {text}"
        for key, text in (
            ("generated", "generated"),
            ("generated_jpeg", "of them as JPEG"),
            ("real", "real training images"),
            ("gallery", "gallery images"),
        )
        if key in images
    )
    lines.append(
        f"{sizes}. Distances are to the training images, of which the last row gives the diversity."
    )
    if "fid_png" in images:
        note = "PNG is ours: all images, levels rounded to 8 bits."
        if "fid_jpeg" in images:
            note += (
                " JPEG is the protocol of published FIDs: at most "
                f"{JPEG_IMAGES} images, levels truncated, JPEG of quality 75."
            )
        if "fid_real" in images:
            note += (
                " The last row is the floor, 7.22 in DG-Net's paper (Market-1501, 2048 features)."
            )
        lines.append(note)
    if images.get("fid_singular"):
        lines.append("Too few images for these features: the covariance is singular; prefer KID.")
    lines += _bands_table(images) + _truth_table(images)
    return lines + [value for value in images.values() if isinstance(value, str)]


def _bands_table(images: Mapping[str, Any]) -> list[str]:
    """Lines of how much of the garments' colours is moved (`garment_bands.measure_garments`)."""
    if "band_transfer" not in images:
        return []
    names = [f"{garment}{suffix}" for garment in ("top", "lower") for suffix in ("", "_lightness")]
    rows = [
        ["generated: share of the appearance image's", "transfer", ""],
        ["generated: share of the structure image's", "structure", ""],
        ["real: another image of the person", "transfer", "_real"],
    ]
    cells = [
        [title, *(images.get(f"band_{kind}_{name}{suffix}", "") for name in names)]
        for title, kind, suffix in rows
    ]
    headers = ["garments' colours", "top", "top, L*", "lower", "lower, L*"]
    people = images["band_appearances"] + images["band_structures"]
    lines = [
        "",
        tabulate(cells, headers=headers, floatfmt=".2f", tablefmt="github"),
        f"Estimates from {images['band_appearances']} x {images['band_structures']} swaps of "
        f"gallery images; garments found by keypoints in {images['band_posed']} of {people} "
        "images, by fixed bands in the others.",
    ]
    if "band_transfer_real" in images:
        lines.append(
            f"The last row is no bound, but what other light alone leaves: "
            f"{images['band_real_pairs']} pairs, keypoints in {images['band_real_posed']} of "
            f"{images['band_real_images']} images."
        )
    return lines


def _truth_table(found: Mapping[str, Any]) -> list[str]:
    """Lines of the measures of swaps against their truth (`truth.measure_truth`)."""
    present = {title: name for title, name in _TRUTH.items() if name in found}
    if not present:
        return []
    # By definition: it need not be measured.
    copied = {"appearance_transfer_copy": 0, **found}
    rows = [
        ["generated", *(found[name] for name in present.values())],
        ["copy of the structure image", *(copied.get(f"{n}_copy", "") for n in present.values())],
    ]
    formats = ["", *(".1f" if title.startswith("ΔE") else ".3f" for title in present)]
    table = tabulate(rows, headers=["swaps", *present], floatfmt=formats, tablefmt="github")
    lines = ["", table, _TRUTH_NOTE]
    if "truth_pairs" in found:
        lines.append(f"{found['truth_pairs']} swaps of test people. ΔE: CIEDE2000, mean of pixels.")
    return lines


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


def _of_cameras(counts: Mapping[str, float], cameras: bool) -> list[str]:
    """Lines of why queries have no match, and of `config.data.cameras` where it is off."""
    lines = []
    unmatched = int(counts.get("queries_without_match", 0))
    if unmatched:
        removed = " by another camera" if cameras else ""
        text = (
            f"{unmatched} of {int(counts['queries'])} queries have no match, an image of their "
            f"person{removed} in the gallery; Rank@k and mAP count them as 0."
        )
        if cameras:
            text += (
                " Images by the query's own camera are removed (the field's protocol). "
                f"{UNKNOWN_CAMERAS}."
            )
        lines.append(text)
    if not cameras:
        lines.append(
            "config.data.cameras is off: each image counts as one by a camera of its own. "
            "Published numbers are not measured like this."
        )
    return lines


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{int(counts[key])} {text}" for key, text in _COUNTS.items() if key in counts)
