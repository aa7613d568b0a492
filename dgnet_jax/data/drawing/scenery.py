"""The four places where the cameras hang: a street, a park, a wall and a square."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dgnet_jax.data.drawing.canvas import Colour
from dgnet_jax.data.drawing.wardrobe import shade

WIDTH, HEIGHT = 1100, 640
"""Size of a place in pixels of a canvas; an image's background is a window of it."""

Pen = ImageDraw.ImageDraw


def paint(camera: int, rng: np.random.Generator) -> Image.Image:
    """The place of a camera (1 to 4) as an RGB image of WIDTH x HEIGHT, a little out of focus."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    _PLACES[camera - 1](ImageDraw.Draw(image), rng)
    grain = rng.normal(0, 5, (HEIGHT // 4, WIDTH // 4))
    coarse = Image.fromarray((128 + grain).clip(0, 255).astype(np.uint8)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    speckled = np.asarray(image, np.int16) + np.asarray(coarse, np.int16)[..., None] - 128
    return Image.fromarray(speckled.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(2.2)
    )


def _gradient(pen: Pen, top: int, bottom: int, first: Colour, last: Colour) -> None:
    for y in range(top, bottom):
        share = (y - top) / max(1, bottom - top - 1)
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, last, strict=True))
        pen.line((0, y, WIDTH, y), fill=(red, green, blue))


def _paving(
    pen: Pen,
    rng: np.random.Generator,
    horizon: int,
    top: int,
    tones: tuple[Colour, Colour],
    size: float,
    bond: float,
) -> None:
    """Slabs in perspective below `top`; `bond` shifts every other row by a share of a slab."""
    pen.rectangle((0, top, WIDTH, HEIGHT), fill=tones[0])
    near = HEIGHT - horizon
    distances = 0.9 + np.arange(0, 14, size * 0.6)
    for row, (front, back) in enumerate(pairwise(distances)):
        low, high = horizon + near / front, horizon + near / back
        if low < top:
            break
        for column in range(-60, 60):
            left = (column + bond * (row % 2)) * size * 300
            corners = [
                (WIDTH / 2 + left / front, low),
                (WIDTH / 2 + (left + size * 300) / front, low),
                (WIDTH / 2 + (left + size * 300) / back, max(high, top)),
                (WIDTH / 2 + left / back, max(high, top)),
            ]
            xs = [x for x, _ in corners]
            if max(xs) < 0 or min(xs) > WIDTH:
                continue
            tone = shade(tones[(row + column) % 2], float(rng.normal(1.0, 0.035)))
            pen.polygon(corners, fill=tone, outline=shade(tone, 0.86))


def _foliage(
    pen: Pen, rng: np.random.Generator, box: tuple[int, int, int, int], colour: Colour, count: int
) -> None:
    """Leaves: blobs from dark below to light above, inside a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    for step in range(count):
        share = step / count
        x, y = rng.uniform(left, right), bottom - (bottom - top) * rng.uniform(0.3 * share, 1.0)
        radius = rng.uniform(10, 30)
        tone = shade(colour, 0.60 + 0.55 * share + float(rng.normal(0, 0.06)))
        pen.ellipse((x - radius, y - 0.8 * radius, x + radius, y + 0.8 * radius), fill=tone)


def _tree(pen: Pen, rng: np.random.Generator, x: int, foot: int) -> None:
    pen.polygon([(x - 16, foot), (x + 16, foot), (x + 9, 0), (x - 9, 0)], fill=(92, 74, 58))
    pen.polygon([(x + 4, foot), (x + 16, foot), (x + 9, 0), (x + 2, 0)], fill=(70, 56, 46))
    _foliage(pen, rng, (x - 110, -20, x + 110, 90), (82, 122, 62), 46)


def _bicycle(pen: Pen, x: int, ground: int, colour: Colour, size: float) -> None:
    radius = 46 * size
    hubs = [(x, ground - radius), (x + 118 * size, ground - radius)]
    for hub_x, hub_y in hubs:
        ring = (hub_x - radius, hub_y - radius, hub_x + radius, hub_y + radius)
        pen.ellipse(ring, outline=(48, 48, 50), width=max(3, round(6 * size)))
        for angle in np.linspace(0, np.pi, 5)[:-1]:
            reach = radius * np.array([np.cos(angle), np.sin(angle)])
            pen.line(
                (hub_x - reach[0], hub_y - reach[1], hub_x + reach[0], hub_y + reach[1]),
                fill=(150, 150, 150),
            )
    (rear_x, hub_y), (front_x, _) = hubs
    seat, crank = (rear_x + 32 * size, hub_y - 62 * size), (rear_x + 50 * size, hub_y + 4 * size)
    head = (front_x - 18 * size, hub_y - 66 * size)
    frame = [(rear_x, hub_y), seat, head, crank, (rear_x, hub_y), crank, seat]
    pen.line(frame, fill=colour, width=max(3, round(7 * size)), joint="curve")
    pen.line([head, (front_x, hub_y)], fill=colour, width=max(3, round(7 * size)))
    pen.line(
        [
            head,
            (head[0] - 4 * size, head[1] - 18 * size),
            (head[0] + 20 * size, head[1] - 22 * size),
        ],
        fill=(60, 60, 60),
        width=5,
    )
    pen.line(
        [(seat[0] - 14 * size, seat[1] - 8), (seat[0] + 16 * size, seat[1] - 8)],
        fill=(40, 40, 42),
        width=8,
    )


def _bench(pen: Pen, x: int, ground: int, colour: Colour) -> None:
    for leg in (x + 12, x + 176):
        pen.rectangle((leg, ground - 62, leg + 9, ground), fill=(60, 60, 62))
    for board in (124, 104, 84):
        pen.rectangle((x, ground - board, x + 200, ground - board + 14), fill=colour)
    pen.polygon(
        [
            (x - 4, ground - 62),
            (x + 204, ground - 62),
            (x + 212, ground - 46),
            (x - 12, ground - 46),
        ],
        fill=shade(colour, 1.15),
    )


def _street(pen: Pen, rng: np.random.Generator) -> None:
    _gradient(pen, 0, 118, (70, 88, 60), (60, 78, 50))
    _foliage(pen, rng, (0, -30, WIDTH, 120), (86, 118, 70), 240)
    _gradient(pen, 118, 168, (112, 148, 84), (132, 166, 96))
    pen.rectangle((0, 168, WIDTH, 184), fill=(188, 184, 176))
    _paving(pen, rng, -20, 184, ((158, 150, 146), (140, 134, 132)), 0.30, 0.5)
    for x, colour in (
        (40, (60, 90, 150)),
        (220, (150, 52, 48)),
        (520, (60, 110, 80)),
        (700, (70, 70, 74)),
        (900, (190, 150, 60)),
    ):
        _bicycle(
            pen,
            x + int(rng.integers(-20, 20)),
            222 + int(rng.integers(-6, 10)),
            colour,
            float(rng.uniform(0.85, 1.0)),
        )


def _park(pen: Pen, rng: np.random.Generator) -> None:
    _gradient(pen, 0, 110, (206, 222, 234), (226, 232, 226))
    _gradient(pen, 110, 178, (84, 112, 72), (96, 126, 74))
    _foliage(pen, rng, (0, 30, WIDTH, 190), (104, 142, 84), 210)
    _gradient(pen, 176, HEIGHT, (134, 168, 84), (106, 142, 66))
    for _ in range(900):
        x, y = rng.uniform(0, WIDTH), rng.uniform(180, HEIGHT)
        reach = 3 + 12 * (y - 180) / (HEIGHT - 180)
        tone = shade((116, 152, 72), float(rng.normal(1.0, 0.12)))
        pen.line((x, y, x + rng.normal(0, 2), y - reach), fill=tone, width=3)
    pen.polygon(
        [(0, 470), (330, 400), (760, 372), (WIDTH, 376), (WIDTH, 560), (700, 580), (0, HEIGHT)],
        fill=(204, 188, 156),
    )
    pen.line([(0, 470), (330, 400), (760, 372), (WIDTH, 376)], fill=(172, 160, 128), width=5)
    for x in (110, 470, 830):
        _tree(pen, rng, x + int(rng.integers(-30, 30)), 240 + int(rng.integers(0, 50)))
    _bench(pen, 560, 330, (140, 98, 62))
    _bench(pen, 190, 340, (140, 98, 62))


def _wall(pen: Pen, rng: np.random.Generator) -> None:
    _gradient(pen, 0, 330, (196, 178, 156), (176, 156, 134))
    for row in range(14):
        for column in range(-1, 26):
            tone = shade((180, 128, 102), float(rng.normal(1.0, 0.06)))
            left, top = column * 46 + 23 * (row % 2), 60 + row * 19
            pen.rectangle((left, top, left + 43, top + 16), fill=tone)
    for x in (70, 430, 800):
        pen.rectangle((x, -10, x + 130, 176), fill=(226, 220, 208))
        pen.rectangle((x + 10, -10, x + 120, 166), fill=(104, 126, 142))
        pen.polygon(
            [(x + 10, 120), (x + 120, 20), (x + 120, 70), (x + 10, 166)], fill=(142, 162, 174)
        )
        pen.line((x + 65, -10, x + 65, 166), fill=(226, 220, 208), width=7)
    pen.rectangle((270, 90, 350, 200), fill=(236, 232, 220))
    pen.rectangle((280, 100, 340, 150), fill=(70, 128, 168))
    pen.rectangle((640, 40, 750, 330), fill=(82, 100, 88))
    pen.ellipse((732, 196, 744, 208), fill=(214, 190, 110))
    pen.rectangle((0, 322, WIDTH, 340), fill=(128, 120, 112))
    _paving(pen, rng, 120, 340, ((176, 172, 166), (168, 164, 158)), 0.62, 0.0)
    for x in (225, 960):
        pen.rectangle((x, 258, x + 56, 362), fill=(60, 92, 74))
        pen.rectangle((x - 4, 250, x + 60, 264), fill=(46, 72, 58))


def _square(pen: Pen, rng: np.random.Generator) -> None:
    _gradient(pen, 0, 170, (120, 138, 152), (150, 164, 172))
    for x in range(0, WIDTH, 92):
        tone = shade((126, 148, 164), float(rng.uniform(0.75, 1.2)))
        pen.rectangle((x + 8, 0, x + 86, 150), fill=tone)
        pen.polygon([(x + 8, 90), (x + 60, 0), (x + 86, 0), (x + 8, 140)], fill=shade(tone, 1.12))
        pen.rectangle((x - 5, 0, x + 7, 170), fill=(214, 214, 210))
    pen.rectangle((0, 150, WIDTH, 172), fill=(196, 194, 188))
    _paving(pen, rng, 20, 172, ((206, 196, 182), (158, 146, 136)), 0.46, 0.0)
    for x in (150, 560, 930):
        pen.polygon([(x, 190), (x + 120, 190), (x + 108, 252), (x + 12, 252)], fill=(150, 112, 90))
        _foliage(pen, rng, (x, 120, x + 120, 196), (92, 136, 80), 40)
    for x in (380, 790):
        pen.rectangle((x, 0, x + 13, 300), fill=(74, 78, 84))
        pen.rectangle((x - 8, 288, x + 21, 308), fill=(60, 64, 70))


_PLACES: tuple[Callable[[Pen, np.random.Generator], None], ...] = (_street, _park, _wall, _square)
