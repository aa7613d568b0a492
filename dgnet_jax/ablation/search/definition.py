"""search.json: what a search is, so that another process can go on with it or report it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import pydantic
from typing_extensions import TypedDict

from dgnet_jax.ablation.results import read_stored
from dgnet_jax.ablation.search.objectives import parse_objectives
from dgnet_jax.ablation.search.space import Space, parse_terms
from dgnet_jax.ablation.summary import Metric
from dgnet_jax.errors import InputError
from dgnet_jax.runtime import workdir as work_directory
from dgnet_jax.runtime.atomic import write_json
from dgnet_jax.runtime.reading import Count

SEARCH_FILE = "search.json"


def is_search(folder: Path) -> bool:
    """Whether the folder is a search's, and not that of a study alone."""
    return (folder / SEARCH_FILE).exists()


class _Stored(TypedDict):
    terms: Annotated[list[str], pydantic.Field(min_length=1)]
    objectives: Annotated[list[str], pydantic.Field(min_length=1)]
    seeds: Annotated[list[Count], pydantic.Field(min_length=1)]


class Definition(NamedTuple):
    """space: of the trials; objectives: what they improve; seeds: of the runs of each trial."""

    space: Space
    objectives: tuple[Metric, ...]
    seeds: tuple[int, ...]

    @property
    def stored(self) -> _Stored:
        """As JSON holds it."""
        return {
            "terms": self.space.texts,
            "objectives": [metric.name for metric in self.objectives],
            "seeds": list(self.seeds),
        }


def define(terms: Sequence[str], objectives: Sequence[str], seeds: Sequence[int]) -> Definition:
    """The definition that the flags of these names give.

    Raises:
        InputError: as `parse_terms` and `parse_objectives`.
    """
    return Definition(parse_terms(terms), parse_objectives(objectives), tuple(seeds))


def read_definition(workdir: Path) -> Definition | None:
    """The definition of the search in a folder; None if there is none.

    Raises:
        InputError: the file is not what `save_definition` writes.
    """
    file = workdir / SEARCH_FILE
    stored = read_stored(file, _Stored, work_directory.REMEDY)
    if stored is None:
        return None
    try:
        return define(stored["terms"], stored["objectives"], stored["seeds"])
    except InputError as error:
        raise InputError(f"{file}: {error}. {work_directory.REMEDY}") from error


def refuse_other_search(workdir: Path, definition: Definition) -> None:
    """Raises InputError, naming what differs, if the folder's search is another one."""
    saved = read_definition(workdir)
    if saved is None or saved.stored == definition.stored:
        return
    lines = [
        f"  {name}: {_text(saved.stored, name)} there, {_text(definition.stored, name)} now"
        for name in ("terms", "objectives", "seeds")
        if _text(saved.stored, name) != _text(definition.stored, name)
    ]
    raise InputError(
        f"{workdir} holds another search:\n"
        + "\n".join(lines)
        + "\nUse these values again to continue it, or choose another --workdir."
    )


def save_definition(workdir: Path, definition: Definition) -> None:
    """Writes search.json."""
    write_json(workdir / SEARCH_FILE, definition.stored)


def _text(stored: _Stored, name: str) -> str:
    return ",".join(map(str, stored[name]))  # type: ignore[literal-required]
