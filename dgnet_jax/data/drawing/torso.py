"""Hips and torso of a pedestrian, with what is printed on a shirt or open in a jacket."""

import numpy as np

from dgnet_jax.data.drawing.canvas import Canvas, Fill, pinned
from dgnet_jax.data.drawing.pose import View
from dgnet_jax.data.drawing.wardrobe import Person, shade

# Height, half width from the front and half width from the side of a torso, in body heights.
_TORSO = np.array(
    [
        (0.838, 0.034, 0.034),
        (0.829, 0.056, 0.042),
        (0.815, 0.082, 0.050),
        (0.795, 0.099, 0.058),
        (0.760, 0.108, 0.066),
        (0.700, 0.102, 0.068),
        (0.630, 0.094, 0.064),
        (0.575, 0.096, 0.066),
        (0.520, 0.102, 0.070),
        (0.480, 0.104, 0.071),
    ]
)


def draw_seat(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """Hips in trousers or shorts; the legs are drawn over them and the shirt over both."""
    if person.bottom in ("trousers", "shorts"):
        seat = np.array(
            [
                (0.58, 0.094, 0.064),
                (0.53, 0.101, 0.070),
                (0.49, 0.100, 0.070),
                (0.455, 0.070, 0.056),
            ]
        )
        _draw_rows(canvas, view, person, seat, lift, person.lower_cloth, rim=0)


def draw_torso(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """The shirt, jacket or upper part of a dress."""
    hem = 0.56 if person.bottom in ("skirt", "dress") else person.hem
    heights = np.linspace(_TORSO[0, 0], hem, 15)
    heights[1:5] = _TORSO[1:5, 0]
    rows = np.stack(
        [np.interp(-heights, -_TORSO[:, 0], _TORSO[:, column]) for column in range(3)], axis=1
    )
    if person.pattern == "jacket":
        rows[:, 1:] += 0.006
    fill = pinned(person.cloth, view((0, 0.8 + lift, 0))[0])
    _draw_rows(canvas, view, person, rows, lift, fill, rim=2)
    _draw_front(canvas, view, person, lift, hem)


def _draw_rows(
    canvas: Canvas,
    view: View,
    person: Person,
    rows: np.ndarray,
    lift: float,
    fill: Fill,
    rim: float,
) -> None:
    """Elliptical slices (height, half width, half depth), shaped to the person's build."""
    taper = np.interp(
        rows[:, 0], [0.50, 0.62, 0.72, 0.80], [1.0, person.waist, 1.0, person.shoulders]
    )
    across = rows[:, 1] * taper * person.girth ** np.where(rows[:, 0] > 0.78, 0.5, 1.0)
    deep = rows[:, 2] * person.girth**1.2
    halves = np.hypot(across * view.facing, deep * view.sideways) * view.height
    lean = np.interp(rows[:, 0], [0.50, 0.56, 0.72, 0.84], [-0.010, 0.0, 0.012, -0.006])
    spine = view(*[(0.0, float(y) + lift, float(z)) for y, z in zip(rows[:, 0], lean, strict=True)])
    canvas.ribbon(spine, halves, fill, rim=rim)


def _draw_front(canvas: Canvas, view: View, person: Person, lift: float, hem: float) -> None:
    """What only one side of the torso shows: a print, a neckline, the shirt in an open jacket."""
    size, facing = view.height, view.facing
    if person.pattern == "print" and abs(facing) > 0.3:
        _draw_print(canvas, view, person, lift)
    elif person.pattern == "jacket" and facing > 0.12:
        chest = 0.062 * person.girth
        rows = [(0.832, 0.03), (0.78, 0.03), (0.68, chest), (0.58, chest), (hem, chest)]
        spine = view(*[(0.0, y + lift, z) for y, z in rows])
        opening = np.outer([0.030, 0.024, 0.030, 0.036, 0.042], [facing * size, 0.0])
        canvas.flat(np.concatenate([spine - opening, (spine + opening)[::-1]]), person.accent)
        for edge in (spine - opening, spine + opening):
            canvas.stroke(edge, shade(person.top, 0.6), 4)
    elif person.pattern != "jacket" and facing > 0.2:
        collar, point = view((0, 0.842 + lift, 0.02), (0, 0.815 + lift, 0.04))
        half = np.array([0.034 * facing * size, 0.0])
        canvas.flat(np.stack([collar - half, collar + half, point]), person.skin)


def _draw_print(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """A disc, a block or three bars on chest and back."""
    size = view.height
    half = 0.050 * person.girth * abs(view.facing) * size
    centre = view((0, 0.715 + lift, 0.05 * np.sign(view.facing)))[0]
    if person.print_shape == "disc":
        canvas.disc(centre, half, 0.046 * size, person.accent)
    elif person.print_shape == "block":
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        canvas.flat(centre + corners * [half, 0.036 * size], person.accent)
    else:
        for row in (-0.034, 0.0, 0.034):
            ends = np.array([(-half, row * size), (half, row * size)])
            canvas.stroke(centre + ends, person.accent, max(2, round(0.017 * size)))
