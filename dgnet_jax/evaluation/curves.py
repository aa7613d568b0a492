"""The cumulative matching characteristic (CMC) as a plot."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image


def cmc_plot(curves: Mapping[str, Float[np.ndarray, " _length"]], title: str) -> Image.Image:
    """Draws the share of queries whose first match is among the first k images, over k.

    Args:
        curves: for each name the shares for k = 1, 2, ... (`metrics.cumulative_matches`).
        title: above the plot.
    """
    figure = Figure(figsize=(7, 5), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, shares in curves.items():
        axes.plot(np.arange(1, len(shares) + 1), 100 * shares, label=name)
    axes.set(title=title, xlabel="rank k", ylabel="queries matched within k (%)", xlim=(1, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
