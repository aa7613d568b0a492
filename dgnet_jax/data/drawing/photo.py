"""One image as a camera would take it: a place, a pedestrian in it, light, lens and noise."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from dgnet_jax.data.drawing import canvas, scenery
from dgnet_jax.data.drawing.figure import KEYPOINTS_SIZE, draw_person, find_joints
from dgnet_jax.data.drawing.pose import Pose, take_pose
from dgnet_jax.data.drawing.wardrobe import (
    PARTS,
    Person,
    dress,
    labelled,
    part_labels,
    wearing,
)

_PLACES = 2**20
"""Takes the place of an identity in the random key of the cameras' places."""

_ZOOMS = (0.88, 1.0, 1.14)


@dataclass(frozen=True)
class Camera:
    """What a camera does to every image.

    `gains` are of red, green and blue, `light` points to the light in the image, `blur` is a radius
    in final pixels and `noise` a standard deviation in grey levels.
    """

    gains: tuple[float, float, float]
    contrast: float
    light: tuple[float, float]
    blur: float
    noise: float


CAMERAS = (
    Camera((1.00, 0.99, 0.97), 1.00, (0.85, -0.52), 0.30, 2.2),
    Camera((1.10, 1.05, 0.94), 1.05, (-0.90, -0.43), 0.25, 2.0),
    Camera((0.84, 0.88, 0.96), 0.92, (0.60, -0.80), 0.45, 3.2),
    Camera((1.04, 1.08, 1.12), 0.86, (-0.70, -0.71), 0.35, 2.4),
)


def key(seed: int, identity: int, camera: int, index: int) -> np.random.Generator:
    """The randomness of one image (identities from -1), whatever the order of drawing."""
    return np.random.default_rng([seed, identity + 1, camera, index])


@lru_cache(maxsize=64)
def _person(seed: int, identity: int) -> Person:
    return dress(key(seed, identity, 0, 0))


@lru_cache(maxsize=4)
def _places(seed: int, camera: int) -> tuple[Image.Image, ...]:
    """A camera's place at every zoom."""
    place = scenery.paint(camera, key(seed, _PLACES, camera, 0))
    sizes = [(round(place.width * zoom), round(place.height * zoom)) for zoom in _ZOOMS]
    return tuple(place.resize(size, Image.Resampling.BICUBIC) for size in sizes)


class Posed(NamedTuple):
    """A person in front of the camera: the arguments of `draw_person`; x and ground in pixels."""

    person: Person
    pose: Pose
    x: float
    ground: float
    height: float


class Truth(NamedTuple):
    """What is known of a drawn image.

    Attributes:
        image: as a camera takes it.
        parts: (rows, columns) uint8, indices in `wardrobe.PARTS`; somebody else in the image is
            background.
        keypoints: (18, 2) int32 rows and columns of OpenPose's joints (`figure.KEYPOINTS`), in
            pixels of an image of `figure.KEYPOINTS_SIZE` whatever the image's size is; -1, -1 where
            a joint lies outside or cannot be seen.
    """

    image: Image.Image
    parts: np.ndarray
    keypoints: np.ndarray


def photograph(
    seed: int, identity: int, camera: int, index: int, *, height: int, width: int
) -> Image.Image:
    """Takes one image of the data set.

    Args:
        seed: of the data set.
        identity: a person's number from 1, 0 for a distractor, -1 for a box that misses its person.
        camera: 1 to 4.
        index: counts the images of this identity under this camera.
        height, width: size of the image in pixels.
    """
    image, _ = _take(seed, identity, camera, index, height, width, None)
    return image


def photograph_in_clothes(
    seed: int,
    appearance: int,
    identity: int,
    camera: int,
    index: int,
    *,
    height: int,
    width: int,
    parts_size: tuple[int, int] | None = None,
) -> Truth:
    """The image that `photograph` takes, but that its person has the appearance of another.

    Pose, build, hair, bag, place, camera, light and noise are those of the image: the truth of a
    swap. What appearance is, `wardrobe.wearing` says.

    Args:
        seed, identity, camera, index, height, width: as of `photograph`, with a person in the
            image (identity from 1).
        appearance: a person's number from 1.
        parts_size: rows and columns of the parts, if they are not the image's.
    """
    clothes = _person(seed, appearance)
    image, posed = _take(seed, identity, camera, index, height, width, clothes)
    assert posed is not None
    drawing = canvas.Canvas(Image.new("RGB", (canvas.WIDTH, canvas.HEIGHT)), (0.0, -1.0))
    draw_person(drawing, labelled(posed.person), *posed[1:])
    size = parts_size or (height, width)
    return Truth(image, _most_frequent(part_labels(drawing.colours), *size), _keypoints(posed))


def _take(
    seed: int,
    identity: int,
    camera: int,
    index: int,
    height: int,
    width: int,
    clothes: Person | None,
) -> tuple[Image.Image, Posed | None]:
    """An image, and the person whose image it is (identity from 1), in given clothes or its own."""
    rng = key(seed, identity, camera, index)
    lens = CAMERAS[camera - 1]
    direction = (lens.light[0] + rng.normal(0, 0.1), lens.light[1] + rng.normal(0, 0.1))
    drawing = canvas.Canvas(_window(seed, camera, rng), direction)
    x, ground, size = 128 + rng.normal(0, 7), rng.uniform(478, 498), rng.uniform(462, 496)
    posed = None
    if identity > 0:
        if rng.random() < 0.08:
            _passer_by(drawing, rng)
        person = _person(seed, identity)
        if clothes is not None:
            person = wearing(person, clothes)
        posed = Posed(person, take_pose(rng, int(rng.integers(4))), x, ground, size)
        draw_person(drawing, *posed)
    elif identity == 0:
        if rng.random() < 0.7:
            draw_person(drawing, dress(rng), take_pose(rng, int(rng.integers(4))), x, ground, size)
        elif rng.random() < 0.5:
            _passer_by(drawing, rng)
    elif rng.random() < 0.6:
        # A box around half a body, or around the legs only.
        size, side = rng.uniform(560, 900), rng.choice((-1, 1))
        x, ground = (
            128 + side * rng.uniform(50, 120),
            rng.uniform(480, 480 + 0.75 * (size - 512) + 60),
        )
        draw_person(drawing, dress(rng), take_pose(rng, int(rng.integers(4))), x, ground, size)
    return _develop(drawing.reduced(width, height), lens, rng), posed


def _most_frequent(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The label (height, width) that most of the drawing's pixels under each pixel have."""
    counts = [
        np.asarray(
            Image.fromarray((labels == label).view(np.uint8) * np.uint8(255)).resize(
                (width, height), Image.Resampling.BOX
            )
        )
        for label in range(len(PARTS))
    ]
    return np.argmax(counts, axis=0).astype(np.uint8)


def _keypoints(posed: Posed) -> np.ndarray:
    """The joints of `Truth`, (18, 2) int32; -1 for those that are not in the image."""
    size = np.array(KEYPOINTS_SIZE)
    joints = find_joints(*posed) * (size / [canvas.HEIGHT, canvas.WIDTH])
    pixels = np.floor(np.nan_to_num(joints, nan=-1.0)).astype(np.int32)
    inside = ((pixels >= 0) & (pixels < size)).all(axis=1, keepdims=True)
    return np.where(inside, pixels, -1)


def _window(seed: int, camera: int, rng: np.random.Generator) -> Image.Image:
    """A random window of a camera's place, the size of a canvas."""
    place = _places(seed, camera)[rng.integers(len(_ZOOMS))]
    left = int(rng.integers(place.width - canvas.WIDTH + 1))
    top = int(rng.integers(min(60, place.height - canvas.HEIGHT) + 1))
    return place.crop((left, top, left + canvas.WIDTH, top + canvas.HEIGHT))


def _passer_by(drawing: canvas.Canvas, rng: np.random.Generator) -> None:
    """Somebody else, further away and cut by the edge of the box."""
    x = rng.choice((-1, 1)) * rng.uniform(85, 125) + 128
    size = rng.uniform(260, 340)
    pose = take_pose(rng, int(rng.integers(4)))
    draw_person(drawing, dress(rng), pose, x, rng.uniform(330, 400), size)


def _develop(picture: np.ndarray, lens: Camera, rng: np.random.Generator) -> Image.Image:
    """Exposure, cast, contrast, blur and noise on (height, width, 3) float32 values in 0..255."""
    gains = (
        np.asarray(lens.gains, np.float32)
        * rng.uniform(0.86, 1.10)
        * rng.normal(1.0, 0.02, 3).astype(np.float32)
    )
    contrast = lens.contrast * rng.uniform(0.92, 1.06)
    exposed = (picture * gains - 118.0) * contrast + 118.0
    image = Image.fromarray(exposed.clip(0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(lens.blur * rng.uniform(0.6, 1.5)))
    noise = rng.standard_normal(picture.shape, np.float32) * np.float32(lens.noise)
    noisy = np.asarray(image, np.float32) + noise
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
