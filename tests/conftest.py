"""Where the tests find real data."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and reference files beside the checkout, or a skip."""
    folder = Path(os.environ.get("DGNET_SHARED") or Path(__file__).parents[2] / "shared")
    if not folder.is_dir():
        pytest.skip(f"no reference folder at {folder}; DGNET_SHARED names another")
    return folder


@pytest.fixture(scope="session")
def market_zip(shared: Path) -> Path:
    """The zip of the real Market-1501, or a skip."""
    archive = shared / "data" / "Market-1501-v15.09.15.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}: Market-1501 is for research only and not part of this project")
    return archive
