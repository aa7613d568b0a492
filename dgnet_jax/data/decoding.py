"""One encoded image, of whatever format, size and colour mode, as RGB.

An image is taken as viewers show it: turned as its EXIF orientation says, what is transparent on
white, 16 bits scaled to 8. Colour profiles are ignored. None of this touches the published data
sets, whose files are plain 8-bit JPEG and PNG.
"""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""Asking for these keeps Pillow from loading all of its plugins to try them on a broken file."""

# What Pillow raises for what is not a whole image.
DECODE_ERRORS = (
    OSError,  # unidentified, truncated or unreadable
    ValueError,
    SyntaxError,  # Pillow's word for a malformed PNG
    EOFError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)

_EXIF_ORIENTATION = 0x0112


def decode_image(data: bytes, height: int, width: int) -> np.ndarray:
    """Decodes, and resizes with Pillow's bicubic filter if the size is another.

    Args:
        data: a whole file.
        height, width: pixels of the result.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        One of `DECODE_ERRORS`: not a whole image.
    """
    if not data:
        raise OSError("the file is empty")
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        rgb = to_rgb(image)
        if rgb.size != (width, height):
            rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright and in mode RGB; raises one of `DECODE_ERRORS` as `decode_image` does."""
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(image))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """(rows, columns) uint8 of a gray image of wider values; Pillow's own conversion clips them."""
    values = np.asarray(image).astype(np.float64)
    if image.mode != "F":
        values = values / 257  # 65,535 / 255; mode I is how some Pillows open 16-bit PNGs
    elif values.max(initial=0) <= 1:
        values = values * 255
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def reason(error: Exception) -> str:
    """One of `DECODE_ERRORS` in words."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return str(error) or type(error).__name__
