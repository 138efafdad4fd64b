"""The page about the words of other programs says what `foreign_words.py` does."""

from __future__ import annotations

from infer_cli.cli import foreign_words
from tests.project.test_docs import quoted, read, rows

PAGE = "docs/coming-from.md"


def test_the_page_has_every_word() -> None:
    shown: dict[str, str] = {}
    for cells in rows(PAGE):
        if len(cells) == 2:
            for word in quoted(cells[0]):
                assert word not in shown, word
                shown[word] = cells[1]
    table = {f"infer {word}": f"`infer {' '.join(ours)}`" for word, ours in foreign_words.COMMANDS.items()}
    table |= {word: f"`{ours}`" for word, ours in foreign_words.FLAGS.items()}
    table |= {f"/{word}": f"`/{ours}`" for word, ours in foreign_words.CHAT_COMMANDS.items()}
    table |= {f"infer {word}": hint for word, hint in foreign_words.OTHER_COMMANDS.items()}
    table |= foreign_words.OTHER_FLAGS
    table |= {f"/{word}": hint for word, hint in foreign_words.OTHER_CHAT_COMMANDS.items()}
    assert shown == table
    text = read(PAGE)
    for word in (*foreign_words.SYSTEM_FILES, *foreign_words.PROMPTS, *foreign_words.LEAVING):
        assert f"`{word}`" in text
