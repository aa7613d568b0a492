"""Neck, face, hair and cap of a pedestrian."""

import numpy as np

from dgnet_jax.data.drawing.canvas import Canvas, limb, oval
from dgnet_jax.data.drawing.pose import View
from dgnet_jax.data.drawing.wardrobe import Person, shade

_CENTRE = 0.930
"""Height of the head's middle in body heights; the head is about an eighth of them."""


def draw_neck(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """The neck up to the chin and, from the front, the hair behind it."""
    if view.facing > 0.25:
        _draw_loose(canvas, view, person, view((0, _CENTRE + lift, 0.012))[0])
    points = view((0, 0.82 + lift, -0.004), (0, 0.90 + lift, 0.006))
    half = np.array([0.031, 0.027]) * view.height * person.girth**0.5
    canvas.ribbon(*limb(points, half), person.skin, dim=0.86)


def draw_head(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """The head with its hair, from any direction."""
    size, facing, sideways = view.height, view.facing, view.sideways
    centre = view((0, _CENTRE + lift, 0.012))[0]
    half_width, half_height = size * (0.047 + 0.007 * abs(sideways)), 0.066 * size
    hair = person.skin if person.hairstyle == "bald" else person.hair
    behind = facing < -0.2

    if -0.2 <= facing <= 0.25:
        _draw_loose(canvas, view, person, centre)
    # Short hair leaves the jaw to the face; longer hair frames all of it.
    rise, cover = (0.014, 0.88) if person.hairstyle in ("short", "cap") else (0.004, 1.03)
    canvas.ribbon(
        *oval(centre + [0, -rise * size], half_width * 1.04, half_height * cover), hair, rim=1.5
    )
    if behind and person.hairstyle not in ("long", "bald"):
        nape = view((0, 0.872 + lift, 0.0), (0, 0.893 + lift, 0.0))
        canvas.ribbon(*limb(nape, np.array([0.032, 0.032]) * size), person.skin, dim=0.9)
    if facing > -0.6:
        _draw_face(canvas, view, person, centre)
    if behind:
        _draw_loose(canvas, view, person, centre)
    if person.hairstyle == "cap":
        _draw_cap(canvas, view, person, centre, half_width)


def _draw_face(canvas: Canvas, view: View, person: Person, centre: np.ndarray) -> None:
    size, facing, sideways = view.height, view.facing, view.sideways
    half = size * np.hypot(0.042 * max(facing, 0.0), 0.031 * sideways) * min(1.0, 1.0 + facing)
    middle = centre + [0.021 * sideways * size, 0.012 * size]
    canvas.ribbon(*oval(middle, half, 0.054 * size, squareness=2.3), person.skin, dim=1.06)
    ear = 0.048 * size
    if person.hairstyle in ("short", "bald", "cap", "bun", "ponytail"):
        for side in (-1, 1):
            outward = side * facing
            if abs(sideways) < 0.5 or side * sideways < 0:
                spot = centre + [outward * ear - 0.004 * sideways * size, 0.008 * size]
                canvas.disc(spot, 0.008 * size, 0.013 * size, shade(person.skin, 0.88))
    if facing < -0.25:
        return
    dark, brow = shade(person.skin, 0.32), shade(person.skin, 0.55)
    nose = centre + [(0.040 + 0.012 * abs(sideways)) * sideways * size, 0.014 * size]
    canvas.disc(nose, 0.007 * size, 0.010 * size, shade(person.skin, 0.92))
    for side in (-1, 1):
        offset = 0.037 * sideways + side * 0.019 * facing
        if abs(offset) > 0.050 or (abs(sideways) > 0.7 and side * sideways * facing > 0):
            continue
        eye = centre + np.array([offset, 0.004]) * size
        canvas.disc(eye, 0.0058 * size, 0.0052 * size, dark)
        canvas.stroke(eye + np.array([(-0.010, -0.012), (0.010, -0.012)]) * size, brow, 2)
    mouth = centre + np.array([0.040 * sideways, 0.038]) * size
    reach = max(0.006, 0.013 * facing) * size
    canvas.stroke([mouth - [reach, 0], mouth + [reach, 0]], shade(person.skin, 0.62), 3)


def _draw_loose(canvas: Canvas, view: View, person: Person, centre: np.ndarray) -> None:
    """Long hair down to the shoulders, a ponytail or a bun; nothing for shorter hair."""
    size, sideways = view.height, view.sideways
    back = -0.058 * sideways
    if person.hairstyle == "long":
        xs = -0.016 * sideways * np.array([1.0, 1.0, 1.3, 1.5, 1.3])
        spine = centre + np.stack([xs, [-0.062, -0.03, 0.03, 0.105, 0.15]], axis=1) * size
        widths = np.array([0.022, 0.052, 0.056, 0.056, 0.040]) * size * (1 - 0.22 * abs(sideways))
        canvas.ribbon(spine, widths, person.hair, rim=1.5, dim=0.95)
    elif person.hairstyle == "bun":
        rise = -0.060 if abs(sideways) < 0.6 else -0.032
        canvas.ribbon(
            *oval(centre + np.array([back, rise]) * size, 0.025 * size, 0.023 * size),
            person.hair,
            rim=1.5,
        )
    elif person.hairstyle == "ponytail":
        points = (
            centre
            + np.array([(back * 0.9, -0.018), (back * 1.5, 0.03), (back * 1.35, 0.115)]) * size
        )
        canvas.ribbon(*limb(points, np.array([0.016, 0.021, 0.008]) * size), person.hair, rim=1.5)


def _draw_cap(
    canvas: Canvas, view: View, person: Person, centre: np.ndarray, half_width: float
) -> None:
    size, facing, sideways = view.height, view.facing, view.sideways
    rows = np.linspace(0.02, 1.0, 7)
    spine = centre + np.stack([0 * rows, -0.072 + 0.056 * rows], axis=1) * size
    canvas.ribbon(spine, half_width * 1.1 * np.sqrt(1 - (1 - rows) ** 2), person.cap)
    if facing < -0.5:
        return
    root = centre + np.array([0.02 * sideways, -0.017]) * size
    if abs(sideways) > 0.5:
        tip = root + np.array([0.078 * sideways, 0.008]) * size
        canvas.ribbon(
            *limb(np.stack([root, tip]), np.array([0.010, 0.006]) * size), shade(person.cap, 0.8)
        )
    else:
        canvas.ribbon(
            *oval(root + [0.03 * sideways * size, 0.004 * size], 0.043 * size, 0.012 * size),
            shade(person.cap, 0.75),
        )
