"""Backpacks, handbags and bags on a strap."""

import numpy as np

from dgnet_jax.data.drawing.canvas import Canvas, oval
from dgnet_jax.data.drawing.pose import Skeleton, View
from dgnet_jax.data.drawing.wardrobe import Person, shade


def draw_backpack(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """A backpack on the back: whole from behind, half from the side, its edges from the front."""
    if person.bag != "backpack":
        return
    size = view.height
    centre = view((0, 0.700 + lift, -0.105))[0]
    half = view.width(0.082, 0.050)
    canvas.ribbon(*oval(centre, half, 0.112 * size, squareness=3.5), person.bag_colour, rim=2)
    if view.facing < -0.3:
        pocket = centre + [0, 0.045 * size]
        canvas.ribbon(
            *oval(pocket, half * 0.74, 0.048 * size, squareness=4),
            shade(person.bag_colour, 1.12),
            rim=2,
        )
        seam = centre + np.array([(-half * 0.75, -0.045 * size), (half * 0.75, -0.045 * size)])
        canvas.stroke(seam, shade(person.bag_colour, 0.55), 3)


def draw_straps(canvas: Canvas, view: View, person: Person, lift: float) -> None:
    """Straps over the torso: two in front for a backpack, one across for a bag on a strap."""
    size, facing = view.height, view.facing
    colour = shade(person.bag_colour, 0.82)
    width = max(4, round(0.020 * size))
    if person.bag == "backpack" and facing > -0.35:
        for side in (-1, 1):
            if abs(facing) < 0.35 and side * view.sideways > 0:
                continue
            x = side * 0.062 * person.shoulders
            points = view(
                (x, 0.836 + lift, -0.02),
                (x * 1.05, 0.815 + lift, 0.045),
                (x * 1.15, 0.72 + lift, 0.062),
                (x * 1.6, 0.635 + lift, 0.0),
            )
            canvas.stroke(points, colour, width)
    elif person.bag == "shoulder strap":
        z = 0.06 if facing > 0 else -0.06
        points = view(
            (-person.side * 0.055, 0.832 + lift, 0.0),
            (0.0, 0.70 + lift, z),
            (person.side * 0.10, 0.53 + lift, z * 0.5),
        )
        canvas.stroke(points, colour, max(4, round(0.013 * size)))


def draw_carried(canvas: Canvas, view: View, person: Person, body: Skeleton, *, near: bool) -> None:
    """The bag at a hand or at the hip, if it is on the near (or else the far) side of the body."""
    size, side = view.height, person.side
    arm = body.arms[0 if side == 1 else 1]
    if person.bag == "handbag":
        if (view.depth(arm[1]) >= -0.045) != near:
            return
        grip = view(arm[3])[0]
        centre, half = grip + [0, 0.085 * size], view.width(0.034, 0.062)
        for spread in (-0.5, 0.5):
            canvas.stroke(
                [grip, centre + [spread * half, -0.045 * size]], shade(person.bag_colour, 0.7), 4
            )
        canvas.ribbon(*oval(centre, half, 0.050 * size, squareness=4.5), person.bag_colour, rim=2)
    elif person.bag == "shoulder strap":
        spot = np.array([side * 0.118 * person.girth, 0.475 + body.lift, 0.0])
        if (view.depth(spot) >= -0.05) != near:
            return
        half = view.width(0.032, 0.072)
        centre = view(spot)[0]
        canvas.ribbon(*oval(centre, half, 0.052 * size, squareness=4.5), person.bag_colour, rim=2)
        flap = centre + np.array([(-half * 0.8, -0.004 * size), (half * 0.8, -0.004 * size)])
        canvas.stroke(flap, shade(person.bag_colour, 0.6), 3)
