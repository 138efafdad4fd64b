"""Data in a page: no text of it can end the script that it is in."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from infer_cli.evaluation.report.embedding import script_json, source_hash

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)  # halves of characters too


@given(ANY_TEXT | st.sampled_from(["</script>", "<!--<script>", "]]>", "\u2028&amp;", "\ud800"]))
def test_nothing_in_it_is_markup_and_it_reads_back(text: str) -> None:
    made = script_json({text: [text]})
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", made)
    made.encode()
    assert json.loads(made) == {text: [text]}


def test_the_hash_is_that_of_a_policy() -> None:
    digest = base64.b64encode(hashlib.sha256("é\n".encode()).digest()).decode()
    assert source_hash("é\n") == f"'sha256-{digest}'"
