"""Lengths and times, from samples and replies."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer_cli.errors import UsageError
from infer_cli.evaluation.report.spreads import Spread, latencies, lengths
from infer_cli.evaluation.runs.sample import Sample


def test_a_quantile_is_a_value_that_so_many_do_not_exceed() -> None:
    spread = Spread("x", "s", [1.0, 2.0, 3.0, 4.0])
    assert [spread.quantile(share) for share in (0, 0.25, 0.5, 0.51, 0.99, 1)] == [1, 1, 2, 3, 4, 4]


def test_times_are_those_of_all_lines_that_have_some(tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    replies.write_text(
        '{"timings": {"ttft_s": 0.5, "total_s": 3}}\n{"error": {"code": 5}}\n'
        '{"timings": {"ttft_s": null, "total_s": 2.0}}\n{"timings": null}\n'
    )
    assert latencies(replies) == [
        Spread("time to the first token", "s", [0.5]),
        Spread("time in all", "s", [2.0, 3.0]),
    ]


@pytest.mark.parametrize("text", ["[]\n", "{\n", "1\n", "[" * 100_000 + "\n"])
def test_a_line_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    replies = tmp_path / "replies.jsonl"
    replies.write_text("{}\n" + text)
    with pytest.raises(UsageError, match="line 2: it is no JSON object"):
        latencies(replies)


def test_lengths_of_prompts_are_of_replies_only() -> None:
    one = Sample("i", 0, 0, None, None, None, "", None, None, (), "ok", {}, n_prompt_tokens=7, n_tokens=3)
    assert [each.name for each in lengths([one], is_generated=True)] == [
        "length of prompts",
        "length of replies",
    ]
    assert lengths([one], is_generated=False) == [Spread("length of scored texts", "tokens", [3.0])]
