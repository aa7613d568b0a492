"""The table at the end of a run."""

from collections.abc import Mapping

import ml_collections
from tabulate import tabulate


def table(metrics: Mapping[str, float], config: ml_collections.ConfigDict) -> str:
    """The ranking metrics in percent, and what they were measured on."""
    if not metrics:
        return "not evaluated: config.evaluation.every_steps is negative"
    columns = {
        "Rank@1": "rank1",
        "Rank@5": "rank5",
        "Rank@10": "rank10",
        "mAP": "mAP",
        "mAP (standard)": "mAP_standard",
        "mINP": "mINP",
    }
    row = [config.reconstruction_loss, *(100 * metrics[key] for key in columns.values())]
    counts = ", ".join(
        f"{int(metrics[key])} {text}"
        for key, text in (
            ("queries", "queries"),
            ("queries_without_match", "of them without a match"),
            ("gallery", "gallery images"),
            ("distractors", "of them distractors"),
            ("junk", "junk images left out"),
        )
        if key in metrics
    )
    body = tabulate([row], headers=["loss", *columns], floatfmt=".2f", tablefmt="github")
    return f"{body}\n{counts}. In percent; mAP is the trapezoid one of DG-Net and the thesis."
