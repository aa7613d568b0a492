"""The parameters that losses have, such as Huber's delta: names, defaults and ranges."""

import math
from typing import Any, NamedTuple

from dgnet_jax.errors import InputError


class Parameter(NamedTuple):
    """A number that a loss takes beside its two arrays.

    Attributes:
        name: as in `huber(delta=0.5)`.
        default: where an expression gives none.
        low, high: the range, ends included.
        whole: whether it is a whole number that shapes the program, and so no input of it.
    """

    name: str
    default: float
    low: float
    high: float
    whole: bool = False

    def accepts(self, value: float) -> bool:
        """Whether the value is in the range."""
        if self.whole and not float(value).is_integer():
            return False
        return bool(self.low <= value <= self.high)

    @property
    def range(self) -> str:
        """In words: "a finite number, 1e-06 or more"."""
        kind = "a whole number" if self.whole else "a finite number"
        if self.low == -math.inf:
            return f"a number up to {self.high:g}, -inf included"
        if self.high >= _LARGEST:
            return f"{kind}, {self.low:g} or more"
        return f"{kind} from {self.low:g} to {self.high:g}"


# float32 holds them and their squares; nothing in images or codes is so small or large.
_SMALLEST, _LARGEST = 1e-6, 1e18
_DELTA = Parameter("delta", 1.0, _SMALLEST, _LARGEST)

PARAMETERS: dict[str, tuple[Parameter, ...]] = {
    "huber": (_DELTA,),
    "huber_printed": (_DELTA,),
    "charbonnier": (Parameter("epsilon", 1e-3, _SMALLEST, _LARGEST),),
    "barron": (
        Parameter("alpha", 0.0, -math.inf, 2.0),
        Parameter("c", 0.5, _SMALLEST, _LARGEST),
    ),
    "focal_frequency": (Parameter("alpha", 1.0, 0.0, 8.0),),
    "gradient_difference": (Parameter("alpha", 1.0, 1.0, 8.0),),
    "teacher_features": (
        Parameter("first", 1, 1, 1000, whole=True),
        Parameter("last", 0, 0, 1000, whole=True),
    ),
}
"""Loss to its parameters, in the order in which an expression gives them."""


def check(loss: str, **values: Any) -> None:
    """Raises InputError for a Python number that is out of the parameter's range.

    What jax traces has no value yet; an expression has checked it before.
    """
    for parameter in PARAMETERS[loss]:
        value = values[parameter.name]
        if isinstance(value, int | float) and not parameter.accepts(value):
            raise InputError(f"{loss}: {parameter.name} is {value}; it has to be {parameter.range}")
