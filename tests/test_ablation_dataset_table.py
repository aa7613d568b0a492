"""The counts of the data set in use, beside the published ones."""

from pathlib import Path

import numpy as np

from dgnet_jax.ablation.dataset_table import dataset_table
from dgnet_jax.data.readers.datasets import load_dataset
from dgnet_jax.data.splits import ReidDataset, Split


def split(name, identities, cameras=6):
    numbers = np.asarray(identities, np.int32)
    return Split(name, ("",) * len(numbers), numbers, np.arange(len(numbers)) % cameras, None)


def spread(images, identities, first):
    """`images` numbers of as many identities, which start at `first`."""
    return first + np.arange(images) % identities


def market(train=12_936, distractors=2_798):
    """As many images of as many people as Market-1501 has."""
    nobody = [0] * distractors + [-1] * 3_819
    return ReidDataset(
        "market1501",
        split("train", spread(train, 751, 2)),
        split("query", spread(3_368, 750, 1000)),
        split("gallery", np.concatenate([spread(13_115, 750, 1000), nobody])),
        split("multi_query", spread(25_259, 750, 1000)),
    )


def cells(table):
    """Row to column to text."""
    return {
        row[0].text: {title: cell.text for title, cell in zip(table.head[1:], row[1:], strict=True)}
        for row in table.rows
    }


def test_market_has_its_published_counts():
    table = dataset_table(market(), "market1501")
    columns = ("identities", "images", "cameras")
    assert table.head == [
        "split",
        *(title for one in columns for title in (one, f"{one} (published)")),
    ]
    found = {name: [row[one] for one in columns] for name, row in cells(table).items()}
    assert found == {
        "train": ["751", "12,936", "6"],
        "query": ["750", "3,368", "6"],
        "gallery": ["750", "19,732", "6"],
        "gallery distractors": ["", "2,798", ""],
        "gallery junk": ["", "3,819", ""],
        "multi-query": ["750", "25,259", "6"],
        "train, query and gallery": ["", "36,036", "6"],
    }
    for row in cells(table).values():
        for one in columns:
            assert row[f"{one} (published)"] in ("", row[one])
    assert "All published counts are met." in table.notes


def test_counts_that_are_not_the_published_ones_are_named():
    notes = " ".join(dataset_table(market(train=100), "market1501").notes)
    assert "images of train: found 100, published 12,936" in notes
    assert "identities of train: found 100, published 751" in notes
    assert "cannot be compared" in notes and "are met" not in notes
    notes = " ".join(dataset_table(market(distractors=8), "market1501").notes)
    assert "images of gallery distractors: found 8, published 2,798" in notes


def test_a_data_set_of_one_s_own_has_no_published_counts():
    own = ReidDataset(
        *("own", split("train", [0, 0, 1])),
        *(split("query", [2]), split("gallery", [2, 3], cameras=1)),
    )
    table = dataset_table(own, "csv", cameras_known=False)
    assert table.head == ["split", "identities", "images", "cameras"]
    assert cells(table)["train"] == {"identities": "2", "images": "3", "cameras": "3"}
    assert cells(table)["gallery"] == {"identities": "2", "images": "2", "cameras": "1"}
    assert any("Cameras count as unknown" in note for note in table.notes)
    assert "junk" not in " ".join(cells(table))


def test_the_real_market_is_as_published(market_zip: Path):
    table = dataset_table(load_dataset("market1501", market_zip), "market1501")
    assert "All published counts are met." in table.notes
    assert cells(table)["gallery junk"]["images"] == "3,819"
