"""Animated pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.runtime.atomic import replacing

_MILLISECONDS = 120
_EXIF_DESCRIPTION = 0x010E


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
    text = "\n".join(f"{name}: {value}" for name, value in metadata.items())
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
        there_and_back[0].save(
            temporary,
            save_all=True,
            append_images=there_and_back[1:],
            duration=_MILLISECONDS,
            loop=0,
            **options,
        )
