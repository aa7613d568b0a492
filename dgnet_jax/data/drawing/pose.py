"""How a drawn person stands in front of a camera: a small skeleton that walks and turns."""

from dataclasses import dataclass

import numpy as np

from dgnet_jax.data.drawing.wardrobe import Person

_TILT = 0.16
"""How far a point one unit nearer to the camera moves down: cameras look down a little."""


@dataclass(frozen=True)
class Pose:
    """Angles in radians; `yaw` 0 faces the camera, pi/2 the right edge of the image, pi away."""

    yaw: float
    phase: float
    stride: float
    arm_swing: float
    elbows: tuple[float, float]
    spread: float


def take_pose(rng: np.random.Generator, quarter: int) -> Pose:
    """A random pose facing about one of four directions: 0 front, 1 right, 2 back, 3 left."""
    walking = rng.random() < 0.82
    elbows = rng.uniform(0.12, 0.55, 2)
    if rng.random() < 0.14:
        elbows[rng.integers(2)] = rng.uniform(1.3, 1.9)
    return Pose(
        yaw=float(quarter * np.pi / 2 + rng.normal(0, 0.22)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(rng.uniform(0.26, 0.46) if walking else rng.uniform(0.02, 0.1)),
        arm_swing=float(rng.uniform(0.2, 0.5) if walking else rng.uniform(0.0, 0.1)),
        elbows=(float(elbows[0]), float(elbows[1])),
        spread=float(rng.uniform(0.10, 0.2)),
    )


@dataclass(frozen=True)
class View:
    """The projection of body coordinates (left, up, forward; 1 is the body's height) to pixels."""

    yaw: float
    x: float
    ground: float
    height: float

    @property
    def facing(self) -> float:
        """1 when facing the camera, -1 with the back to it."""
        return float(np.cos(self.yaw))

    @property
    def sideways(self) -> float:
        """1 when walking to the right edge of the image, -1 to the left."""
        return float(np.sin(self.yaw))

    def depth(self, point: np.ndarray) -> np.ndarray:
        """How near points (..., 3) are to the camera, 0 at the body's axis."""
        return point[..., 2] * self.facing - point[..., 0] * self.sideways

    def __call__(self, *points: np.ndarray | tuple[float, float, float]) -> np.ndarray:
        """Canvas pixels (n, 2) of n body points."""
        body = np.asarray(points, float)
        across = body[:, 0] * self.facing + body[:, 2] * self.sideways
        down = _TILT * self.depth(body) - body[:, 1]
        return np.stack([self.x + across * self.height, self.ground + down * self.height], axis=1)

    def width(self, lateral: float, sagittal: float) -> float:
        """Half width in pixels of an upright elliptical body with these two half axes."""
        return self.height * float(np.hypot(lateral * self.facing, sagittal * self.sideways))


@dataclass(frozen=True)
class Skeleton:
    """Joints in body coordinates by side, 0 the person's left and 1 the right.

    A leg is (4, 3): hip, knee, ankle, toe. An arm is (4, 3): shoulder, elbow, wrist, fingertips.
    `lift` is how much higher than at rest the body is, 1 being its height.
    """

    legs: tuple[np.ndarray, np.ndarray]
    arms: tuple[np.ndarray, np.ndarray]
    lift: float


def _hang(angle: float, length: float) -> np.ndarray:
    return np.array([0.0, -length * np.cos(angle), length * np.sin(angle)])


def skeleton(person: Person, pose: Pose) -> Skeleton:
    """The joints of a walking or standing person, lowest foot on the ground."""
    legs, arms = [], []
    for side, offset in ((1, 0.0), (-1, np.pi)):
        phase = pose.phase + offset
        swing = pose.stride * np.sin(phase)
        bend = (
            0.06
            + 1.5 * pose.stride * max(0.0, np.cos(phase))
            + 0.25 * pose.stride * max(0.0, -np.sin(phase))
        )
        hip = np.array([side * 0.050 * person.girth, 0.52, 0.0])
        knee = hip + _hang(swing + 0.5 * bend, 0.245)
        ankle = knee + _hang(swing - 0.5 * bend, 0.235)
        pitch = 0.55 * (swing - 0.5 * bend) + 0.1
        toe = ankle + np.array(
            [side * 0.018, -0.030 + 0.1 * np.sin(min(pitch, 0.25)), 0.1 * np.cos(pitch)]
        )
        legs.append(np.stack([hip, knee, ankle, toe]))

        shoulder = np.array([side * 0.098 * person.shoulders * person.girth**0.5, 0.771, 0.0])
        back_swing = -pose.arm_swing * np.sin(phase)
        elbow_angle = pose.elbows[0 if side == 1 else 1]
        elbow = (
            shoulder + _hang(back_swing - 0.05, 0.17) + [side * 0.17 * np.sin(pose.spread), 0, 0]
        )
        forearm = _hang(back_swing + elbow_angle, 0.145)
        inward = [-side * 0.02 * max(0.0, elbow_angle - 0.5) + side * 0.008, 0, 0]
        wrist = elbow + forearm + inward
        arms.append(np.stack([shoulder, elbow, wrist, wrist + forearm * 0.36 + inward]))
    lift = 0.012 - min(min(leg[2, 1] - 0.036, leg[3, 1] - 0.008) for leg in legs)
    raised = np.array([0.0, lift, 0.0])
    return Skeleton(
        (legs[0] + raised, legs[1] + raised), (arms[0] + raised, arms[1] + raised), lift
    )
