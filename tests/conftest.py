"""Shapes and types of signatures are checked while tests run; where the tests find real data."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

# Modules and packages whose functions say the shapes of their arrays. The annotations of all their
# functions are checked at each call, under a transformation when it is traced; an int is a float,
# as PEP 484 has it. Processes that tests start do not check, nor does a machine without beartype.
SHAPE_CHECKED = (
    "dgnet_jax.losses",
    "dgnet_jax.models",
    "dgnet_jax.training.objective",
    "dgnet_jax.training.passes",
    "dgnet_jax.evaluation",
)
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

_early = [name for name in sys.modules if name.startswith(SHAPE_CHECKED)]
assert not _early, f"imported before the check of shapes could be installed: {_early}"
if importlib.util.find_spec("beartype"):
    jaxtyping.install_import_hook(SHAPE_CHECKED, _CHECKER)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Lets wrong arguments through to the functions, whose own errors a test is about."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
