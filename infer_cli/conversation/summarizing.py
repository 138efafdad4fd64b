"""What a model is asked for where a conversation is to be summarized, and how its summary stands in prompts.

A summary is the model's own text, so it gets no more authority than a user's message: it stands at the
beginning of the first one that is left. That suits every template: none has to know a system message, or to
allow two messages of the user in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_TOKENS = 256
_WORDS_A_TOKEN = 0.5

_REQUEST = """\
Here is the beginning of a conversation.

{texts}

Summarize it in at most {n_words} words, in the language of the conversation. Keep names, numbers, decisions \
and open questions. Write the summary and nothing else."""
_IN_FRONT = """\
[Summary of the conversation before this]
{summary}
[End of the summary]

{message}"""


def budget(window: int) -> int:
    """Most tokens of a summary in a window."""
    return min(MOST_TOKENS, window // 8)


def request(earlier: str | None, turns: Sequence[tuple[str, str]], n_tokens: int) -> str:
    """The message that asks for a summary of `turns`, (message, reply) each, in at most `n_tokens`.

    `earlier`: the summary of what came before them.
    """
    texts = [] if earlier is None else [f"[Summary of what came before]\n{earlier}"]
    for message, reply in turns:
        texts += [f"[User]\n{message}", f"[Assistant]\n{reply}"]
    n_words = max(int(n_tokens * _WORDS_A_TOKEN), 1)
    return _REQUEST.format(texts="\n\n".join(texts), n_words=n_words)


def in_front_of(message: str, summary: str) -> str:
    """A message of the user that begins with a summary."""
    return _IN_FRONT.format(summary=summary, message=message)
