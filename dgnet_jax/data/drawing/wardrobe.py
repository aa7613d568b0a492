"""Who a drawn person is: everything that stays the same from image to image."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from dgnet_jax.data.drawing.canvas import HEIGHT, WIDTH, Colour, Fill, Texture

_CLOTH: tuple[Colour, ...] = (
    (228, 226, 220),
    (52, 52, 58),
    (136, 138, 142),
    (178, 44, 48),
    (232, 122, 52),
    (238, 200, 74),
    (92, 150, 76),
    (34, 96, 78),
    (74, 168, 176),
    (66, 118, 190),
    (38, 54, 110),
    (122, 84, 160),
    (222, 128, 158),
    (124, 40, 66),
    (142, 98, 62),
    (206, 186, 150),
)
_TROUSERS: tuple[Colour, ...] = (
    (44, 46, 54),
    (52, 72, 112),
    (96, 128, 168),
    (176, 158, 124),
    (118, 120, 122),
    (84, 92, 62),
    (112, 78, 56),
    (214, 210, 200),
    (132, 52, 58),
)
_SKIN: tuple[Colour, ...] = (
    (240, 206, 178),
    (226, 184, 148),
    (202, 152, 114),
    (160, 110, 76),
    (112, 74, 52),
)
_HAIR: tuple[Colour, ...] = (
    (34, 30, 32),
    (62, 42, 32),
    (108, 70, 42),
    (176, 132, 76),
    (150, 66, 38),
    (150, 148, 148),
)
_SHOES: tuple[Colour, ...] = (
    (40, 40, 44),
    (236, 234, 230),
    (120, 80, 52),
    (186, 48, 50),
    (58, 92, 160),
    (206, 190, 160),
)
_BAGS: tuple[Colour, ...] = (
    (44, 44, 50),
    (150, 92, 50),
    (176, 40, 46),
    (44, 80, 140),
    (60, 112, 78),
    (226, 178, 60),
)
PATTERNS = ("plain", "plain", "horizontal", "vertical", "checks", "dots", "print", "jacket")
BOTTOMS = ("trousers", "trousers", "trousers", "shorts", "shorts", "skirt", "dress")
HAIRSTYLES = ("short", "short", "long", "bun", "ponytail", "cap", "bald")
BAGS = ("none", "none", "backpack", "handbag", "shoulder strap")


@dataclass(frozen=True)
class Person:
    """One identity.

    `stature`, `girth`, `shoulders` and `waist` are factors of an average adult's; `sleeve` is 0 for
    none and 1 for a long one; `hem` is the height of a shirt's lower edge in body heights;
    `lower_length` goes from 0 to 1 between the extremes of a garment; a bag is on `side`, 1 being
    the left and -1 the right.
    """

    stature: float
    girth: float
    shoulders: float
    waist: float
    skin: Colour
    hairstyle: str
    hair: Colour
    cap: Colour
    pattern: str
    top: Colour
    accent: Colour
    sleeve: float
    hem: float
    bottom: str
    lower: Colour
    lower_length: float
    lower_pattern: str
    shoes: Colour
    sole: Colour
    socks: bool
    bag: str
    bag_colour: Colour
    side: int
    print_shape: str
    cloth: Fill
    lower_cloth: Fill


# What the paper's table 1 calls appearance; all other fields are structure.
_APPEARANCE = (
    "skin",
    "pattern",
    "top",
    "accent",
    "sleeve",
    "hem",
    "bottom",
    "lower",
    "lower_length",
    "lower_pattern",
    "shoes",
    "sole",
    "socks",
    "print_shape",
    "cloth",
    "lower_cloth",
)

PARTS = ("background", "skin", "top", "lower", "shoes", "hair", "bag")
"""Names of the labels of a drawing's parts, in their order: 0 is the background."""


def wearing(structure: Person, appearance: Person) -> Person:
    """The first person in the appearance of the second.

    Which is which follows table 1 of DG-Net (Zheng et al., CVPR 2019). Appearance: colour, texture
    and style of clothes and shoes, "other id-related cues", here the colour of the skin. Structure:
    body size, hair (and what is on it), carrying (the bag).
    """
    return replace(structure, **{name: getattr(appearance, name) for name in _APPEARANCE})


def labelled(person: Person) -> Person:
    """The person with each part in a colour of its own, see `part_labels`.

    Socks count as shoes, a print and the shirt in an open jacket as the top, a cap as hair.
    """
    colours = {name: _label_colour(label) for label, name in enumerate(PARTS)}
    return replace(
        person,
        skin=colours["skin"],
        top=colours["top"],
        accent=colours["top"],
        cloth=colours["top"],
        lower=colours["lower"],
        lower_cloth=colours["lower"],
        shoes=colours["shoes"],
        sole=colours["shoes"],
        hair=colours["hair"],
        cap=colours["hair"],
        bag_colour=colours["bag"],
    )


def _label_colour(label: int) -> Colour:
    """A bit of the label in each channel: a lighter or darker shade says the same."""
    red, green, blue = (200 * (label >> bit & 1) for bit in range(3))
    return red, green, blue


def part_labels(colours: np.ndarray) -> np.ndarray:
    """Indices in `PARTS` (...,) uint8 of what was drawn of `labelled` people, (..., 3) uint8."""
    red, green, blue = np.moveaxis((colours > 20).view(np.uint8), -1, 0)
    return red | green << 1 | blue << 2


def shade(colour: Colour, factor: float) -> Colour:
    """The colour times a factor, clipped."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def _pick(
    rng: np.random.Generator,
    palette: tuple[Colour, ...],
    away_from: Colour | None = None,
    distance: int = 150,
) -> Colour:
    """A colour of the palette, slightly varied, at least `distance` (summed) from `away_from`."""
    options = np.array(palette)
    if away_from is not None:
        options = options[np.abs(options - away_from).sum(axis=1) >= distance]
    red, green, blue = np.clip(options[rng.integers(len(options))] + rng.normal(0, 7, 3), 20, 245)
    return round(red), round(green), round(blue)


def weave(pattern: str, base: Colour, accent: Colour, period: int) -> Fill:
    """The cloth of a pattern: the plain colour, or a texture that repeats every `period` pixels."""
    if pattern not in ("horizontal", "vertical", "checks", "dots"):
        return base
    size = (WIDTH + period, HEIGHT + period)
    tile = Image.new("RGB", size, base)
    pen = ImageDraw.Draw(tile)
    half = period // 2
    if pattern == "dots":
        radius = period * 0.24
        for row, y in enumerate(range(half // 2, size[1], half)):
            for x in range(half // 2 + (row % 2) * half, size[0], period):
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=accent)
        return Texture(tile, period)
    if pattern != "vertical":
        for y in range(0, size[1], period):
            pen.rectangle((0, y, size[0], y + half - 1), fill=accent)
    if pattern != "horizontal":
        across = Image.new("RGB", size, base)
        across_pen = ImageDraw.Draw(across)
        for x in range(0, size[0], period):
            across_pen.rectangle((x, 0, x + half - 1, size[1]), fill=accent)
        tile = across if pattern == "vertical" else Image.blend(tile, across, 0.5)
    return Texture(tile, period)


def dress(rng: np.random.Generator) -> Person:
    """Draws a person by lot: build, skin, hair, clothes, shoes and bag."""
    top = _pick(rng, _CLOTH)
    accent = _pick(rng, _CLOTH, away_from=top)
    pattern = str(rng.choice(PATTERNS))
    bottom = str(rng.choice(BOTTOMS))
    if bottom == "dress" and pattern == "jacket":
        pattern = "dots"
    lower = _pick(rng, _TROUSERS if bottom in ("trousers", "shorts") else _CLOTH, away_from=top)
    lower_pattern = (
        str(rng.choice(("plain", "plain", "checks", "vertical", "dots")))
        if bottom == "skirt"
        else "plain"
    )
    skin = _pick(rng, _SKIN)
    hairstyle = str(
        rng.choice(
            HAIRSTYLES if bottom in ("trousers", "shorts") else ("long", "bun", "ponytail", "short")
        )
    )
    slender = bottom in ("skirt", "dress") or hairstyle in ("long", "bun", "ponytail")
    period = int(rng.choice((28, 36, 48)))
    cloth = weave(pattern, top, accent, period)
    return Person(
        stature=float(rng.uniform(0.87, 1.0)),
        girth=float(rng.uniform(0.86, 1.06) if slender else rng.uniform(0.92, 1.24)),
        shoulders=float(rng.uniform(0.86, 0.96) if slender else rng.uniform(0.96, 1.08)),
        waist=float(rng.uniform(0.80, 0.92) if slender else rng.uniform(0.94, 1.12)),
        skin=skin,
        hairstyle=hairstyle,
        hair=_pick(rng, _HAIR, away_from=skin, distance=110),
        cap=_pick(rng, _BAGS),
        pattern=pattern,
        top=top,
        accent=accent,
        sleeve=1.0 if pattern == "jacket" else float(rng.choice((0.0, 0.42, 0.42, 0.5, 1.0, 1.0))),
        hem=float(rng.uniform(0.485, 0.55)),
        bottom=bottom,
        lower=lower,
        lower_length=float(rng.uniform(0.0, 1.0)),
        lower_pattern=lower_pattern,
        shoes=_pick(rng, _SHOES),
        sole=_pick(rng, ((235, 235, 232), (60, 56, 54), (150, 120, 90))),
        socks=bool(rng.random() < 0.4),
        bag=str(rng.choice(BAGS)),
        bag_colour=_pick(rng, _BAGS, away_from=top),
        side=int(rng.choice((-1, 1))),
        print_shape=str(rng.choice(("block", "disc", "bars"))),
        cloth=cloth,
        lower_cloth=cloth
        if bottom == "dress"
        else weave(lower_pattern, lower, shade(lower, 1.5), 40),
    )
