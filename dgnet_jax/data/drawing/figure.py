"""One pedestrian drawn part by part, from the far side to the near side."""

import numpy as np

from dgnet_jax.data.drawing.canvas import Canvas, limb, pinned
from dgnet_jax.data.drawing.head import draw_head, draw_neck
from dgnet_jax.data.drawing.luggage import draw_backpack, draw_carried, draw_straps
from dgnet_jax.data.drawing.pose import Pose, Skeleton, View, skeleton
from dgnet_jax.data.drawing.torso import draw_seat, draw_torso
from dgnet_jax.data.drawing.wardrobe import Person

KEYPOINTS = (
    "nose",
    "neck",
    *(f"right {joint}" for joint in ("shoulder", "elbow", "wrist")),
    *(f"left {joint}" for joint in ("shoulder", "elbow", "wrist")),
    *(f"right {joint}" for joint in ("hip", "knee", "ankle")),
    *(f"left {joint}" for joint in ("hip", "knee", "ankle")),
    *("right eye", "left eye", "right ear", "left ear"),
)
"""OpenPose's 18 joints, in the order of the field's files of poses."""

KEYPOINTS_SIZE = 128, 64
"""Rows and columns of the image in whose pixels these files give them."""


def find_joints(person: Person, pose: Pose, x: float, ground: float, height: float) -> np.ndarray:
    """Rows and columns (18, 2) of `KEYPOINTS` on the canvas; NaN for what the head hides."""
    view = View(pose.yaw, x, ground, height * person.stature)
    body = skeleton(person, pose)
    (left_leg, right_leg), (left_arm, right_arm) = body.legs, body.arms
    joints = view(
        (0, 0.944 + body.lift - 0.014, 0.064),
        (0, 0.815 + body.lift, 0),
        *right_arm[:3],
        *left_arm[:3],
        *right_leg[:3],
        *left_leg[:3],
        *((side * 0.019, 0.926 + body.lift, 0.05) for side in (-1, 1)),
        *((side * 0.048, 0.922 + body.lift, 0.012) for side in (-1, 1)),
    )
    facing, sideways = view.facing, view.sideways
    hidden = np.zeros(len(KEYPOINTS), bool)
    hidden[[0, 14, 15]] = facing < -0.25
    for index, side in ((14, -1), (16, -1), (15, 1), (17, 1)):
        # The far side of a head in profile.
        hidden[index] |= abs(sideways) > 0.7 and side * sideways > 0
    joints[hidden] = np.nan
    return joints[:, ::-1]


def draw_person(
    canvas: Canvas, person: Person, pose: Pose, x: float, ground: float, height: float
) -> None:
    """Draws a person standing at (x, ground) on the canvas.

    `height` is in pixels and an average adult's; the person's stature scales it.
    """
    view = View(pose.yaw, x, ground, height * person.stature)
    body = skeleton(person, pose)
    canvas.shadow(
        view((0, 0, 0))[0] + [0.02 * view.height, 0], 0.20 * view.height, 0.035 * view.height, 0.5
    )
    nearness = [float(view.depth(arm[1])) for arm in body.arms]
    far_arms = [side for side in (0, 1) if nearness[side] < -0.045]
    turned = view.facing < 0.25

    for side in far_arms:
        _draw_arm(canvas, view, person, body, side, dim=0.86)
    if not turned:
        draw_backpack(canvas, view, person, body.lift)
    draw_carried(canvas, view, person, body, near=False)
    draw_seat(canvas, view, person, body.lift)
    for side in sorted((0, 1), key=lambda s: float(view.depth(body.legs[s][1]))):
        far = view.depth(body.legs[side][0]) < -0.02
        _draw_leg(canvas, view, person, body.legs[side], dim=0.84 if far else 1.0)
    if person.bottom in ("skirt", "dress"):
        _draw_skirt(canvas, view, person, body)
    if turned:
        draw_neck(canvas, view, person, body.lift)
    draw_torso(canvas, view, person, body.lift)
    if not turned:
        draw_neck(canvas, view, person, body.lift)
        draw_straps(canvas, view, person, body.lift)
    else:
        draw_straps(canvas, view, person, body.lift)
        draw_backpack(canvas, view, person, body.lift)
    draw_head(canvas, view, person, body.lift)
    for side in (0, 1):
        if side not in far_arms:
            _draw_arm(canvas, view, person, body, side, dim=1.0)
    draw_carried(canvas, view, person, body, near=True)


def _draw_leg(canvas: Canvas, view: View, person: Person, leg: np.ndarray, dim: float) -> None:
    size, girth = view.height, person.girth
    hip, knee, ankle, toe = leg
    heel = ankle + [0, -0.022, -0.022]
    foot = view(heel, (heel + toe) / 2, toe)
    bare = person.bottom != "trousers"
    joints = view(hip, knee, ankle)
    if bare:
        calf = view(knee + (ankle - knee) * 0.35)[0]
        points = np.stack([joints[0], joints[1], calf, joints[2]])
        canvas.ribbon(
            *limb(points, np.array([0.050, 0.034, 0.035, 0.020]) * girth * size),
            person.skin,
            rim=2,
            dim=dim,
        )
    radii = np.array([0.021, 0.020, 0.016]) * size
    canvas.ribbon(*limb(foot + [0, 0.007 * size], radii), person.sole, rim=1.5, dim=dim)
    canvas.ribbon(*limb(foot, radii), person.shoes, dim=dim)
    if bare and person.socks:
        top = view(ankle + (knee - ankle) * 0.28)[0]
        sock = np.stack([top, joints[2]])
        canvas.ribbon(*limb(sock, np.array([0.027, 0.023]) * girth * size), person.sole, dim=dim)
    fill = pinned(person.lower_cloth, joints[0])
    if person.bottom == "trousers":
        flare = 0.024 + 0.014 * person.lower_length
        hem = view(ankle + [0, -0.012, 0])[0]
        points = np.stack([joints[0], joints[1], hem])
        canvas.ribbon(
            *limb(points, np.array([0.053, 0.043, flare + 0.004]) * girth * size, open_end=True),
            fill,
            rim=1,
            dim=dim,
        )
        across = joints[1] + np.array([[-0.034, 0.0], [0.006, 0.012]]) * size
        canvas.crease(across, 0.80 * dim, 3)
    elif person.bottom == "shorts":
        hem = view(hip + (knee - hip) * (0.62 + 0.38 * person.lower_length))[0]
        points = np.stack([joints[0], hem])
        canvas.ribbon(
            *limb(points, np.array([0.054, 0.052]) * girth * size, open_end=True),
            fill,
            rim=1,
            dim=dim,
        )


def _draw_skirt(canvas: Canvas, view: View, person: Person, body: Skeleton) -> None:
    hem = 0.22 + 0.16 * person.lower_length + body.lift
    top = 0.60 + body.lift
    heights = np.array([top, 0.54 + body.lift, 0.5 * (0.54 + body.lift + hem), hem])
    knees = view(body.legs[0][1], body.legs[1][1])[:, 0]
    reach = max(abs(knees[0] - knees[1]) / 2 + 0.045 * view.height, view.width(0.118, 0.10))
    middle = float(knees.mean())
    waist, hips = view.width(0.088, 0.062), view.width(0.106, 0.078)
    halves = np.array([waist * person.waist, hips, 0.55 * hips + 0.5 * reach, reach * 1.06])
    spine = view(*[(0.0, float(y), 0.0) for y in heights])
    spine[2:, 0] += (middle - view.x) * np.array([0.4, 0.8])
    canvas.ribbon(
        spine, halves, pinned(person.lower_cloth, view((0, 0.8 + body.lift, 0))[0]), rim=2
    )
    for share in (-0.5, -0.1, 0.35):
        canvas.crease(
            np.stack([spine[1] + [share * halves[1], 0], spine[3] + [share * 1.1 * halves[3], -2]]),
            0.84,
            3,
        )


def _draw_arm(
    canvas: Canvas, view: View, person: Person, body: Skeleton, side: int, dim: float
) -> None:
    shoulder, elbow, wrist, tips = body.arms[side]
    size, girth = view.height, person.girth**0.6
    bare = np.array([0.029, 0.025, 0.019, 0.016, 0.010]) * girth * size
    points = view(shoulder, elbow, wrist, (wrist + tips) / 2, tips)
    canvas.ribbon(*limb(points[:3], bare[:3]), person.skin, rim=2, dim=dim)
    canvas.ribbon(
        *limb(points[2:], np.array([0.016, 0.020, 0.011]) * girth * size),
        person.skin,
        rim=1,
        dim=dim,
    )
    if person.sleeve == 0.0:
        return
    fill = pinned(person.cloth, points[0])
    cuffs = np.array([0.033, 0.030, 0.024]) * girth * size
    if person.sleeve < 1.0:
        reach = min(1.0, person.sleeve * 1.6)
        end = points[0] + (points[1] - points[0]) * reach
        canvas.ribbon(
            *limb(
                np.stack([points[0], end]), np.array([0.032, 0.034]) * girth * size, open_end=True
            ),
            fill,
            rim=1,
            dim=dim,
        )
    else:
        canvas.ribbon(*limb(points[:3], cuffs, open_end=True), fill, rim=1, dim=dim)
        canvas.crease(points[1] + np.array([[-0.02, -0.004], [0.014, 0.006]]) * size, 0.78 * dim, 3)
