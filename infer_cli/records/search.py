"""A user's search as an SQL condition. Knows the tables `records` and `search`; runs nothing."""

from __future__ import annotations

import re

# Scripts written without spaces between words: the index knows no words in them.
# Thai to Tibetan, Myanmar, Khmer, kana, and the CJK ideographs with their extensions.
# A text, not compiled: that takes 2 ms, and every `infer run` imports this.
_NO_SPACES = (
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def condition(query: str, *, indexed: bool) -> tuple[str, list[str]]:
    """SQL and its parameters: records whose prompt or reply has every word of `query`.

    With an index a word of letters and digits is found at the beginning of words, whatever its case and
    accents. Anything else, and every word without an index, is found anywhere, whatever the case of ASCII.
    """
    words = query.split()
    in_index = [word for word in words if indexed and _is_word(word)]
    clauses, values = [], []
    if in_index:
        # Quoted: no word is an operator of the index. `*`: what it may go on with.
        clauses.append("seq IN (SELECT rowid FROM search WHERE search MATCH ?)")
        values.append(" ".join(f'"{word}"*' for word in in_index))
    for word in words:
        if word not in in_index:
            clauses.append("(prompt LIKE ? ESCAPE '\\' OR text LIKE ? ESCAPE '\\')")
            values += ["%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"] * 2
    return " AND ".join(clauses) or "1", values


def _is_word(word: str) -> bool:
    return word.isalnum() and not re.search(_NO_SPACES, word)
