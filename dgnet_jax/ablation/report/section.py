"""A section of the report: a heading with words, claims, tables and pictures."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dgnet_jax.ablation.claims import Claim
from dgnet_jax.ablation.rendering import Table
from dgnet_jax.ablation.report.runs import Run
from dgnet_jax.figures import save_png

Groups = Mapping[str, Sequence[Run]]
# Pictures of one section that fit on a screen or two.
_MANY = 6
# Of photographs in the page; the PNG files hold every pixel.
_WEBP_QUALITY = 90


@dataclass(frozen=True)
class Picture:
    """A figure: `file` is the PNG beside the page, `uri` the picture itself; sizes in pixels.

    label: of the loss that it shows, for the links to the pictures of a section that has many; ""
    for a picture of several.
    """

    file: str
    uri: str
    width: int
    height: int
    alt: str
    caption: str
    label: str = ""

    @property
    def anchor(self) -> str:
        """For links within the page."""
        return self.file.removesuffix(".png")


@dataclass
class Section:
    """A heading and what is below it.

    plots: whether its pictures are plots, not photographs. compact: whether several of its pictures
    may stand in a row. wide: whether a narrow screen shows a part of a picture at a time.
    """

    title: str
    text: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    plots: bool = False
    compact: bool = False
    wide: bool = False

    @property
    def anchor(self) -> str:
        """For links within the page."""
        return slug(self.title)

    @property
    def links(self) -> list[Picture]:
        """The pictures that are linked to above them, where there are many."""
        named = [picture for picture in self.pictures if picture.label]
        return named if len(named) > _MANY else []

    def __bool__(self) -> bool:
        return bool(self.text or self.claims or self.tables or self.pictures)


def slug(text: str) -> str:
    """A file name or an anchor: other characters than letters, digits and _.+- become one _."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)


def save_picture(
    folder: Path,
    name: str,
    image: Image.Image,
    *,
    alt: str,
    caption: str,
    label: str = "",
    photograph: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Picture:
    """Writes NAME.png; in the page photographs are WebP, a tenth of its size."""
    file = f"{slug(name)}.png"
    save_png(image, folder / file, metadata)
    stream = io.BytesIO()
    if photograph:
        image.save(stream, format="WEBP", quality=_WEBP_QUALITY)
    else:
        image.save(stream, format="PNG", optimize=True)
    kind = "webp" if photograph else "png"
    uri = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Picture(file, uri, image.width, image.height, alt, caption, label)


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
