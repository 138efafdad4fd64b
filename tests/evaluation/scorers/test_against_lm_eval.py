"""Answers found by a regular expression are those that lm-evaluation-harness finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.tasks.task import Extraction
from tests.integrations.extras import needs

pytestmark = needs("lm_eval")

REPLIES = st.lists(
    st.sampled_from(["#### ", "72", "-1", ",", ".", "$", " ", "\n", "so (B)", "The answer is ", "4.5", "x"]),
    max_size=14,
).map("".join)
PATTERNS = [r"#### (\-?[0-9\.\,]+)", r"The answer is (\-?[0-9\.\,]*[0-9]+)", r"(-?[$0-9.,]{2,})"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("first", [True, False])
def test_regex(pattern: str, first: bool) -> None:
    from lm_eval.filters.extraction import RegexFilter

    theirs = RegexFilter(pattern, group_select=0 if first else -1, fallback="none")
    ours = Extractor([Extraction("regex", pattern=pattern, first=first)])

    @given(REPLIES)
    def same(reply: str) -> None:
        ((wanted,),) = theirs.apply([[reply]], [{}])
        assert (ours.find(reply) or "none") == wanted

    same()
