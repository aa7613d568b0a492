"""Pictures of ranked lists: a query and the first gallery images that it found.

Junk (identity -1, and images of the query's person by its own camera) is shown where it was found,
in grey and without a rank: it takes no place in the ranking that is measured.
"""

import difflib
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from dgnet_jax.data.pipeline import CachedSplit
from dgnet_jax.data.splits import JUNK
from dgnet_jax.errors import InputError
from dgnet_jax.evaluation.metrics import average_precision_trapezoid
from dgnet_jax.figures import image_grid

Kind = Literal["right", "wrong", "junk"]

LENGTH = 10
COLOURS: dict[str, tuple[int, int, int]] = {
    "query": (20, 20, 20),
    "right": (0, 150, 60),
    "wrong": (210, 30, 30),
    "junk": (160, 160, 160),
}
_FRAME = 6
_HEIGHT = 256


class Entry(NamedTuple):
    """One image of a list.

    Attributes:
        item: index of the image in the gallery.
        distance: cosine distance to the query, 0 to 2.
        kind: right, wrong or junk.
        rank: from 1; None for junk.
    """

    item: int
    distance: float
    kind: Kind
    rank: int | None


def ranked_list(
    query_features: Float[np.ndarray, " dim"],
    query_id: int,
    query_camera: int,
    gallery_features: Float[np.ndarray, "gallery dim"],
    gallery_ids: Int[np.ndarray, " gallery"],
    gallery_cameras: Int[np.ndarray, " gallery"],
    length: int = LENGTH,
) -> list[Entry]:
    """The first images by falling inner product, equal ones by index, junk among them.

    Args:
        query_features: of one query.
        query_id, query_camera: its labels.
        gallery_features: of equal norm.
        gallery_ids, gallery_cameras: the gallery's labels.
        length: how many, junk included.
    """
    scores = gallery_features @ query_features
    order = np.argsort(-scores, kind="stable")[:length]
    lengths = np.linalg.norm(gallery_features[order], axis=1) * np.linalg.norm(query_features)
    distances = 1 - scores[order] / np.maximum(lengths, np.finfo(scores.dtype).tiny)
    entries = []
    rank = 0
    for index, distance in zip(order.tolist(), distances.tolist(), strict=True):
        same = gallery_ids[index] == query_id
        if gallery_ids[index] == JUNK or (same and gallery_cameras[index] == query_camera):
            entries.append(Entry(index, distance, "junk", None))
            continue
        rank += 1
        entries.append(Entry(index, distance, "right" if same else "wrong", rank))
    return entries


def random_queries(hits: Sequence[Int[np.ndarray, " _hits"]], count: int, seed: int) -> list[int]:
    """Queries that have a match, drawn without replacement from `seed`, in order."""
    matched = [query for query, ranks in enumerate(hits) if len(ranks)]
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(matched, min(count, len(matched)), replace=False).tolist())


def worst_queries(hits: Sequence[Int[np.ndarray, " _hits"]], count: int) -> list[int]:
    """Queries that have a match, by rising average precision (trapezoid)."""
    matched = [query for query, ranks in enumerate(hits) if len(ranks)]
    return sorted(matched, key=lambda query: average_precision_trapezoid(hits[query]))[:count]


def named_queries(names: Sequence[str], paths: Sequence[str]) -> list[int]:
    """The queries with these file names (with or without folders and ending), in that order.

    Raises:
        InputError: a name is of no query, or of several.
    """
    found = []
    for name in names:
        wanted = PurePath(name).parts
        matching = [
            query
            for query, parts in enumerate(PurePath(path).parts for path in paths)
            if parts[-len(wanted) :] == wanted
            or (*parts[-len(wanted) : -1], PurePath(parts[-1]).stem) == wanted
        ]
        if len(matching) != 1:
            files = [PurePath(path).name for path in paths]
            near = ", ".join(difflib.get_close_matches(name, files, n=3)) or ", ".join(files[:3])
            what = f"{len(matching)} queries have" if matching else "no query has"
            raise InputError(f"--queries: {what} the name {name!r}; there are {near}, ...")
        found += matching
    return found


def ranked_lists_picture(
    queries: Sequence[int],
    query_features: Float[np.ndarray, "queries dim"],
    query: CachedSplit,
    gallery_features: Float[np.ndarray, "gallery dim"],
    gallery: CachedSplit,
    *,
    caption: str,
    length: int = LENGTH,
) -> Image.Image:
    """Draws one row for each query: itself, then its list.

    Args:
        queries: indices of queries.
        query_features, gallery_features: of equal norms; their inner product is ranked.
        query, gallery: their images and labels.
        caption: what the features are; what frames and numbers mean is added.
        length: images of a list.
    """
    scale = max(1, _HEIGHT // query.images.shape[1])
    rows: list[list[np.ndarray | None]] = []
    labels: list[list[str]] = []
    for index in queries:
        entries = ranked_list(
            query_features[index],
            int(query.identities[index]),
            int(query.cameras[index]),
            gallery_features,
            gallery.identities,
            gallery.cameras,
            length,
        )
        missing = length - len(entries)
        rows.append(
            [_framed(query.images[index], "query", scale)]
            + [_framed(gallery.images[entry.item], entry.kind, scale) for entry in entries]
            + [None] * missing
        )
        labels.append(
            [f"query{_camera(query, index)}\n{PurePath(query.paths[index]).name}"]
            + [_label(entry, gallery) for entry in entries]
            + [""] * missing
        )
    right, removed = "the query's person, by another camera", "the query's person by its own camera"
    if not query.cameras_known:
        right, removed = "the query's person", "the query's own image"
    explanation = (
        f"Green: {right}. Red: somebody else, or nobody (0000). Grey: junk, which takes no rank: a "
        f"bad crop (-1), or {removed}. Numbers are cosine distances."
    )
    return image_grid(
        rows,
        caption=f"{caption}\n{explanation}",
        separate_originals=True,
        labels=labels,
    )


def _label(entry: Entry, gallery: CachedSplit) -> str:
    place = entry.kind if entry.rank is None else f"{entry.rank}: {entry.kind}"
    name = PurePath(gallery.paths[entry.item]).name
    return f"{place}, {entry.distance:.3f}{_camera(gallery, entry.item)}\n{name}"


def _camera(split: CachedSplit, index: int) -> str:
    return f", camera {split.cameras[index]}" if split.cameras_known else ""


def _framed(
    image: UInt8[np.ndarray, "height width 3"], kind: str, scale: int
) -> UInt8[np.ndarray, "framed_height framed_width 3"]:
    """The enlarged image in a frame of its kind's colour."""
    height, width = image.shape[0] * scale, image.shape[1] * scale
    framed = np.full((height + 2 * _FRAME, width + 2 * _FRAME, 3), COLOURS[kind], np.uint8)
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return framed
