"""What a search chooses from: which losses, with which weights and parameters.

    --terms="l1,0.1:4*rmse,huber(delta=0.1:2),barron(alpha=-2:2,c=0.05:1)"

A point of the space is an expression of `losses.reconstruction_loss`, "0.512*l1+1.3*rmse": each
term is in it or not, at least one is, and what is in it has a weight and parameters of the ranges.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from dgnet_jax.errors import InputError
from dgnet_jax.losses import canonical_expression, parameters, parse

DEFAULT_WEIGHT = "0.05:5"
# Numbers are rounded, so that an expression can be read, typed and cited.
SIGNIFICANT_DIGITS = 3
# Positive ranges of parameters that span more than this factor are searched by their logarithm.
_LINEAR_SPAN = 10

_TERM = re.compile(r"(?:(?P<weight>[^*()]*)\*)?\s*(?P<name>[A-Za-z_]\w*)\s*(\((?P<inside>.*)\))?")
_FORMS = "write a loss as l1, 0.1:4*rmse or huber(delta=0.1:2)"

Value = bool | float


class Asked(Protocol):
    """What `optuna.Trial` offers of what is used here."""

    def suggest_categorical(self, name: str, choices: Sequence[bool], /) -> bool: ...

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool) -> float: ...


class Range(NamedTuple):
    """low to high, both included; the same number twice is not searched."""

    low: float
    high: float
    log: bool

    @property
    def text(self) -> str:
        """As it may be typed: "0.1:4", or "2" for a fixed number."""
        return _number(self.low) + ("" if self.low == self.high else f":{_number(self.high)}")

    def round(self, value: float) -> float:
        """`value` with three significant digits, within the range."""
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return min(max(rounded, self.low), self.high)


class Term(NamedTuple):
    """A loss of the space.

    Attributes:
        name: of `losses.LOSSES` or another known one.
        weight: of the loss in the sum.
        parameters: name to range of those that are given; the others have their defaults.
    """

    name: str
    weight: Range
    parameters: Mapping[str, Range]

    @property
    def text(self) -> str:
        """As it may be typed, whatever was typed."""
        inside = ",".join(f"{name}={found.text}" for name, found in self.parameters.items())
        return f"{self.weight.text}*{self.name}" + (f"({inside})" if inside else "")

    @property
    def ranges(self) -> dict[str, Range]:
        """By the names of the search: "huber.weight", "huber.delta"."""
        found = {f"{self.name}.{name}": one for name, one in self.parameters.items()}
        return {f"{self.name}.weight": self.weight} | found

    def expression(self, values: Mapping[str, Value]) -> str:
        """The term with the rounded numbers of `values`, which `ranges` names."""
        numbers = {name: _number(one.round(values[name])) for name, one in self.ranges.items()}
        inside = ",".join(f"{name}={numbers[f'{self.name}.{name}']}" for name in self.parameters)
        weight = numbers[f"{self.name}.weight"]
        return f"{weight}*{self.name}" + (f"({inside})" if inside else "")


class Space(NamedTuple):
    """The terms, each once."""

    terms: tuple[Term, ...]

    @property
    def texts(self) -> list[str]:
        """The terms as they may be typed; two spellings of one space give the same."""
        return [term.text for term in self.terms]

    @property
    def everything(self) -> str:
        """The point that has every term, at the low ends of the ranges."""
        lowest = {name: one.low for term in self.terms for name, one in term.ranges.items()}
        return self.expression({term.name: True for term in self.terms} | lowest)

    def suggest(self, trial: Asked) -> str:
        """The expression of a trial, whose values are asked for one after another.

        The last term is in if no other is, and is not asked for then.
        """
        values: dict[str, Value] = {}
        for term in self.terms:
            if any(values.get(one.name) for one in self.terms) or term is not self.terms[-1]:
                values[term.name] = trial.suggest_categorical(term.name, [False, True])
            if self._is_in(term, values):
                for name, one in term.ranges.items():
                    values[name] = (
                        one.low
                        if one.low == one.high
                        else trial.suggest_float(name, one.low, one.high, log=one.log)
                    )
        return self.expression(values)

    def expression(self, values: Mapping[str, Value]) -> str:
        """The sum that the values of a trial, by the names that `suggest` asks for, stand for."""
        chosen = [term for term in self.terms if self._is_in(term, values)]
        fixed = {
            name: one.low
            for term in chosen
            for name, one in term.ranges.items()
            if one.low == one.high
        }
        return canonical_expression(
            "+".join(term.expression({**fixed, **values}) for term in chosen)
        )

    def locate(self, expression: str) -> dict[str, Value] | None:
        """The values that give an expression; None if it is no point of the space."""
        wanted = parse(expression)
        values: dict[str, Value] = {term.name: False for term in self.terms}
        for name, weight, numbers in wanted.terms:
            if values.get(name, True):  # unknown, or there a second time
                return None
            values |= {name: True, f"{name}.weight": weight}
            known = zip(parameters(name), numbers, strict=True)
            values |= {f"{name}.{parameter.name}": number for parameter, number in known}
        ranges = {
            name: one
            for term in self.terms
            if values[term.name]
            for name, one in term.ranges.items()
        }
        if not all(one.low <= values[name] <= one.high for name, one in ranges.items()):
            return None
        values = {name: values[name] for name in (*(term.name for term in self.terms), *ranges)}
        return values if self.expression(values) == str(wanted) else None

    def _is_in(self, term: Term, values: Mapping[str, Value]) -> bool:
        alone = term is self.terms[-1] and not any(values.get(one.name) for one in self.terms)
        return bool(values.get(term.name)) or alone


def parse_terms(words: Sequence[str]) -> Space:
    """The space of `--terms`, split at the commas outside of parentheses.

    A weight range that is not given is 0.05 to 5. Weights are searched by their logarithm;
    parameters linearly, unless their range is positive and spans more than a factor of 10. One
    number in the place of a range is fixed.

    Raises:
        InputError: a word is no term, a loss or a parameter unknown, a range out of bounds.
    """
    terms = [_parse_term(word) for word in words]
    if not terms:
        raise InputError(f"--terms: none given; {_FORMS}, separated by commas")
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--terms: {name!r} comes {names.count(name)} times; give it once")
    return Space(tuple(terms))


def _parse_term(word: str) -> Term:
    match = _TERM.fullmatch(word.strip())
    if not match:
        raise InputError(f"--terms: found {word!r}; {_FORMS}")
    name = match["name"]
    try:
        expression = canonical_expression(name)
    except InputError as error:
        raise InputError(f"--terms: {word!r}: {error}") from error
    if "+" in expression:
        raise InputError(f"--terms: {name!r} is the sum {expression}; give its losses as terms")
    weight = _range(word, DEFAULT_WEIGHT if match["weight"] is None else match["weight"], True)
    inside = match["inside"]
    term = Term(name, weight, {} if inside is None else _parse_parameters(word, name, inside))
    for end in ("low", "high"):
        at_the_end = {label: getattr(one, end) for label, one in term.ranges.items()}
        try:
            canonical_expression(term.expression(at_the_end))
        except InputError as error:
            raise InputError(f"--terms: {word!r} at its {end} end: {error}") from error
    return term


def _parse_parameters(word: str, loss: str, inside: str) -> dict[str, Range]:
    known = parameters(loss)
    by_name = {parameter.name: parameter for parameter in known}
    found: dict[str, Range] = {}
    for index, part in enumerate(inside.split(",")):
        name, equals, text = (piece.strip() for piece in part.rpartition("="))
        if not equals and index < len(known) and len(found) == index:
            name = known[index].name
        if name not in by_name or name in found:
            takes = ", ".join(by_name) or "no parameters"
            raise InputError(
                f"--terms: {word!r}: found {part.strip()!r}; {loss} takes {takes}, each once, as "
                "in huber(delta=0.1:2)"
            )
        found[name] = _range(word, text, None)
        if by_name[name].whole and found[name].low != found[name].high:
            raise InputError(
                f"--terms: {word!r}: {name} is a whole number, of which each has a program of its "
                "own, and is not searched; give one"
            )
    return found


def _range(word: str, text: str, log: bool | None) -> Range:
    """log: None lets the range decide."""
    low_text, colon, high_text = text.partition(":")
    try:
        low = float(low_text)
        high = float(high_text) if colon else low
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"--terms: {word!r}: found {text.strip()!r} as a range; write low:high, such as 0.1:4, "
            "or one number"
        )
    if low > high:
        raise InputError(f"--terms: {word!r}: in {text.strip()} the low end is above the high one")
    if log and low <= 0:
        raise InputError(
            f"--terms: {word!r}: found the weight range {text.strip()}; weights are above 0"
        )
    return Range(low, high, low > 0 and high / low > _LINEAR_SPAN if log is None else log)


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")
