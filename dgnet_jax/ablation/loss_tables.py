"""The thesis's Tables 5.3 to 5.5: each loss with its FID, ranks, mAP and its gain over l1.

Published values have columns of their own, never mixed with measured ones, and the best of each
column is bold.
"""

import math
from collections.abc import Sequence

import ml_collections

from dgnet_jax.ablation.cells import (
    BY_NAME,
    UNKNOWN,
    loss_name,
    measured_cells,
    present,
    seeds_text,
)
from dgnet_jax.ablation.published import PublishedValues
from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.ablation.results import FINISHED, Row, measured_values
from dgnet_jax.ablation.summary import BASELINE, Metric, Summary, divergence, relative_gain
from dgnet_jax.config_fields import USES
from dgnet_jax.evaluation.fid_protocol import JPEG_IMAGES

THESIS_METRICS = ("fid", "fid_jpeg", "rank1", "rank5", "rank10", "mAP")
_GAINS = ("fid", "fid_jpeg", "mAP")
_PUBLISHED = {"fid": "FID", "rank1": "Rank@1", "rank5": "Rank@5", "rank10": "Rank@10", "mAP": "mAP"}
_PUBLISHED_GAINS = {name: _PUBLISHED[name] for name in ("fid", "mAP")}


def loss_table(
    name: str,
    title: str,
    summaries: Sequence[Summary],
    published: PublishedValues,
    notes: Sequence[str],
) -> Table:
    """A row for each loss: measured values and gains, then published ones.

    Args:
        name, title: of the table.
        summaries: of its losses.
        published: loss to name to value, of the data set; empty for no such columns.
        notes: on what was measured, see `measured_notes`.
    """
    known = [s.label for s in summaries if s.label in published]
    columns = list(_PUBLISHED) if known else []
    published_gains = list(_PUBLISHED_GAINS) if set(known) - {BASELINE} else []
    metrics = present(summaries, THESIS_METRICS)
    gains = [BY_NAME[one] for one in _GAINS if any(one in s.gains for s in summaries)]
    rows = []
    for summary in summaries:
        cells = [Cell(loss_name(summary)), Cell(seeds_text(summary))]
        cells += measured_cells(summary, summaries, metrics)
        cells += [Cell(gain_text(summary.gains.get(metric.name))) for metric in gains]
        for column in columns:
            rival = [published[label][column] for label in known]
            value = published.get(summary.label, {}).get(column)
            best = min(rival) if column == "fid" else max(rival)
            cells.append(
                Cell(UNKNOWN)
                if value is None
                else Cell(f"{value:.2f}", bold=value == best and len(rival) > 1)
            )
        cells += [
            Cell(gain_text(published_gain(published, summary.label, column)))
            for column in published_gains
        ]
        rows.append(cells)
    head = ["loss", "seeds", *(metric.title for metric in metrics)]
    head += [f"{metric.title}: gain over l1, %" for metric in gains]
    head += [f"{_PUBLISHED[column]} (published)" for column in columns]
    head += [f"{_PUBLISHED[column]}: gain over l1, % (published)" for column in published_gains]
    more = _gain_notes(gains) if gains or published_gains else []
    more += _published_notes({label: published[label] for label in known}) if columns else []
    return Table(name, title, head, rows, [*notes, *more, *_failures(summaries)])


def published_gain(published: PublishedValues, label: str, name: str) -> float | None:
    """The gain over l1 of a published "fid" or "mAP", a share of 1; None for l1 and the unknown."""
    if label == BASELINE or label not in published or BASELINE not in published:
        return None
    better = BY_NAME[name].better
    return relative_gain(published[label][name], published[BASELINE][name], better)


def gain_text(gain: float | None) -> str:
    """A share of 1 in percent with two digits, the others cut off as in the thesis; "" for None."""
    if gain is None:
        return ""
    # 0.29 is 28.999999999999996 in percent.
    hundredths = math.trunc(round(10_000 * gain, 6))
    return f"{hundredths / 100:.2f}".replace("-", "−")


def measured_notes(rows: Sequence[Row]) -> list[str]:
    """What the measured columns are, from the results themselves."""
    notes = [
        "Measured: mean ± sample standard deviation over the finished seeds; rank metrics in "
        "percent; mAP is the trapezoid one of DG-Net and the thesis. Bold is the best mean."
    ]
    sets = {
        (row["dims"], row["generated"], row["real"]) for row in rows if row.get("dims") is not None
    }
    for dims, generated, real in sorted(sets):
        note = f"FID and KID: {dims} features, {generated} generated against {real} real images."
        if dims != 2048:
            note += f" FID of {dims} features is not comparable with the published one of 2048."
        if min(generated, real) <= dims:
            note += " So few images leave the covariance singular: prefer KID."
        notes.append(note)
    finished = [row for row in rows if row["status"] == FINISHED]
    old = sum(map(_of_older_protocols, finished))
    if old:
        notes.append(
            f"{old} of {len(finished)} results were measured before 2026-11-28: levels of (JPEG) "
            "rounded, all images, and another SSIM diversity. These are not comparable with what "
            "is measured now."
        )
    if measured_values(rows, "generated_jpeg"):
        notes.append(
            "(JPEG) is the protocol of published FIDs: levels truncated to 8 bits, JPEG files, at "
            f"most {JPEG_IMAGES} images. (PNG) is ours: levels rounded, all images."
        )
    if measured_values(rows, "appearance_transfer"):
        notes.append(
            "Appearance transfer is 1 where the garments of drawn people have the truth's colours, "
            "and 0 where the appearance image has no say; structure kept is the SSIM of lightness "
            "to the truth."
        )
    measured = sum(row.get("dims") is not None for row in finished)
    if 0 < measured < len(finished):
        notes.append(f"FID was measured in {measured} of {len(finished)} finished runs.")
    steps = sorted({row["steps"] for row in finished})
    if steps:
        notes.append(f"Steps of training: {', '.join(map(str, steps))}.")
    return notes


def own_losses_notes(config: ml_collections.ConfigDict) -> list[str]:
    """That R of some terms is not the row's loss, where `config.reconstruction` says so."""
    own = {use: config.get("reconstruction", {}).get(use) for use in USES}
    terms = [f"{use.replace('_code', ' codes')} ({loss})" for use, loss in own.items() if loss]
    if not terms:
        return []
    return [
        "These terms have one R in every run, not the row's loss as in the thesis: "
        f"{', '.join(terms)}."
    ]


def _of_older_protocols(row: Row) -> bool:
    """Whether its FID (JPEG) or its diversity is of before 2026-11-28.

    Results have had generated_jpeg and diversity_pairs since then.
    """
    if row.get("fid_jpeg") is not None:
        return row.get("generated_jpeg") is None
    return row.get("diversity") is not None and row.get("diversity_pairs") is None


def _gain_notes(measured: Sequence[Metric]) -> list[str]:
    note = (
        "Gain over l1: relative, as the thesis has it: (l1 − x) / l1 of FID, x / l1 − 1 of mAP; "
        "below 0 is worse than l1. Digits after the second are cut off, not rounded, as in the "
        "thesis, whose 20.57 % of FID is 20.579."
    )
    if measured:
        note += " Measured gains are of the means over the seeds that a loss and l1 both finished."
    return [note]


def _published_notes(published: PublishedValues) -> list[str]:
    notes = [
        "Published: the thesis's values, at full size, one run each, FID of 2048 features and "
        "JPEG files. They were not measured here."
    ]
    for label, values in published.items():
        if values["rank5"] > values["rank10"]:
            notes.append(
                f"The published Rank@5 of {label}, {values['rank5']:.2f}, is above its Rank@10, "
                f"{values['rank10']:.2f}, which cannot be; both are as printed."
            )
    return notes


def _failures(summaries: Sequence[Summary]) -> list[str]:
    return [
        f"{loss_name(summary)}, seed {row['seed']}: {divergence(row)}."
        for summary in summaries
        for row in summary.diverged
    ]
