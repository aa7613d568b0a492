"""The points of a study: which losses, which seeds, and which of them are this process's."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from dgnet_jax.errors import InputError
from dgnet_jax.losses import (
    BEYOND,
    BEYOND_FUSIONS,
    FUSIONS,
    LOSSES,
    NAMES,
    PRINTED,
    ReconstructionLoss,
    canonical_expression,
    fusions,
    register,
    registry,
)

ALL = "all"
GROUPS: dict[str, tuple[str, ...]] = {
    ALL: (*LOSSES, *FUSIONS),
    "printed": PRINTED,
    "beyond": (*BEYOND, *BEYOND_FUSIONS),
}
"""Words of --losses that stand for several: the thesis's twelve losses, the forms that it prints
where they are others, and what it did not study."""
CUSTOM = "custom"
# A loss, by name or expression, or a function.
LossSpec = str | ReconstructionLoss

_LARGEST_SEED = 2**31 - 1
_LABEL = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
# The + of an exponent does not separate terms.
_SUM = re.compile(r"(?<![0-9.]e)\+")
_ARGUMENTS = re.compile(r"\([^()]*\)")
_TO_LABEL = str.maketrans({"(": "-", ",": "-", ")": None, "=": None})
_SHARD = re.compile(r"([0-9]+)/([0-9]+)")


class Point(NamedTuple):
    """A loss of a study.

    Attributes:
        label: its name in folders, results and tables.
        expression: the sum that it stands for, or "custom" for a function of the user's.
        spec: what `config.reconstruction_loss` is set to.
        function: the user's, which goes by the name `spec`; None for the others.
        images_only: of a function, as of `losses.register`.
    """

    label: str
    expression: str
    spec: str
    function: ReconstructionLoss | None = None
    images_only: bool = False

    def register(self) -> None:
        """Makes `spec` stand for the function again, if another has taken the name meanwhile."""
        if self.function is not None:
            register(self.label, self.function, images_only=self.images_only)


def choose_losses(
    losses: LossSpec | Sequence[LossSpec] | Mapping[str, LossSpec],
) -> list[Point]:
    """The points of names, expressions and functions; each loss once.

    Args:
        losses: a name, an expression, one of `GROUPS`, or a function, which goes by its own name; a
            sequence of those; or a mapping of labels. Functions are registered (`losses.register`)
            under their label.

    Raises:
        InputError: an unknown loss, a label that cannot name a folder, or no loss at all.
    """
    if isinstance(losses, Mapping):
        points = [_labelled(label, spec) for label, spec in losses.items()]
    else:
        specs = [losses] if isinstance(losses, str) or callable(losses) else list(losses)
        points = [point for spec in specs for point in _points(spec)]
    if not points:
        raise InputError("--losses: none given; name some, such as l1,l1_rmse, or all")
    by_label: dict[str, Point] = {}
    for point in points:
        if by_label.setdefault(point.label, point) != point:
            raise InputError(
                f"--losses: {point.label!r} stands for two losses, "
                f"{by_label[point.label].expression} and {point.expression}"
            )
    return list(by_label.values())


def known_points(expressions: Mapping[str, str]) -> list[Point]:
    """The points of a saved study, label to expression, without those that need a function."""
    points = []
    for label, expression in expressions.items():
        with contextlib.suppress(InputError):
            spec = label if expression == CUSTOM else expression
            points.append(_named(spec)._replace(label=label))
    return points


def label_of(expression: str) -> str:
    """A name for folders without what a shell expands.

    0.5*l1+1e+2*rmse is 0.5l1_1e2rmse, barron(alpha=0,c=0.1) is barron-alpha0-c0.1.
    """
    text = _SUM.sub("_", expression.replace("*", "")).replace("+", "")
    return text.translate(_TO_LABEL)


def is_fusion(expression: str) -> bool:
    """Whether a loss is a sum of several; "custom", a function of the user's, is none."""
    return len(_SUM.split(_ARGUMENTS.sub("", expression))) > 1


def choose_seeds(seeds: int | Sequence[int | str]) -> list[int]:
    """Seeds as integers, each once.

    Raises:
        InputError: one is no integer from 0 to 2^31 - 1, or there is none.
    """
    chosen = []
    for seed in [seeds] if isinstance(seeds, int) else seeds:
        text = str(seed).strip()
        if not text.isdecimal() or int(text) > _LARGEST_SEED:
            raise InputError(
                f"--seeds: found {seed!r}; give integers from 0 to {_LARGEST_SEED}, such as 0,1,2"
            )
        chosen.append(int(text))
    if not chosen:
        raise InputError("--seeds: none given; give integers from 0 on, such as 0,1,2")
    return list(dict.fromkeys(chosen))


def parse_shard(text: str | None) -> tuple[int, int]:
    """ "2/4", the third of four, to (2, 4); None to (0, 1).

    Raises:
        InputError: it is not of this form, or out of range.
    """
    if not text:
        return 0, 1
    match = _SHARD.fullmatch(text.strip())
    if not match:
        raise InputError(f"--shard={text}: give i/n, such as 0/4 for the first of four processes")
    return check_shard((int(match[1]), int(match[2])))


def check_shard(shard: tuple[int, int]) -> tuple[int, int]:
    """The shard (i, n), if there is one of that number; InputError otherwise."""
    index, count = shard
    if count < 1:
        raise InputError(f"--shard={index}/{count}: give 1 shard or more")
    if not 0 <= index < count:
        raise InputError(
            f"--shard={index}/{count}: of {count} shards, i goes from 0 to {count - 1}"
        )
    return shard


def assign(
    points: Sequence[Point], seeds: Sequence[int], shard: tuple[int, int] = (0, 1)
) -> list[tuple[Point, int]]:
    """The (loss, seed) pairs of a shard, in the order to run them.

    Shards are blocks that keep the seeds of a loss together, so that each compiles few losses.
    Within a shard all losses of the first seed come first: a comparison is there early.

    Args:
        shard: its index, from 0, and how many there are.
    """
    index, count = shard
    pairs = [(point, seed) for point in points for seed in seeds]
    block = pairs[len(pairs) * index // count : len(pairs) * (index + 1) // count]
    return sorted(block, key=lambda pair: list(seeds).index(pair[1]))


def _points(spec: LossSpec) -> list[Point]:
    if callable(spec):
        name = getattr(spec, "__name__", "")
        if not name.isidentifier():
            raise InputError(
                f"losses: {spec!r} has no name of its own; give a mapping such as "
                '{"mine": function}'
            )
        return [_custom(name, spec)]
    if isinstance(spec, str) and spec in GROUPS:
        return [_named(name) for name in GROUPS[spec]]
    return [_named(spec)]


def _named(spec: str) -> Point:
    """The point of a name or an expression; spellings of one loss give one point."""
    expression = canonical_expression(spec)
    if expression.isidentifier() and expression not in NAMES:  # a registered function
        return Point(expression, CUSTOM, expression)
    name = _names_by_sum().get(expression, expression)
    return Point(label_of(name), expression, name)


@cache
def _names_by_sum() -> dict[str, str]:
    """Expression to name of the fusions."""
    return {canonical_expression(name): name for name in fusions()}


def check_label(label: str) -> str:
    """The label of a loss, if it can name a folder; InputError otherwise."""
    if not _LABEL.fullmatch(label):
        raise InputError(
            f"losses: the label {label!r} names a folder; use letters, digits, _, ., + and -"
        )
    return label


def _labelled(label: str, spec: LossSpec) -> Point:
    check_label(label)
    if callable(spec):
        return _custom(label, spec)
    point = _named(spec)
    if label in NAMES and point.label != label:
        raise InputError(f"losses: {label!r} is the name of a loss, but stands for {spec!r} here")
    return point._replace(label=label)


def _custom(label: str, function: Callable) -> Point:
    known = registry.DEFINITIONS.get(label)
    # One that is registered already is not given up for one that codes may have.
    images_only = known is not None and known.function is function and known.images_only
    register(label, function, images_only=images_only)
    return Point(label, CUSTOM, label, function, images_only)
