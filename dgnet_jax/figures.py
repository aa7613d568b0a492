"""Figures of images with captions, and animated pictures, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from dgnet_jax.runtime.atomic import replacing, write_image
from dgnet_jax.runtime.paths import printable

_GAP, _MARGIN, _TITLE_SIZE, _CAPTION_SIZE, _LABEL_SIZE = 4, 12, 14, 16, 11
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_ROW_TITLE_WIDTH = 150
_MILLISECONDS = 120
_EXIF_DESCRIPTION = 0x010E


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    caption: str = "",
    scale: int = 1,
    separate_originals: bool = False,
    labels: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Draws images in rows, with titles above the columns and left of the rows.

    Args:
        rows: equally long rows of images, (height, width, 3) uint8; None leaves a cell empty.
        column_titles: one per column, or none.
        row_titles: one per row, or none.
        caption: a text below, wrapped to the figure's width.
        scale: every pixel becomes a square of scale x scale.
        separate_originals: a wide gap after the first row and column.
        labels: a small text below each image, in rows like `rows`; none if empty.
    """
    cells = [[_cell(image, scale) for image in row] for row in rows]
    if not cells or not cells[0] or len({len(row) for row in cells}) > 1:
        raise ValueError(f"rows must be equally long, found {[len(row) for row in cells]}")
    for titles, count, kind in (
        (column_titles, len(cells[0]), "column"),
        (row_titles, len(cells), "row"),
    ):
        if titles and len(titles) != count:
            raise ValueError(f"{len(titles)} {kind} titles for {count} {kind}s")
    if labels and [len(row) for row in labels] != [len(row) for row in cells]:
        raise ValueError("labels are rows of one text for each cell")
    font = ImageFont.load_default(size=_TITLE_SIZE)
    width = max([cell.width for row in cells for cell in row if cell] + [1])
    height = max([cell.height for row in cells for cell in row if cell] + [1])
    words = [word for title in column_titles for word in title.split()]
    pitch = max([width, *(round(font.getlength(word)) for word in words)]) + _GAP
    above = [_wrap(title, font, pitch - _GAP) for title in column_titles]
    left = [_wrap(title, font, _ROW_TITLE_WIDTH) for title in row_titles]

    label_font = ImageFont.load_default(size=_LABEL_SIZE)
    below_cells = [
        [_wrap(text, label_font, pitch - _GAP, break_words=True) for text in row] for row in labels
    ]
    label_height = max(
        [_text_size(text, label_font)[1] + _GAP for row in below_cells for text in row if text],
        default=0,
    )

    extra = 3 * _GAP if separate_originals else 0
    x0 = _MARGIN + max([_text_size(title, font)[0] + 2 * _GAP for title in left], default=0)
    y0 = _MARGIN + max([_text_size(title, font)[1] + _GAP for title in above], default=0)
    xs = [x0 + j * pitch + extra * (j > 0) for j in range(len(cells[0]))]
    row_pitch = height + label_height + _GAP
    ys = [y0 + i * row_pitch + extra * (i > 0) for i in range(len(cells))]
    caption_font = ImageFont.load_default(size=_CAPTION_SIZE)
    total_width = max(xs[-1] + pitch - _GAP + _MARGIN, 320 if caption else 0)
    below = _wrap(caption, caption_font, total_width - 2 * _MARGIN)
    caption_height = _text_size(below, caption_font)[1] + _MARGIN if caption else 0
    bottom = ys[-1] + height + label_height

    figure = Image.new("RGB", (total_width, bottom + caption_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(figure)
    for x, title in zip(xs, above, strict=False):
        draw.multiline_text(
            (x + (pitch - _GAP) // 2, y0 - _GAP), title, _INK, font, anchor="md", align="center"
        )
    for y, title in zip(ys, left, strict=False):
        draw.multiline_text(
            (x0 - 2 * _GAP, y + height // 2), title, _INK, font, anchor="rm", align="right"
        )
    for y, row in zip(ys, cells, strict=True):
        for x, cell in zip(xs, row, strict=True):
            if cell:
                figure.paste(cell, (x + (pitch - _GAP - cell.width) // 2, y))
    for y, texts in zip(ys, below_cells, strict=False):
        for x, text in zip(xs, texts, strict=True):
            draw.multiline_text(
                (x + (pitch - _GAP) // 2, y + height + _GAP // 2),
                text,
                _INK,
                label_font,
                anchor="ma",
                align="center",
            )
    draw.multiline_text((_MARGIN, bottom + _MARGIN), below, _INK, caption_font)
    return figure


def swap_matrix(
    appearance_images: Sequence[np.ndarray],
    structure_images: Sequence[np.ndarray],
    swapped: np.ndarray,
    caption: str = "",
    scale: int = 1,
) -> Image.Image:
    """Draws the swapping figure of DG-Net (Zheng et al., CVPR 2019, figure 1).

    Args:
        appearance_images: n images (height, width, 3) uint8, in the left column.
        structure_images: m images (height, width, 3) uint8, in the top row.
        swapped: (n, m, height, width, 3) uint8; [i, j] has appearance i and structure j.
        caption: a text below.
        scale: every pixel becomes a square of scale x scale.
    """
    n, m = len(appearance_images), len(structure_images)
    if swapped.shape[:2] != (n, m):
        raise ValueError(f"{n} appearance and {m} structure images, but swapped is {swapped.shape}")
    rows: list[list[np.ndarray | None]] = [[None, *structure_images]]
    rows += [[appearance_images[i], *swapped[i]] for i in range(n)]
    return image_grid(
        rows,
        column_titles=["appearance", *["structure"] * m],
        caption=caption,
        scale=scale,
        separate_originals=True,
    )


def truth_matrix(
    appearance_images: Sequence[np.ndarray],
    structure_images: Sequence[np.ndarray],
    swapped: np.ndarray,
    truth: np.ndarray,
    caption: str = "",
    scale: int = 1,
) -> Image.Image:
    """Draws the figure of `swap_matrix`, with the true swaps below each row of swaps.

    Args:
        appearance_images, structure_images, swapped, caption, scale: as `swap_matrix`'s.
        truth: as `swapped`, what it ought to be.
    """
    n, m = len(appearance_images), len(structure_images)
    if not swapped.shape[:2] == truth.shape[:2] == (n, m):
        raise ValueError(
            f"{n} appearance and {m} structure images, but swapped is {swapped.shape} and truth "
            f"{truth.shape}"
        )
    rows: list[list[np.ndarray | None]] = [[None, *structure_images]]
    for appearance, painted, true in zip(appearance_images, swapped, truth, strict=True):
        rows += [[appearance, *painted], [None, *true]]
    return image_grid(
        rows,
        column_titles=["appearance", *["structure"] * m],
        row_titles=["", *["painted", "truth"] * n],
        caption=caption,
        scale=scale,
        separate_originals=True,
    )


def save_png(
    image: Image.Image | np.ndarray, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a PNG atomically, with `metadata` as its text fields."""
    text = PngInfo()
    for name, value in (metadata or {}).items():
        text.add_itxt(name, printable(str(value)))
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write_image(picture, temporary, format="PNG", pnginfo=text)


def save_animation(
    frames: np.ndarray, path: str | Path, metadata: Mapping[str, str], scale: int = 1
) -> None:
    """Writes frames, forth and back for ever, as GIF or animated WebP.

    Args:
        frames: (n, height, width, 3) uint8.
        path: its suffix, .gif or .webp, chooses the form. WebP keeps all colours.
        metadata: as lines "name: value" in the GIF's comment or the WebP's EXIF description.
        scale: every pixel becomes a square of scale x scale.
    """
    path = Path(path)
    text = printable("\n".join(f"{name}: {value}" for name, value in metadata.items()))
    big = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    there_and_back = [Image.fromarray(frame) for frame in (*big, *big[-2:0:-1])]
    options: dict[str, Any]
    if path.suffix == ".gif":
        options = {"format": "GIF", "comment": text.encode()}
    elif path.suffix == ".webp":
        exif = Image.Exif()
        exif[_EXIF_DESCRIPTION] = text
        options = {"format": "WEBP", "exif": exif.tobytes(), "lossless": True}
    else:
        raise ValueError(f"{path}: an animation is .gif or .webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        write_image(
            there_and_back[0],
            temporary,
            save_all=True,
            append_images=there_and_back[1:],
            duration=_MILLISECONDS,
            loop=0,
            **options,
        )


def _cell(image: np.ndarray | None, scale: int) -> Image.Image | None:
    if image is None:
        return None
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"images are (height, width, 3) uint8, found {image.shape} {image.dtype}")
    return Image.fromarray(image.repeat(scale, axis=0).repeat(scale, axis=1))


def _wrap(
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: float,
    break_words: bool = False,
) -> str:
    """Breaks lines between words so that each is at most `width` pixels, long words excepted.

    With `break_words`, long words (file names) are broken too.
    """
    text = printable(text)
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            while break_words and len(longer) > 1 and font.getlength(longer) > width:
                fits = len(longer) - 1
                while fits > 1 and font.getlength(longer[:fits]) > width:
                    fits -= 1
                lines.append(longer[:fits])
                longer = longer[fits:]
            line = longer
        lines.append(line)
    return "\n".join(lines)


def _text_size(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
    """Width and height of the drawn text in pixels."""
    box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font)
    return int(np.ceil(box[2])), int(np.ceil(box[3]))
