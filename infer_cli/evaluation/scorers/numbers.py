"""Numbers in texts, read exactly: as people, models and GSM8K write them."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from infer_cli.evaluation.scorers.last import last_of

# What is longer or further out is no number here: nobody means it, and exact arithmetic with it is slow.
MOST_CHARACTERS = 400
MOST_EXPONENT = 400

_CURRENCY = "$€£¥₹"
# All that follows the first digits is optional, so the time grows with the text and not faster.
_NUMBER = re.compile(
    rf"""
    (?<![^\W_])                                       # not within a word
    (?P<after_slash>(?<=/))?
    (?: (?P<sign>(?<![)\]}}])[-−+])? [{_CURRENCY}]?
      | [{_CURRENCY}] (?P<inner_sign>[-−+])
    )
    (?: (?P<whole> [0-9]{{1,3}} (?:,[0-9]{{3}})+ (?![0-9]) | [0-9]+ ) (?P<decimals>\.[0-9]+)?
      | (?<![0-9]) (?P<only_decimals>\.[0-9]+)
    )
    (?: [eE] (?P<exponent>[-+]?[0-9]{{1,4}}) (?![0-9]) )?
    (?(after_slash) | (?: / (?P<denominator>0*[1-9][0-9]*) (?![0-9/]|[.,][0-9]) )? )
    (?P<percent> [ ]?\\?% )?
    """,
    re.VERBOSE,
)
_TO_LAST_DIGIT = re.compile(r".*[0-9]", re.DOTALL)
_TO_LAST_SPACE = re.compile(r".*[ \n\t]", re.DOTALL)


def first_number(text: str) -> str | None:
    """The first number in `text`, without currency, spaces and thousands separators."""
    found = _NUMBER.search(text)
    return _plain(found) if found else None


def last_number(text: str) -> str | None:
    """The last one, as `first_number` gives it."""
    to_digit = _TO_LAST_DIGIT.match(text)
    if to_digit is None:
        return None
    # A number has no white space before its last digit, so most texts need to be read from there only.
    to_space = _TO_LAST_SPACE.match(text, 0, to_digit.end())
    start = 0 if to_space is None else to_space.end()
    found = last_of(_NUMBER.finditer(text, start)) or last_of(_NUMBER.finditer(text))
    return _plain(found) if found else None


def parse_number(text: str, *, percent_is_hundredth: bool = False) -> Fraction | None:
    """The value of a text that is a number and nothing else; a full stop may follow. None: it is none."""
    text = text.strip()
    return _parsed(text, percent_is_hundredth) if len(text) <= MOST_CHARACTERS else None


@lru_cache(maxsize=4096)
def _parsed(text: str, percent_is_hundredth: bool) -> Fraction | None:
    found = _NUMBER.fullmatch(text.removesuffix("."))
    if found is None:
        return None
    decimals = (found["decimals"] or found["only_decimals"] or ".")[1:]
    exponent = int(found["exponent"] or 0)
    if abs(exponent) > MOST_EXPONENT:
        return None
    if found["percent"] and percent_is_hundredth:
        exponent -= 2
    value = int((found["whole"] or "").replace(",", "") + decimals)
    exponent -= len(decimals)
    if _is_negative(found):
        value = -value
    denominator = int(found["denominator"] or 1)
    if exponent >= 0:
        return Fraction(value * 10**exponent, denominator)
    return Fraction(value, 10**-exponent * denominator)


def _is_negative(found: re.Match[str]) -> bool:
    return (found["sign"] or found["inner_sign"]) in ("-", "−")


def _plain(found: re.Match[str]) -> str:
    sign = "-" if _is_negative(found) else ""
    whole = (found["whole"] or "0").replace(",", "")
    decimals = found["decimals"] or found["only_decimals"] or ""
    exponent = f"e{found['exponent']}" if found["exponent"] else ""
    denominator = f"/{found['denominator']}" if found["denominator"] else ""
    return f"{sign}{whole}{decimals}{exponent}{denominator}{'%' if found['percent'] else ''}"
