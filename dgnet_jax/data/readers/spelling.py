"""One person or camera, one spelling: the labels of a table, as people and programs write them.

What is certainly the same is made the same: 01, 1, +1 and 1.0; Unicode's two ways to write an
accented letter; spaces around and between words. What is likely the same (Ben and ben) or no label
at all (NaN) is refused, since a guess would split or join people without a word.
"""

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

# Minus, hyphens, dashes and their wide forms, which programs put in the place of "-".
_DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
# A decimal point and zeros come from programs that keep a column of numbers as floats. Digits are
# those of any script; more than 100 of them are no number that somebody counts with.
_WHOLE = re.compile(rf"([-+{_DASHES}]?)(\d{{1,100}})(?:\.0*)?")
_FRACTION = re.compile(r"[-+]?\d{1,100}[.,]\d{1,100}", re.ASCII)
_SHORTENED = re.compile(r"[-+]?\d(?:[.,]\d+)?E[-+]\d+", re.ASCII | re.IGNORECASE)
_NO_VALUE = ("nan", "NaN", "NAN", "null", "NULL", "none", "None", "NONE", "<NA>", "n/a", "N/A")
_NO_CELL = ("#N/A", "#REF!", "#VALUE!", "#NAME?", "#NUM!")


def spelled(text: str) -> str:
    """A label in its one spelling.

    Whole numbers lose leading zeros, a plus and zeros behind a point ("-01" is "-1"); other words
    are in Unicode's composed form (NFC), with one space between words and none around them.

    Raises:
        ValueError: it is no label; says why.
    """
    words = " ".join(unicodedata.normalize("NFC", text).split())
    hidden = [character for character in words if unicodedata.category(character) == "Cc"]
    if hidden:
        raise ValueError(f"{words!r} holds the control character U+{ord(hidden[0]):04X}")
    if words in _NO_VALUE or words in _NO_CELL:
        raise ValueError(f"{words!r} stands for a missing value")
    if _SHORTENED.fullmatch(words):
        raise ValueError(
            f"{words!r} is a number that a spreadsheet has shortened; store the column as text"
        )
    whole = _WHOLE.fullmatch(words)
    if whole:
        number = int(whole[2])
        return str(number if whole[1] in ("", "+") else -number)
    return words


def lookalike(labels: Iterable[str]) -> tuple[str, str] | None:
    """Two of the labels, from `spelled`, that may be meant as one; None if there are none.

    They differ only in upper and lower case, in characters that look alike or cannot be seen
    (wide letters, dashes, zero-width spaces), or in how a number with a fraction is written.
    """
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(_appearance(label), label)
        if other != label:
            return other, label
    return None


def _appearance(label: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    characters = ["-" if character in _DASHES else character for character in text]
    seen = (c for c in characters if unicodedata.category(c) != "Cf")
    text = " ".join("".join(seen).split())
    if _FRACTION.fullmatch(text):
        return f"{Decimal(text.replace(',', '.')).normalize():f}"
    return text
