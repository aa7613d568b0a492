"""The sections of the report that show what generators paint: the thesis's figures 5.4 to 5.10."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from dgnet_jax.ablation.points import is_fusion
from dgnet_jax.ablation.report import comparisons
from dgnet_jax.ablation.report.comparisons import Painting
from dgnet_jax.ablation.report.runs import Run, thesis_groups
from dgnet_jax.ablation.report.section import Groups, Picture, Section, listed, save_picture
from dgnet_jax.ablation.results import measured_values
from dgnet_jax.ablation.summary import BASELINE, divergence
from dgnet_jax.data.decoding import open_rgb, reason
from dgnet_jax.runtime.reading import IMAGE_BYTES, read_bytes

# What the thesis's Figures 5.9 and 5.10, two of them, show beside l1.
_THESIS_RIVAL, _ENLARGED = "l1_rmse", 2


def picture_sections(
    folder: Path, groups: Groups, paintings: Mapping[str, Painting], missing: Sequence[str]
) -> list[Section]:
    """The thesis's figures 5.4 to 5.10, all of the same images."""
    side = Section("The same inputs, each loss", list(missing), wide=True)
    if not paintings:
        return [side]
    parts = thesis_groups([label for label in groups if label in paintings])
    for title, labels in parts:
        chosen = [paintings[label] for label in labels]
        side.pictures.append(
            save_picture(
                folder,
                f"side_by_side_{title}" if len(parts) > 1 else "side_by_side",
                comparisons.side_by_side(chosen),
                alt="Rows of an appearance image, a structure image, and what "
                f"{listed(labels)} make of the two",
                caption=(f"{title}. " if len(parts) > 1 else "") + _origins(chosen) + _fids(chosen),
            )
        )
    fid = any(one.run.result.get("fid_png") is not None for one in paintings.values())
    side.text.append(
        "As the thesis's Figures 5.4 and 5.5: each row has an appearance, a structure, and what "
        "each generator makes of the two."
        + (" Above each column, the FID of the run that is shown; less is better." if fid else "")
    )
    return [side, _swaps_section(folder, paintings), _enlarged_section(folder, groups, paintings)]


def _swaps_section(folder: Path, paintings: Mapping[str, Painting]) -> Section:
    section = Section("Swaps", compact=len(paintings) > 1)
    section.text.append(
        "As the thesis's Figures 5.6 and 5.7: each row's appearance on each column's structure; on "
        "the diagonal, reconstructions."
    )
    for label, painting in paintings.items():
        section.pictures.append(
            save_picture(
                folder,
                f"swaps_{label}",
                comparisons.swaps(painting),
                alt=f"Swaps with {label}: {len(painting.originals)} appearances, a row each, on "
                "as many structures, a column each",
                caption=_origin(painting),
                label=label,
                metadata=comparisons.metadata(painting),
            )
        )
    return section


def _enlarged_section(folder: Path, groups: Groups, paintings: Mapping[str, Painting]) -> Section:
    section = Section("Enlarged")
    rival, which = _rival_of_l1(groups, paintings)
    if rival is None:
        section.compact = len(paintings) > 1
        section.text.append(
            "The thesis's Figures 5.9 and 5.10 have l1 beside l1+rmse. These pictures, enlarged "
            f"without smoothing as they are, have each loss by itself: {which}."
        )
        for label, painting in paintings.items():
            section.pictures.append(
                save_picture(
                    folder,
                    f"enlarged_{label}",
                    comparisons.enlarged(painting),
                    alt=f"Two input images, their reconstructions and their swaps with {label}",
                    caption=_origin(painting),
                    label=label,
                    metadata=comparisons.metadata(painting),
                )
            )
        return section
    section.wide = True
    pair = (paintings[BASELINE], paintings[rival])
    section.text.append(
        f"As the thesis's Figures 5.9 and 5.10: {which}, of the same appearance and structure, "
        "enlarged without smoothing."
    )
    for index in range(min(_ENLARGED, len(pair[0].originals))):
        section.pictures.append(
            save_picture(
                folder,
                f"enlarged_{index + 1}",
                comparisons.enlarged_pair(*pair, index),
                alt=f"An appearance image, a structure image, and what l1 and {rival} make of them",
                caption=f"{which[0].upper()}{which[1:]}. {_origins(pair)}{_fids(pair)}",
            )
        )
    return section


def _rival_of_l1(groups: Groups, paintings: Mapping[str, Painting]) -> tuple[str | None, str]:
    """Which loss stands beside l1 in the enlarged pictures, and why that one.

    l1_rmse as in the thesis, else the fusion with the best mean FID, else none.
    """
    if BASELINE not in paintings:
        return None, "there is no picture with l1"
    if _THESIS_RIVAL in paintings:
        return _THESIS_RIVAL, "l1 beside l1+rmse"
    means = {}
    for label, runs in groups.items():
        values = measured_values([run.result for run in runs if not run.diverged], "fid_png")
        if values and label in paintings and is_fusion(runs[0].expression):
            means[label] = fmean(values)
    if not means:
        return None, "there is no picture with l1+rmse, nor with another fusion that has an FID"
    best = min(means, key=lambda label: means[label])
    return best, f"l1 beside {best}, the fusion with the best FID here, for want of l1+rmse"


def truth_section(folder: Path, groups: Groups) -> Section:
    """Of a drawn data set: what a run of each loss has painted last, beside its truth."""
    section = Section("Swaps and their truth", compact=len(groups) > 1)
    for label, runs in groups.items():
        for run in sorted(runs, key=lambda run: (run.diverged, run.seed)):
            files = sorted((run.workdir / "pictures").glob("truth_[0-9]*.png"))
            if not files:
                continue
            try:
                section.pictures.append(_truth_picture(folder, label, run, files[-1]))
                break
            except OSError as error:
                section.text.append(f"Left out: {files[-1]}: {reason(error)}.")
    if section.pictures:
        section.text.append(
            "Test people in the appearance of others: each row as painted and, below it, as drawn, "
            "which is the truth."
        )
    return section


def _truth_picture(folder: Path, label: str, run: Run, file: Path) -> Picture:
    """A picture of the training, `training.pictures`, with what was measured at its end."""
    picture = open_rgb(read_bytes(file, IMAGE_BYTES))
    step = int(file.stem.rpartition("_")[2])
    caption = f"{label}, seed {run.seed}, step {step:,}."
    measured = [
        f"{name} {run.result[field]:.3f}"
        for field, name in (
            ("appearance_transfer", "appearance transfer"),
            ("structure_kept", "structure kept"),
        )
        if run.result.get(field) is not None
    ]
    if measured:
        caption += f" Measured: {', '.join(measured)}."
    return save_picture(
        folder,
        f"truth_{label}",
        picture,
        alt=f"Swaps of test people with {label}, and below each row how they ought to look",
        caption=caption,
        label=label,
        metadata={"loss": label, "seed": str(run.seed), "step": str(step)},
    )


def _origin(painting: Painting) -> str:
    """Whose picture it is, and of a diverged run that it is."""
    run, step = painting.run, f"step {painting.step:,}"
    if run.diverged:
        what = divergence(run.result)
        return f"{run.label}, seed {run.seed}, {what}: its last good checkpoint, {step}."
    return f"{run.label}, seed {run.seed}, {step}."


def _origins(paintings: Sequence[Painting]) -> str:
    """The same of several, in short where they agree."""
    common = {(one.run.seed, one.step) for one in paintings if not one.run.diverged}
    if len(common) != 1:
        return " ".join(map(_origin, paintings))
    seed, step = next(iter(common))
    diverged = [_origin(one) for one in paintings if one.run.diverged]
    return " ".join([f"Seed {seed}, step {step:,}.", *diverged])


def _fids(paintings: Sequence[Painting]) -> str:
    """What stands above the columns, for those who cannot read it there."""
    found = {one.run.label: one.run.result.get("fid_png") for one in paintings}
    known = [f"{label} {fid:.2f}" for label, fid in found.items() if fid is not None]
    return f" FID (PNG): {', '.join(known)}." if known else ""
