"""Plots over training steps: metrics of all losses, and the terms of each loss's objective."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

from dgnet_jax.ablation.report.runs import Run, Series, over_seeds

# Paul Tol's "bright" scheme, which the colour-blind can tell apart, black before it; markers tell
# the lines apart in a black and white print.
COLOURS = ("#000000", "#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE", "#BBBBBB")
# One fewer than colours, so that more lines than either still differ.
_MARKERS = "osD^vPX"
# Terms often lie on top of one another: dashes let the one below show.
_DASHES = ("-", (0, (4, 1.5)), (0, (2, 1)), (0, (6, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
# Inches and dots per inch: its text is still legible when the plot is as wide as a phone.
_WIDTH, _DPI = 5.0, 180
_BAND_ALPHA = 0.2
# The upper end of a metric's axis, as a multiple of the highest value.
_HEADROOM = 1.1
# Logged steps over which a training curve is averaged, as a share of all and at most.
_SMOOTHING, _MOST_SMOOTHED = 0.05, 25

TERM_GROUPS: dict[str, dict[str, str]] = {
    "measured with R": {
        "self_reconstruction": "self reconstruction",
        "same_identity_reconstruction": "same-identity reconstruction",
        "structure_code": "structure code",
        "appearance_code": "appearance code",
        "cycle": "cycle",
    },
    "adversarial and identity": {
        "adversarial": "adversarial",
        "discriminator": "discriminator",
        "identity": "identity",
        "generated_identity": "identity of generated",
        "teacher": "teacher",
    },
}
"""The terms that are drawn (docs/method.md, section 3.3): panel to name to its title."""


def metric_curves(
    groups: Mapping[str, Sequence[Run]], metric: str, title: str, factor: float = 100
) -> Figure:
    """A metric over training steps, a line for each loss with a band over its seeds.

    Args:
        groups: loss to its runs.
        metric: a name of `Run.evaluations`.
        title: of the vertical axis.
        factor: of its values; 100 shows a share in percent.
    """
    figure, (axes,) = make_figure(1, 3.8)
    for index, (label, runs) in enumerate(groups.items()):
        style = _style(index) | {"marker": _MARKERS[index % len(_MARKERS)], "markersize": 4}
        found = [(run, run.evaluations[metric]) for run in runs if metric in run.evaluations]
        scaled = [(run, Series(curve.steps, factor * curve.values)) for run, curve in found]
        _draw_runs(axes, label, scaled, style)
    # Of the bands, too.
    lowest, highest = axes.dataLim.y0, axes.dataLim.y1
    top = highest if np.isfinite(highest) and highest > 0 else 1
    bottom = lowest if np.isfinite(lowest) and lowest < 0 else 0
    limits = (_HEADROOM * bottom, _HEADROOM * top)
    axes.set(xlabel="training step", ylabel=title, ylim=limits)
    add_legend(axes)
    return figure


def training_curves(runs: Sequence[Run]) -> Figure | None:
    """The terms of the objective over training steps for the seeds of one loss; None without any.

    Terms are averaged over neighbouring steps and drawn before their weights.
    """
    panels = [
        {name: title for name, title in terms.items() if any(name in run.losses for run in runs)}
        for terms in TERM_GROUPS.values()
    ]
    if not any(panels):
        return None
    figure, all_axes = make_figure(len(panels), 6.0)
    for axes, (panel, terms) in zip(all_axes, zip(TERM_GROUPS, panels, strict=True), strict=True):
        for index, (name, title) in enumerate(terms.items()):
            found = [(run, smooth(run.losses[name])) for run in runs if name in run.losses]
            style = _style(index) | {"linestyle": _DASHES[index % len(_DASHES)]}
            _draw_runs(axes, title, found, style)
        axes.set(ylabel=panel)
        if _all_positive(axes):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        add_legend(axes)
    all_axes[-1].set(xlabel="training step")
    return figure


def smooth(series: Series) -> Series:
    """A running mean, over fewer values near the ends; 5 % of the values and at most 25."""
    width = min(round(_SMOOTHING * len(series.values)), _MOST_SMOOTHED)
    half = width // 2
    places = range(len(series.values))
    means = [series.values[max(0, i - half) : i + half + 1].mean() for i in places]
    return Series(series.steps, np.asarray(means))


def draw(figure: Figure) -> Image.Image:
    """The figure as a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _draw_runs(
    axes: Axes, label: str, found: Sequence[tuple[Run, Series]], style: Mapping[str, Any]
) -> None:
    """The mean of the finished runs with their range; each diverged run alone, up to a cross."""
    finished = [series for run, series in found if not run.diverged]
    diverged = [series for run, series in found if run.diverged]
    mean, (low, high) = over_seeds(finished)
    if len(mean.steps):
        seeds = f" ({len(finished)} seeds)" if len(finished) > 1 else ""
        axes.plot(*mean, label=label + seeds, **style)
    if len(finished) > 1:
        axes.fill_between(mean.steps, low, high, color=style["color"], alpha=_BAND_ALPHA, lw=0)
    for number, series in enumerate(diverged):
        finite = np.isfinite(series.values)
        if not finite.any():
            continue
        steps, values = series.steps[finite], series.values[finite]
        name = f"{label} (diverged)" if number == 0 else None
        axes.plot(steps, values, label=name, **{**style, "linestyle": ":"})
        axes.plot(steps[-1], values[-1], "x", color=style["color"], markersize=10, mew=2)


def make_figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels above one another with a common horizontal axis; height: in inches, of all."""
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    grid = figure.subplots(panels, 1, sharex=True, squeeze=False)
    for axes in grid[:, 0]:
        axes.grid(alpha=0.3)
    return figure, list(grid[:, 0])


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linewidth": 1.5}


def _all_positive(axes: Axes) -> bool:
    values = list(_values(axes))
    return bool(values) and min(values) > 0


def _values(axes: Axes) -> Iterator[float]:
    for line in axes.lines:
        data = np.asarray(line.get_ydata(), np.float64)
        yield from data[np.isfinite(data)].tolist()


def add_legend(axes: Axes) -> None:
    """Above the plot, where it covers nothing."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False
        )
