"""The thesis's Tables 5.1 and 5.2: identities, images and cameras of a data set's splits."""

import numpy as np

from dgnet_jax.ablation.rendering import Cell, Table
from dgnet_jax.data.readers.datasets import PUBLISHED
from dgnet_jax.data.splits import DISTRACTOR, JUNK, ReidDataset, Split

# What `readers.counts` does not hold: identities of queries and gallery, and its images of nobody.
_MARKET = {
    ("query", "identities"): 750,
    ("gallery", "identities"): 750,
    ("gallery distractors", "images"): 2_798,
    ("gallery junk", "images"): 3_819,
}
_COLUMNS = ("identities", "images", "cameras")


def dataset_table(dataset: ReidDataset, name: str, cameras_known: bool = True) -> Table:
    """The counts of a data set beside its published ones, where it is a published one.

    Args:
        dataset: as it was found; no image is read.
        name: `config.data.name`.
        cameras_known: `config.data.cameras`.
    """
    found = _counts(dataset)
    published = _published(name)
    head = ["split"]
    for column in _COLUMNS:
        head += [column, f"{column} (published)"] if published else [column]
    rows = []
    for split, counts in found.items():
        cells = [Cell(split)]
        for column in _COLUMNS:
            cells.append(Cell(_text(counts.get(column))))
            if published:
                cells.append(Cell(_text(published.get((split, column)))))
        rows.append(cells)
    notes = [
        "Counted in the files, before any broken image is left out. Junk (-1) and distractors (0) "
        "are no identities."
    ]
    numbers = {place: found.get(place[0], {}).get(place[1], 0) for place in published}
    wrong = [
        f"{column} of {split}: found {numbers[split, column]:,}, published {expected:,}"
        for (split, column), expected in published.items()
        if numbers[split, column] != expected
    ]
    if wrong:
        notes.append(
            f"Not the data set as published: {'; '.join(wrong)}. Results cannot be compared with "
            "published ones."
        )
    elif published:
        notes.append("All published counts are met.")
    if not cameras_known:
        notes.append(
            "Cameras count as unknown (config.data.cameras is off): each image has its own."
        )
    return Table("data_set", f"The data set {name}", head, rows, notes)


def _counts(dataset: ReidDataset) -> dict[str, dict[str, int]]:
    """Row to column to number."""
    rows = {name: _of(split) for name, split in dataset.splits.items()}
    identities = dataset.gallery.identities
    nobody = {
        "gallery distractors": int(np.count_nonzero(identities == DISTRACTOR)),
        "gallery junk": int(np.count_nonzero(identities == JUNK)),
    }
    found: dict[str, dict[str, int]] = {}
    for name in ("train", "query", "gallery"):
        found[name] = rows.pop(name)
    found |= {name: {"images": number} for name, number in nobody.items() if number}
    found |= {name.replace("_", "-"): counts for name, counts in rows.items()}
    # Without identities: some data sets number those of training and test each from 0.
    main = (dataset.train, dataset.query, dataset.gallery)
    found["train, query and gallery"] = {
        "images": sum(map(len, main)),
        "cameras": len(np.unique(np.concatenate([split.cameras for split in main]))),
    }
    return found


def _of(split: Split) -> dict[str, int]:
    # Elsewhere 0 is a person like any other.
    nobody = (JUNK, DISTRACTOR) if split.name == "gallery" else ()
    return {
        "images": len(split),
        "identities": len(np.setdiff1d(split.identities, nobody)),
        "cameras": len(np.unique(split.cameras)),
    }


def _published(name: str) -> dict[tuple[str, str], int]:
    """(Row, column) to the published number; empty for a data set that is not published."""
    counts = PUBLISHED.get(name)
    if counts is None:
        return {}
    numbers = {
        ("train", "images"): counts.train,
        ("train", "identities"): counts.train_identities,
        ("query", "images"): counts.query,
        ("gallery", "images"): counts.gallery,
        ("train, query and gallery", "cameras"): counts.cameras,
    }
    return numbers | (_MARKET if name == "market1501" else {})


def _text(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
