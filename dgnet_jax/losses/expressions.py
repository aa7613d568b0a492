"""Reconstruction losses as text, "l1+0.5*huber(0.2)", and their numbers as inputs of a program."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real

from dgnet_jax.errors import InputError
from dgnet_jax.losses import registry
from dgnet_jax.losses.arrays import Scalar
from dgnet_jax.losses.parameters import Parameter
from dgnet_jax.losses.perceptual import FeatureMaps
from dgnet_jax.losses.registry import Definition, ReconstructionLoss, known_names

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PARAMETER_NUMBER = re.compile(rf"{_NUMBER.pattern}|-inf")
# Not the + of an exponent, as in 1e+2*l1, and none within brackets.
_PLUS = re.compile(r"(?<![0-9.][eE])\+(?![^()]*\))")
_CALL = re.compile(r"([^()]*)\(([^()]*)\)")


class Term(NamedTuple):
    """A weighted loss of a sum.

    Attributes:
        name: of the loss.
        weight: above 0; 0 in a `padded` expression.
        parameters: a value for each of the loss's.
    """

    name: str
    weight: float
    parameters: tuple[float, ...] = ()

    @property
    def choices(self) -> tuple[int, ...]:
        """The parameters that shape the program."""
        given = zip(_parameters(self.name), self.parameters, strict=True)
        return tuple(int(value) for parameter, value in given if parameter.whole)

    @property
    def inputs(self) -> tuple[float, ...]:
        """The weight, and the parameters that are inputs of the program."""
        given = zip(_parameters(self.name), self.parameters, strict=True)
        return self.weight, *(value for parameter, value in given if not parameter.whole)

    def __str__(self) -> str:
        call = self.name + _arguments(_parameters(self.name), self.parameters)
        return call if self.weight == 1 else f"{_short(self.weight)}*{call}"


class Part(NamedTuple):
    """What a program knows of a term: all but its `inputs`."""

    name: str
    definition: Definition
    choices: tuple[int, ...]


@dataclass(frozen=True)
class Expression:
    """A sum of weighted losses, in the order of `registry.DEFINITIONS`, none twice."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.terms))

    @property
    def form(self) -> tuple[Part, ...]:
        """What the compiled program depends on; expressions of one form share it."""
        return tuple(
            Part(term.name, registry.DEFINITIONS[term.name], term.choices) for term in self.terms
        )

    @property
    def inputs(self) -> Float[np.ndarray, " numbers"]:
        """The weights and parameters, which the program of the form takes."""
        dtype = jnp.result_type(float)
        return np.array([value for term in self.terms for value in term.inputs], dtype)

    @property
    def images_only(self) -> tuple[str, ...]:
        """The names of its losses that need images."""
        return tuple(part.name for part in self.form if part.definition.images_only)

    def on_codes(self) -> "Expression":
        """Without the losses that need images."""
        alone = self.images_only
        return Expression(tuple(term for term in self.terms if term.name not in alone))

    def padded(self, others: "Expression") -> "Expression":
        """The same loss with the others' terms that it lacks, of weight 0.

        Expressions that are padded by the same others have one form.
        """
        own = Counter((term.name, term.choices) for term in self.terms)
        lacking = []
        for term in others.terms:
            if own[term.name, term.choices]:
                own[term.name, term.choices] -= 1
            else:
                lacking.append(term._replace(weight=0.0))
        return Expression(_ordered([*self.terms, *lacking]))


def evaluate(
    form: Sequence[Part],
    inputs: Float[Any, " numbers"],
    target: Real[Any, " batch *values"],
    output: Real[Any, " batch *values"],
    features: FeatureMaps | None = None,
) -> Scalar:
    """The loss of an expression's form and inputs; pure.

    Args:
        form: `Expression.form`.
        inputs: `Expression.inputs`, as numbers or traced.
        target: the values to reconstruct.
        output: the reconstruction.
        features: the teacher's, for losses that need them.

    Raises:
        InputError: a loss needs the teacher's features and there are none.
    """
    place, total = 0, None
    for name, definition, choices in form:
        weight, place = inputs[place], place + 1
        chosen, arguments = iter(choices), []
        for parameter in definition.parameters:
            if parameter.whole:
                arguments.append(next(chosen))
            else:
                arguments.append(inputs[place])
                place += 1
        function = definition.function
        if definition.needs_teacher:
            if features is None:
                raise InputError(f"{name}: needs a trained teacher, which there is none of here")
            function = partial(function, features=features)
        value = function(target, output, *arguments)
        # A weight in float64 does not widen the rest of a program in float32.
        value = jnp.asarray(weight).astype(value.dtype) * value
        total = value if total is None else total + value
    assert total is not None
    return total


def reconstruction_loss(spec: str | ReconstructionLoss) -> ReconstructionLoss:
    """Makes a loss function of a name, a fusion's name or an expression.

    Args:
        spec: a loss or a fusion, by name; a sum of such with optional weights and parameters, as in
            "0.5*l1 + 2*huber(0.1)", registered ones included; or a function
            ``(target, output) -> scalar``, returned as it is.

    Returns:
        A pure function ``(target, output) -> scalar``.

    Raises:
        InputError: for an unknown name or a malformed expression.
    """
    if callable(spec):
        return spec
    expression = parse(spec)
    form = expression.form
    if str(expression) == form[0].name and not form[0].definition.needs_teacher:
        return form[0].definition.function
    inputs = expression.inputs

    def weighted_sum(
        target: Real[Any, " batch *values"],
        output: Real[Any, " batch *values"],
        features: FeatureMaps | None = None,
    ) -> Scalar:
        return evaluate(form, inputs, target, output, features)

    return weighted_sum


def canonical_expression(spec: str) -> str:
    """Writes a loss as a sum of weighted losses in a fixed order, none twice.

    Two spellings of one loss give one string: "l1_rmse" and "rmse + l1" both give "l1+rmse",
    "huber(delta=1)" gives "huber".

    Raises:
        InputError: for an unknown name or a malformed expression.
    """
    return str(parse(spec))


def parse(spec: str) -> Expression:
    """Reads an expression: names of losses or fusions, with weights and parameters.

    Raises:
        InputError: for an unknown name or a malformed expression.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise InputError(f"reconstruction loss: found {spec!r}, not a loss; {known_names()}")
    weights: dict[tuple[str, tuple[float, ...]], float] = {}
    for text in _PLUS.split(spec):
        for term in _terms(spec, text):
            key = term.name, term.parameters
            weights[key] = weights.get(key, 0.0) + term.weight
    for (name, _), weight in weights.items():
        _check_weight(spec, f"{weight:g} of {name}", weight)
    return Expression(
        _ordered([Term(name, weight, values) for (name, values), weight in weights.items()])
    )


def _terms(spec: str, text: str) -> list[Term]:
    weight_text, star, call = (part.strip() for part in text.rpartition("*"))
    if not call:
        raise InputError(
            f"reconstruction loss {spec!r}: a loss is missing in the term {text.strip()!r};"
            " write a sum such as 0.5*l1+2*rmse"
        )
    weight = _parse_weight(spec, weight_text) if star else 1.0
    match = _CALL.fullmatch(call)
    name = match[1].strip() if match else call
    if not match and ("(" in call or ")" in call):
        raise InputError(
            f"reconstruction loss {spec!r}: the brackets of {call!r} do not match; write parameters"
            " as in huber(0.5) or barron(alpha=0,c=0.1)"
        )
    fusion = registry.fusions().get(name)
    if fusion is not None:
        if match:
            raise InputError(
                f"reconstruction loss {spec!r}: {name!r} is a sum and takes no parameters; write it"
                f" out, as in {fusion}"
            )
        return [term._replace(weight=weight * term.weight) for term in parse(fusion).terms]
    if name not in registry.DEFINITIONS:
        raise InputError(
            f"reconstruction loss {spec!r}: unknown loss {name!r};"
            f" the nearest is {_nearest_name(name)!r}; {known_names()}"
        )
    return [Term(name, weight, _parse_parameters(spec, name, match[2] if match else None))]


def _parse_parameters(spec: str, name: str, text: str | None) -> tuple[float, ...]:
    known = _parameters(name)
    values: dict[str, float] = {}
    by_place = True
    for index, argument in enumerate(text.split(",") if text and text.strip() else []):
        key, equals, number = (part.strip() for part in argument.rpartition("="))
        named = {parameter.name: parameter for parameter in known}
        by_place = by_place and not equals
        if by_place and index < len(known):
            key = known[index].name
        usage = f"{name} takes " + (_usage(known) if known else "no parameters")
        if key not in named or key in values:
            raise InputError(
                f"reconstruction loss {spec!r}: the parameter {argument.strip()!r} is unknown, or"
                f" given twice; {usage}"
            )
        parameter = named[key]
        value = float(number) if _PARAMETER_NUMBER.fullmatch(number) else math.nan
        if not parameter.accepts(value):
            raise InputError(
                f"reconstruction loss {spec!r}: {name}: {key} is {number!r}; it has to be"
                f" {parameter.range}; {usage}"
            )
        values[key] = value
    found = tuple(float(values.get(parameter.name, parameter.default)) for parameter in known)
    if name == "teacher_features" and found[1] and found[1] < found[0]:
        raise InputError(
            f"reconstruction loss {spec!r}: from stage {found[0]:g} to {found[1]:g} there is none;"
            " give the first stage first, and 0 for the network's last"
        )
    return found


def _parameters(name: str) -> tuple[Parameter, ...]:
    return registry.DEFINITIONS[name].parameters


def _usage(known: Sequence[Parameter]) -> str:
    return ", ".join(f"{one.name}={_short(one.default)} ({one.range})" for one in known)


def _arguments(known: Sequence[Parameter], values: Sequence[float]) -> str:
    """ "(0.5)" of a loss with one parameter, "(alpha=0,c=0.1)" of others; "" for its defaults."""
    given = list(zip(known, values, strict=True))
    if all(value == parameter.default for parameter, value in given):
        return ""
    if len(given) == 1:
        return f"({_short(given[0][1])})"
    return f"({','.join(f'{parameter.name}={_short(value)}' for parameter, value in given)})"


def _ordered(terms: Sequence[Term]) -> tuple[Term, ...]:
    """In the order of the built-in losses, then by name, then by parameters."""
    places = {name: place for place, name in enumerate(registry.NAMES)}

    def key(term: Term) -> tuple[Any, ...]:
        return places.get(term.name, len(places)), term.name, term.choices, term.parameters

    return tuple(sorted(terms, key=key))


def _short(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _parse_weight(spec: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise InputError(
            f"reconstruction loss {spec!r}: the weight {text!r} is not a decimal number;"
            " write the weight before the loss, as in 0.5*l1+2*rmse"
        )
    weight = float(text)
    _check_weight(spec, repr(text), weight)
    return weight


def _check_weight(spec: str, shown: str, weight: float) -> None:
    float32 = np.finfo(np.float32)
    if not float(float32.tiny) <= weight <= float(float32.max):
        if weight < 0:
            reason = "negative"
        elif weight == 0:
            reason = "zero; leave the term out"
        else:
            reason = "outside the range of float32"
        raise InputError(
            f"reconstruction loss {spec!r}: the weight {shown} is {reason};"
            " weights are finite and above 0"
        )


def _nearest_name(name: str) -> str:
    candidates = [*registry.DEFINITIONS, *registry.fusions(), *registry.OTHER_NAMES]
    nearest = difflib.get_close_matches(name.lower(), candidates, n=1, cutoff=0.0)[0]
    return registry.OTHER_NAMES.get(nearest, nearest)
