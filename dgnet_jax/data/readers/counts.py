"""What the labels of a data set tell before an image is read.

Whether it is the published one, by its numbers of images, people and cameras, and whether its
queries have matches.
"""

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
from absl import logging

from dgnet_jax.data.splits import JUNK, ReidDataset, Split


@dataclass(frozen=True)
class Counts:
    """Images of each split, training identities, and cameras of all splits together."""

    train: int
    query: int
    gallery: int
    train_identities: int
    cameras: int


def count(dataset: ReidDataset) -> Counts:
    """The counts of a data set."""
    splits: tuple[Split, ...] = (dataset.train, dataset.query, dataset.gallery)
    cameras = {camera for split in splits for camera in np.unique(split.cameras).tolist()}
    return Counts(
        train=len(dataset.train),
        query=len(dataset.query),
        gallery=len(dataset.gallery),
        train_identities=dataset.num_train_identities,
        cameras=len(cameras),
    )


def warn_if_not_published(dataset: ReidDataset, published: Counts, place: str) -> None:
    """Logs one warning with every count that differs from the published one.

    Args:
        dataset: what was found.
        published: what its authors say.
        place: where it was found.
    """
    found = asdict(count(dataset))
    wrong = [
        f"{name.replace('_', ' ')}: found {found[name]:,}, published {expected:,}"
        for name, expected in asdict(published).items()
        if found[name] != expected
    ]
    if wrong:
        logging.warning(
            "%s: not %s as published; results cannot be compared with published ones. %s",
            place,
            dataset.name,
            "; ".join(wrong),
        )


UNKNOWN_CAMERAS = (
    "If the cameras are unknown, --config.data.cameras=False takes each image as one by a camera "
    "of its own; say so beside the result"
)


def warn_of_unmatched(dataset: ReidDataset, place: str, cameras: bool = True) -> None:
    """Logs one warning if queries have no match in the gallery, with their number and the causes.

    Args:
        dataset: what was found.
        place: where it was found.
        cameras: whether ranking removes a query's matches by its own camera.
    """
    gallery, queries = (
        list(zip(split.identities.tolist(), split.cameras.tolist(), strict=True))
        for split in (dataset.gallery, dataset.query)
    )
    of_person = Counter(identity for identity, _ in gallery if identity != JUNK)
    of_both = Counter(gallery)
    absent = sum(not of_person[identity] for identity, _ in queries)
    own = sum(0 < of_person[identity] == of_both[identity, camera] for identity, camera in queries)
    causes = [f"of {absent} the gallery has no image of the person"] if absent else []
    if own and cameras:
        causes.append(
            f"of {own} it has images by the query's own camera alone, which ranking removes (the "
            f"field's protocol). {UNKNOWN_CAMERAS}"
        )
    if causes:
        logging.warning(
            "%s: %d of the %d queries have no match, so Rank@k and mAP count them as 0: %s",
            place,
            absent + (own if cameras else 0),
            len(queries),
            "; ".join(causes),
        )
