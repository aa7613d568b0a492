"""Whether a data set is the one that was published: its numbers of images, people and cameras."""

from dataclasses import asdict, dataclass

import numpy as np
from absl import logging

from dgnet_jax.data.splits import ReidDataset, Split


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
