"""A canvas of two layers: what colour a thing is, and how much light falls on it.

Both are drawn with hard edges at four times the final size; they are reduced apart and multiplied
at the end, which gives smooth edges and round-looking limbs for the price of a few polygons each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 256, 512
"""Size of the drawing in pixels: four times the 64 x 128 of a Market-1501 box."""

Colour = tuple[int, int, int]

_NEUTRAL = 160
# (from, to, light) across a rounded body, -1 being its dark edge and 1 its lit edge; each band lies
# inside the one before.
_BANDS = np.array(
    [
        (-1.00, 1.00, 0.64),
        (-0.92, 1.00, 0.71),
        (-0.77, 1.00, 0.78),
        (-0.60, 0.99, 0.85),
        (-0.41, 0.97, 0.92),
        (-0.19, 0.94, 0.98),
        (0.04, 0.88, 1.04),
        (0.26, 0.77, 1.09),
    ]
)

_WIDE = 26.0
"""Half width in pixels from which the steps between bands would show, and finer ones are drawn."""
_BETWEEN = np.linspace(0, len(_BANDS) - 1, 2 * len(_BANDS) + 1)
_FINE_BANDS = np.stack(
    [np.interp(_BETWEEN, np.arange(len(_BANDS)), column) for column in _BANDS.T], axis=1
)


@dataclass(frozen=True)
class Texture:
    """A patterned cloth: a tile that repeats every `period` pixels, its origin pinned to (x, y)."""

    tile: Image.Image
    period: int
    x: int = 0
    y: int = 0


Fill = Colour | Texture


def pinned(fill: Fill, point: np.ndarray) -> Fill:
    """A cloth with its origin at `point` (x, y) of the canvas; a plain colour as it is."""
    if not isinstance(fill, Texture):
        return fill
    return Texture(fill.tile, fill.period, int(point[0]), int(point[1]))


class Canvas:
    """The two layers of one image being drawn; points are (x, y) pixels, y downwards."""

    def __init__(self, background: Image.Image, light_direction: tuple[float, float]):
        """Draws over an RGB background of WIDTH x HEIGHT; `light_direction` points to the light."""
        self._colour = background
        # Light changes slowly: half the resolution is enough, and twice as fast.
        self._light = Image.new("L", (background.width // 2, background.height // 2), _NEUTRAL)
        self._colour_pen = ImageDraw.Draw(self._colour)
        self._light_pen = ImageDraw.Draw(self._light)
        self._light_direction = np.asarray(light_direction)

    def ribbon(
        self,
        spine: np.ndarray,
        half_widths: np.ndarray,
        fill: Fill,
        *,
        rim: float = 0.0,
        dim: float = 1.0,
    ) -> None:
        """Draws a rounded body along a spine.

        Args:
            spine: (n, 2) points, n >= 2.
            half_widths: (n,) pixels on either side.
            fill: its colour, or a texture.
            rim: width in pixels of a dark edge around it, which lifts it off what lies behind.
            dim: factor of its light, below 1 for what lies in the shade of the body.
        """
        normals = _normals(spine)
        across = float((normals @ self._light_direction).mean())
        if across < 0:
            normals = -normals
        bands = _FINE_BANDS if half_widths.max() > _WIDE else _BANDS
        edges = np.concatenate([bands[:, :2], [(-1.0, 1.0)]])[:, :, None] * half_widths
        edges[-1] += [[-rim], [rim]]
        outlines = spine + normals * edges[..., None]
        outlines = np.concatenate([outlines[:, 0], outlines[:, 1, ::-1]], axis=1).reshape(
            len(edges), -1
        )
        self._fill(outlines[0], fill)
        halved = (outlines * 0.5).tolist()
        if rim:
            self._light_pen.polygon(halved[-1], fill=int(0.74 * _NEUTRAL))
        contrast = min(1.0, 0.35 + abs(across))
        levels = _NEUTRAL * dim * (0.94 + (bands[:, 2] - 0.94) * contrast)
        for outline, level in zip(halved, levels, strict=False):
            self._light_pen.polygon(outline, fill=int(level))

    def flat(self, points: npt.ArrayLike, fill: Fill) -> None:
        """Fills the polygon (n, 2) with colour and leaves the light as it is: a print, a collar."""
        self._fill(np.asarray(points).ravel(), fill)

    def disc(self, centre: np.ndarray, radius_x: float, radius_y: float, fill: Colour) -> None:
        """Fills an axis-aligned ellipse with colour and leaves the light as it is."""
        x, y = centre
        self._colour_pen.ellipse(
            (x - radius_x, y - radius_y, x + radius_x, y + radius_y), fill=fill
        )

    def stroke(self, points: npt.ArrayLike, fill: Colour, width: int) -> None:
        """Draws a line of colour `width` pixels wide and leaves the light as it is."""
        self._colour_pen.line(
            np.asarray(points).ravel().tolist(), fill=fill, width=width, joint="curve"
        )

    def crease(self, points: npt.ArrayLike, light: float, width: int) -> None:
        """Draws a line of more or less light, and leaves the colour: a fold of cloth."""
        line = (np.asarray(points) * 0.5).ravel().tolist()
        self._light_pen.line(line, fill=int(light * _NEUTRAL), width=width // 2)

    def shadow(self, centre: np.ndarray, radius_x: float, radius_y: float, depth: float) -> None:
        """Darkens the ground softly: `depth` is the share of light lost at the centre."""
        radii = np.array([radius_x, radius_y])
        for step in range(1, 7):
            reach = radii * (1.2 - step / 6)
            box = np.concatenate([centre - reach, centre + reach]) * 0.5
            self._light_pen.ellipse(box.tolist(), fill=int((1.0 - depth * step / 6) * _NEUTRAL))

    def reduced(self, width: int, height: int) -> np.ndarray:
        """The lit picture at its final size: (height, width, 3) float32 in 0..255, not clipped."""
        size, lanczos = (width, height), Image.Resampling.LANCZOS
        # Halving by plain averages first is what keeps the sharper filter affordable.
        colour = np.asarray(self._colour.reduce(2).resize(size, lanczos), np.float32)
        light = np.asarray(self._light.resize(size, Image.Resampling.BILINEAR), np.float32)
        return colour * (light / _NEUTRAL)[..., None]

    @property
    def colours(self) -> np.ndarray:
        """The layer of colours, (HEIGHT, WIDTH, 3) uint8, as drawn: no light on it."""
        return np.asarray(self._colour)

    def _fill(self, polygon: np.ndarray, fill: Fill) -> None:
        """Fills the polygon (2n,), x and y alternating."""
        if not isinstance(fill, Texture):
            self._colour_pen.polygon(polygon.tolist(), fill=fill)
            return
        points = polygon.reshape(-1, 2)
        left, top = np.maximum(points.min(axis=0), 0).astype(int).tolist()
        right, bottom = np.minimum(points.max(axis=0) + 1, self._colour.size).astype(int).tolist()
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((points - (left, top)).ravel().tolist(), fill=255)
        x, y = (left - fill.x) % fill.period, (top - fill.y) % fill.period
        self._colour.paste(
            fill.tile.crop((x, y, x + right - left, y + bottom - top)), (left, top), mask
        )


def _normals(spine: np.ndarray) -> np.ndarray:
    """Unit normals (n, 2) of a polyline (n, 2), by central differences."""
    tangents = np.empty_like(spine)
    tangents[1:-1] = spine[2:] - spine[:-2]
    tangents[0], tangents[-1] = spine[1] - spine[0], spine[-1] - spine[-2]
    lengths = np.maximum(np.hypot(tangents[:, 0], tangents[:, 1]), 1e-6)
    return np.stack([-tangents[:, 1], tangents[:, 0]], axis=1) / lengths[:, None]


_CAP_ANGLES = np.radians([85.0, 60.0, 30.0])
_CAP_OUT, _CAP_WIDTH = np.sin(_CAP_ANGLES), np.cos(_CAP_ANGLES)


def limb(
    points: np.ndarray, radii: np.ndarray, *, open_end: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A spine and half widths through joints (n, 2) of radii (n,), its ends rounded.

    `open_end` cuts the last end flat, as a hem or a cuff is.
    """
    joints = np.asarray(points, float)
    middles = (joints[1:] + joints[:-1]) / 2
    spine = np.concatenate([joints[:1], np.stack([middles, joints[1:]], axis=1).reshape(-1, 2)])
    widths = np.interp(np.arange(len(spine)) / 2, np.arange(len(joints)), radii)
    spine, widths = _rounded(spine, widths)
    if not open_end:
        spine, widths = _rounded(spine[::-1], widths[::-1])
    return spine, widths


def _rounded(spine: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    outward = spine[0] - spine[1]
    outward = outward / max(float(np.hypot(*outward)), 1e-6)
    cap = spine[0] + outward * (widths[0] * _CAP_OUT)[:, None]
    return np.concatenate([cap, spine]), np.concatenate([widths[0] * _CAP_WIDTH, widths])


def oval(
    centre: np.ndarray, radius_x: float, radius_y: float, *, squareness: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """A spine and half widths of an upright ellipse; `squareness` over 2 makes it a rounded box."""
    steps = -np.cos(np.linspace(0.04, np.pi - 0.04, 13))
    spine = np.asarray(centre) + np.stack([np.zeros_like(steps), steps * radius_y], axis=1)
    return spine, radius_x * (1 - np.abs(steps) ** squareness) ** (1 / squareness)
