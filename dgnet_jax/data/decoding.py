"""One encoded image, of whatever format, size and colour mode, as RGB.

An image is taken as viewers show it: turned as its EXIF orientation says, what is transparent on
white, 16 bits scaled to 8. Colour profiles are ignored. None of this touches the published data
sets, whose files are plain 8-bit JPEG and PNG.
"""

import io

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
"""Asking for these keeps Pillow from loading all of its plugins to try them on a broken file."""


class ImageError(OSError):
    """Bytes that are not a whole image.

    An `OSError`, as that of a file that cannot be read, so that a broken image among good ones is
    named and left out, whatever is wrong with it.
    """


_EXIF_ORIENTATION = 0x0112


def decode_image(data: bytes, height: int, width: int) -> np.ndarray:
    """Decodes, and resizes with Pillow's bicubic filter if the size is another.

    Args:
        data: a whole file.
        height, width: pixels of the result.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ImageError: not a whole image.
    """
    rgb = open_rgb(data)
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(rgb)


def open_rgb(data: bytes) -> Image.Image:
    """The image of a whole file, upright and in mode RGB; raises as `decode_image`."""
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return _to_rgb(image)
    except MemoryError:  # says more about the machine than about the file
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError("not an image") from error
    except Exception as error:  # Pillow's readers of EXIF and TIFF raise nearly every kind
        raise ImageError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
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


def reason(error: OSError) -> str:
    """Why an image could not be read or decoded, without its path."""
    return error.strerror or str(error) or type(error).__name__
