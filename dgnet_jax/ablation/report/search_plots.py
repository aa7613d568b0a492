"""Plots of a search: its front, its history, which parameters mattered."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import MaxNLocator

from dgnet_jax.ablation.report.plots import COLOURS, add_legend, make_figure
from dgnet_jax.ablation.search.journal import Trial
from dgnet_jax.ablation.search.outcome import running_best
from dgnet_jax.ablation.summary import Metric

_OTHER, _FRONT = COLOURS[7], COLOURS[2]
# Inter-quartile ranges beyond the quartiles at which a trial is left outside of the axes.
_FAR = 3.0
_MARGIN = 0.08
# Points of type, and where a label may lie around its point, in points, best first.
_LABEL_SIZE = 7
_PLACES = [
    *((4, 4), (4, -10), (-4, 4), (-4, -10), (0, 9), (0, -15), (10, 0), (-10, 0)),
    *((10, 14), (10, -20), (-10, 14), (-10, -20), (0, 20), (0, -26), (26, 10), (26, -16)),
    *((-26, 10), (-26, -16), (20, 26), (20, -32), (-20, 26), (-20, -32), (0, 34), (0, -40)),
]
# Ticks of a horizontal axis, whose numbers can be long.
_MOST_TICKS = 6
# Parameters that a plot of importances holds.
_MOST_BARS = 12


class FrontPlot(NamedTuple):
    """figure, and the trials that lie too far away to be in it."""

    figure: Figure
    outside: list[Trial]


def front_plot(
    trials: Sequence[Trial],
    front: Sequence[Trial],
    objectives: Sequence[Metric],
    known: Sequence[str],
) -> FrontPlot:
    """The finished trials by their first two objectives.

    Args:
        trials: the finished ones.
        front: those of the front, from the best in the first objective on.
        objectives: two or more. Of exactly two, a line shows what the front dominates.
        known: labels of the thesis's points, which are drawn as squares with their names.
    """
    figure, (axes,) = make_figure(1, 4.6)
    first, second = objectives[:2]
    scale = np.array([first.factor, second.factor])
    points = {trial.number: scale * np.asarray(trial.values[:2]) for trial in trials}
    kept = [points[trial.number] for trial in front]
    limits = [_limits([p[i] for p in points.values()], [p[i] for p in kept]) for i in (0, 1)]
    if len(objectives) == 2:
        _draw_front(axes, kept, second)
    numbers = {trial.number for trial in front}
    inside: list[Trial] = []
    outside: list[Trial] = []
    for trial in trials:
        point = points[trial.number]
        is_inside = all(low <= x <= high for x, (low, high) in zip(point, limits, strict=True))
        (inside if is_inside else outside).append(trial)
    for name, thesis, on_front in (
        ("other trials", False, False),
        ("the thesis's losses", True, False),
        ("on the front", False, True),
        ("the thesis's, on the front", True, True),
    ):
        chosen = [
            points[trial.number]
            for trial in inside
            if (trial.label in known) == thesis and (trial.number in numbers) == on_front
        ]
        if chosen:
            axes.plot(
                *np.transpose(chosen),
                "s" if thesis else "o",
                color=_FRONT if on_front else _OTHER,
                markeredgecolor="black" if thesis else "none",
                markersize=6,
                label=name,
                zorder=3,
            )
    axes.set(xlabel=_title(first), ylabel=_title(second), xlim=limits[0], ylim=limits[1])
    axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
    add_legend(axes)
    named = [trial for trial in inside if trial.label in known or trial.number in numbers]
    # The front's own names first: they get the best places.
    named.sort(key=lambda trial: (trial.number not in numbers, trial.number))
    _write_labels(
        figure,
        axes,
        [(_short(trial.label), points[trial.number]) for trial in named],
        [points[trial.number] for trial in inside],
    )
    return FrontPlot(figure, outside)


def history_plot(
    trials: Sequence[Trial], objectives: Sequence[Metric], known: Sequence[str]
) -> Figure:
    """Each objective over the trials, and the best so far.

    Args:
        trials: all that are over, by number.
        objectives: a panel for each.
        known: as `front_plot`'s.
    """
    figure, panels = make_figure(len(objectives), 2.2 + 2 * len(objectives))
    finished = [trial for trial in trials if trial.outcome == "finished"]
    numbers = [trial.number for trial in finished]
    for index, (axes, metric) in enumerate(zip(panels, objectives, strict=True)):
        values = [metric.factor * trial.values[index] for trial in finished]
        best = running_best(values, metric.better)
        axes.step(numbers, best, where="post", color=_FRONT, lw=1.5, label="best so far")
        for thesis, name in ((True, "the thesis's losses"), (False, "other trials")):
            chosen = [
                (number, value)
                for number, value, trial in zip(numbers, values, finished, strict=True)
                if (trial.label in known) == thesis
            ]
            if chosen:
                axes.plot(
                    *np.transpose(chosen),
                    "s" if thesis else "o",
                    color=COLOURS[1] if not thesis else _OTHER,
                    markeredgecolor="black" if thesis else "none",
                    markersize=5,
                    label=name,
                )
        low, high = _limits(values, [best[-1]] if best else [])
        axes.set(ylabel=_title(metric), ylim=(low, high))
        _mark_at_the_edges(axes, numbers, values, low, high)
        for outcome, marker in (("pruned", "|"), ("diverged", "x")):
            ended = [trial.number for trial in trials if trial.outcome == outcome]
            if ended:
                style: dict[str, Any] = {"color": "black", "clip_on": False, "label": outcome}
                axes.plot(ended, [low] * len(ended), marker, markersize=6, **style)
    panels[-1].set(xlabel="trial")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(panels[0])
    return figure


def importance_plot(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """A bar for each parameter and objective.

    Args:
        shares: title of an objective to parameter, "huber.delta", to share of 1.
    """
    mean = {
        name: float(np.mean([of.get(name, 0.0) for of in shares.values()]))
        for name in {name for of in shares.values() for name in of}
    }
    names = sorted(mean, key=lambda name: (mean[name], name))[-_MOST_BARS:]
    figure, (axes,) = make_figure(1, 1.2 + 0.34 * len(names))
    thickness = 0.8 / len(shares)
    places = np.arange(len(names))
    for index, (title, of) in enumerate(shares.items()):
        # The first objective is the upper bar of each group.
        shift = (len(shares) - 1) / 2 - index
        values = [100 * of.get(name, 0.0) for name in names]
        axes.barh(
            places + shift * thickness, values, thickness, color=COLOURS[index + 1], label=title
        )
    axes.set(xlabel="share of importance (%)")
    axes.set_yticks(places, [parameter_name(name) for name in names])
    axes.grid(visible=False, axis="y")
    add_legend(axes)
    return figure


def parameter_name(name: str) -> str:
    """In words: "rmse" is whether it is in, "rmse.weight" its weight."""
    loss, _, parameter = name.partition(".")
    return f"{loss}: {parameter}" if parameter else f"{loss}: in or out"


def _title(metric: Metric) -> str:
    unit = " (%)" if metric.factor == 100 else ""
    return f"{metric.title}{unit}, {'more' if metric.better > 0 else 'less'} is better"


def _short(label: str) -> str:
    """trial_012 is 12; names stay."""
    number = label.removeprefix("trial_")
    return str(int(number)) if number.isdecimal() else label


def _limits(values: Sequence[float], kept: Sequence[float]) -> tuple[float, float]:
    """Of an axis: all values but those far beyond the quartiles, and `kept` in any case."""
    if not values:
        return 0.0, 1.0
    low, high = np.percentile(values, [25, 75])
    reach = _FAR * (high - low)
    shown = [value for value in values if low - reach <= value <= high + reach] + list(kept)
    margin = _MARGIN * (max(shown) - min(shown)) or 1e-3 * abs(shown[0]) or 1e-3
    return min(shown) - margin, max(shown) + margin


def _draw_front(axes: Axes, points: Sequence[np.ndarray], second: Metric) -> None:
    """The line between what the front dominates and what it does not."""
    if len(points) < 2:
        return
    ordered = sorted(points, key=lambda point: point[0])
    xs, ys = np.transpose(ordered)
    # Between two neighbours the worse second objective of both is all that is attained.
    worse_first = second.better * (ys[-1] - ys[0]) > 0
    where: Literal["post", "pre"] = "post" if worse_first else "pre"
    axes.step(xs, ys, where=where, color=_FRONT, lw=1.2, alpha=0.7, zorder=2)


def _mark_at_the_edges(
    axes: Axes, numbers: Sequence[int], values: Sequence[float], low: float, high: float
) -> None:
    """A triangle for each value that lies outside."""
    for marker, edge, beyond in (
        ("^", high, [n for n, value in zip(numbers, values, strict=True) if value > high]),
        ("v", low, [n for n, value in zip(numbers, values, strict=True) if value < low]),
    ):
        if beyond:
            style: dict[str, Any] = {"color": _OTHER, "markeredgecolor": "black", "clip_on": False}
            axes.plot(beyond, [edge] * len(beyond), marker, markersize=6, **style)


def _write_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[str, np.ndarray]],
    points: Sequence[np.ndarray],
) -> None:
    """Writes each label where it covers neither points nor other labels, if there is a place."""
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    dots = axes.transData.transform(np.asarray(points)) if len(points) else np.empty((0, 2))
    taken: list[np.ndarray] = []
    for text, point in labels:
        best: tuple[float, Annotation, np.ndarray] | None = None
        for order, (x, y) in enumerate(_PLACES):
            note = axes.annotate(
                text,
                tuple(point),
                (x, y),
                textcoords="offset points",
                fontsize=_LABEL_SIZE,
                ha="left" if x > 0 else "right" if x < 0 else "center",
                arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "grey"} if order > 7 else None,
            )
            note.get_window_extent()  # places it
            # Without the arrow, which may cross what it likes.
            box = Text.get_window_extent(note).get_points()
            covered = 3 * sum(_overlap(box, other) for other in taken)
            covered += sum(bool(((box[0] <= dot) & (dot <= box[1])).all()) for dot in dots)
            beyond = (box[0] < frame.min).any() or (box[1] > frame.max).any()
            cost = covered + 10 * bool(beyond) + 0.01 * order
            note.remove()
            if best is None or cost < best[0]:
                best = cost, note, box
        assert best is not None
        axes.add_artist(best[1])
        taken.append(best[2])


def _overlap(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one[0] < other[1]).all() and (other[0] < one[1]).all())
