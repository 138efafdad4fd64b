"""Amounts of bytes as people type and read them."""

from __future__ import annotations

import pytest

from infer_cli.errors import UsageError
from infer_cli.settings.sizes import MOST_BYTES, parse_size, size_text


def test_an_amount_of_bytes_has_a_bound() -> None:
    assert parse_size("8GiB", "--cache-size") == 8 << 30
    for text in (f"{MOST_BYTES + 1}", "9" * 400 + "T", "99999999999T"):
        with pytest.raises(UsageError, match="more than any file can hold"):
            parse_size(text, "--cache-size")


@pytest.mark.parametrize(
    "n_bytes, shown",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (400_000, "400 kB"),
        (98362432, "98.4 MB"),
        (1060000000, "1.06 GB"),
        (5 * 10**12, "5 TB"),
        (12345 * 10**12, "12345 TB"),
    ],
)
def test_an_amount_is_read_as_on_model_pages(n_bytes: int, shown: str) -> None:
    assert size_text(n_bytes) == shown
