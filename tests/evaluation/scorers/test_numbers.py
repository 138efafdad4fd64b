"""Numbers: found in texts, and read exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.evaluation.scorers.numbers import first_number, last_number, parse_number


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("She has 72 clips.", "72"),
        ("It costs $1,234.50 in all", "1234.50"),
        ("#### 1,000,000", "1000000"),
        ("a loss of -$3", "-3"),
        ("a loss of $-3", "-3"),
        ("it is −7 degrees", "-7"),
        ("+5", "5"),
        ("€20", "20"),
        ("10-5", "5"),
        ("(3)-4", "4"),
        ("3 - 4", "4"),
        ("3/4 of it", "3/4"),
        ("on 12/25/2024", "2024"),
        ("7/0", "0"),
        ("50% off", "50%"),
        ("50 % off", "50%"),
        (r"\boxed{50\%}", "50%"),
        ("1.5e3", "1.5e3"),
        ("2e-4.", "2e-4"),
        ("2even", "2"),
        (".5 of it", "0.5"),
        ("**18**", "18"),
        (r"$\boxed{18}$", "18"),
        ("5km", "5"),
        ("42 is for Q3 and H2O", "42"),
        ("1,23", "23"),
        ("1, 2, 3, ...", "3"),
        ("no number", None),
        ("", None),
        ("٣", None),  # a digit, but not of ASCII
    ],
)
def test_the_last_number(text: str, wanted: str | None) -> None:
    assert last_number(text) == wanted


def test_the_first_number() -> None:
    assert first_number("from $1,200 to 7") == "1200"
    assert first_number("none") is None


@given(st.text("0123456789.,-$% /e\nx", max_size=30))
def test_the_last_is_the_last_of_all(text: str) -> None:
    """By the first number of what is left, again and again: slower, and with no short cut."""
    from infer_cli.evaluation.scorers import numbers

    found = [numbers._plain(each) for each in numbers._NUMBER.finditer(text)]
    assert last_number(text) == (found[-1] if found else None)
    assert first_number(text) == (found[0] if found else None)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.integers(-(10**30), 10**30))
def test_what_python_writes_is_read_exactly(decimal: Decimal, whole: int) -> None:
    assert parse_number(f"{decimal:f}") == Fraction(decimal)
    assert parse_number(f"{whole:,}") == whole
    assert last_number(f"It is ${abs(whole):,}.") == str(abs(whole))


@given(st.fractions(max_denominator=10**9))
def test_fractions_are_read_exactly(fraction: Fraction) -> None:
    assert parse_number(str(fraction)) == fraction


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("72.", Fraction(72)),
        (" $1,000.10 ", Fraction(100010, 100)),
        ("-1.5e-3", Fraction(-15, 10000)),
        ("12.5%", Fraction(25, 2)),
        ("3/4", Fraction(3, 4)),
        ("1.5/3", Fraction(1, 2)),
        ("72 clips", None),
        ("1,00", None),
        ("", None),
        ("1" * 401, None),
        ("1e401", None),
        ("1e-401", None),
        ("nan", None),
        ("inf", None),
        ("0x10", None),
    ],
)
def test_reading(text: str, wanted: Fraction | None) -> None:
    assert parse_number(text) == wanted


def test_percent_as_a_hundredth() -> None:
    assert parse_number("12.5%", percent_is_hundredth=True) == Fraction(1, 8)
    assert parse_number("12.5", percent_is_hundredth=True) == Fraction(25, 2)
