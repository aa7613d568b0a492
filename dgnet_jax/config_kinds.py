"""What the value of a configuration's field may be: its type and range, in words and as a check."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field as Limits

from dgnet_jax.runtime.paths import user_path
from dgnet_jax.runtime.reading import Number


@dataclass(frozen=True)
class Kind:
    """A type with a range.

    Attributes:
        range: in words, such as "a whole number, 1 or more"; follows "Give" in errors.
        annotation: for pydantic.
        choices: the words that the value is one of, where it is.
    """

    range: str
    annotation: Any
    choices: tuple[str, ...] = ()

    def value(self, given: Any) -> Any:
        """`given` as the field holds it: a list as a tuple, a whole number of a real field as one.

        Raises:
            ValueError: it is of another type, or out of range.
        """
        return self._adapter.validate_python(given)

    @cached_property
    def _adapter(self) -> pydantic.TypeAdapter[Any]:
        return pydantic.TypeAdapter(self.annotation)


def _limits(at_least: float | None, above: float | None, at_most: float | None) -> str:
    low = "" if at_least is None else f"{at_least:,} or more"
    if above is not None:
        low = f"above {above:,}"
    if at_most is None:
        return low
    return f"{at_least:,} to {at_most:,}" if at_least is not None else f"{low}, at most {at_most:,}"


def whole(at_least: int, at_most: int = 2**31 - 1, note: str = "") -> Kind:
    """An int of a range; the upper end of the default is that of the step counter's int32."""
    shown = _limits(at_least, None, at_most if at_most != 2**31 - 1 else None)
    limits = Limits(strict=True, ge=at_least, le=at_most)
    return Kind(f"a whole number, {shown}{note and f' ({note})'}", Annotated[int, limits])


def real(
    at_least: float | None = None, *, above: float | None = None, at_most: float | None = None
) -> Kind:
    """A finite float of a range."""
    limits = Limits(ge=at_least, gt=above, le=at_most, allow_inf_nan=False)
    shown = _limits(at_least, above, at_most)
    return Kind(f"a finite number, {shown}", Annotated[Number, limits])


def below_one() -> Kind:
    """A dropped share or a decay rate: 0 up to, not including, 1."""
    limits = Limits(ge=0, lt=1, allow_inf_nan=False)
    return Kind("a number, 0 or more and below 1", Annotated[Number, limits])


def yes_or_no() -> Kind:
    """A bool."""
    return Kind("True or False", Annotated[bool, Limits(strict=True)])


def one_of(*choices: Any) -> Kind:
    """One of a few values, with their type: 1 is not True."""

    def same_type(value: Any) -> Any:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError("none of the choices")
        return value

    shown = ", ".join(repr(choice) for choice in choices[:-1])
    checked = Annotated[Literal[choices], pydantic.BeforeValidator(same_type)]  # type: ignore[valid-type]
    words = tuple(choice for choice in choices if isinstance(choice, str))
    return Kind(f"{shown} or {choices[-1]!r}", checked, words)


def path() -> Kind:
    """A file or folder, with "~" for the home folder; "" is none."""

    def expanded(value: str) -> str:
        return str(user_path(value)) if value.startswith("~") else value

    return Kind("a path, or ''", _text(expanded))


def text(range_in_words: str, check: Callable[[str], Any] = lambda value: None) -> Kind:
    """A str; `check` raises ValueError for one that will not do."""

    def checked(value: str) -> str:
        check(value)
        return value

    return Kind(range_in_words, _text(checked))


def _text(check: Callable[[str], str]) -> Any:
    no_nul = Limits(strict=True, pattern=r"^[^\x00]*$")
    return Annotated[str, no_nul, pydantic.AfterValidator(check)]


def wholes(at_least: int, fewest: int, note: str = "") -> Kind:
    """A tuple of ints of a range."""
    items = Annotated[int, Limits(strict=True, ge=at_least, le=2**31 - 1)]
    shown = f"a tuple of {fewest} or more whole numbers" if fewest else "a tuple of whole numbers"
    return Kind(
        f"{shown}, {at_least:,} or more each{note and f', {note}'}",
        Annotated[tuple[items, ...], Limits(min_length=fewest)],
    )


def milestones() -> Kind:
    """Steps at which a learning rate falls: a rising tuple, which may be empty."""

    def rising(steps: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            raise ValueError("not rising")
        return steps

    base = wholes(1, 0, "each larger than the one before; () is none")
    return Kind(base.range, Annotated[base.annotation, pydantic.AfterValidator(rising)])


def some_of(*choices: str) -> Kind:
    """A tuple of some of a few words, each once."""

    def once(names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a name comes twice")
        return names

    return Kind(
        f"a tuple of any of {', '.join(map(repr, choices))}; () is none",
        Annotated[tuple[Literal[choices], ...], pydantic.AfterValidator(once)],  # type: ignore[valid-type]
    )


def shares() -> Kind:
    """The two ends of a range of shares."""

    def ordered(ends: tuple[float, float]) -> tuple[float, float]:
        if not 0 < ends[0] <= ends[1] <= 1:
            raise ValueError("no range of shares")
        return ends

    end = Annotated[Number, Limits(allow_inf_nan=False)]
    return Kind(
        "a tuple of two numbers above 0, at most 1, the smaller one first",
        Annotated[tuple[end, end], pydantic.AfterValidator(ordered)],
    )
