"""From a row to what a likelihood is asked of: its context and continuation as tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_cli.answering.likelihood import ScoredPair
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.kind import Lines, Origin
from infer_cli.batch.late_template import LateTemplate
from infer_cli.batch.pairs import PairLines, PairPolicy, PreparedPair
from infer_cli.batch.rows import Row, RowRequest
from infer_cli.errors import UsageError
from infer_cli.prompt.encode import encode_prompt
from infer_cli.prompt.messages import build_messages, messages_from
from infer_cli.prompt.pairs import Pair, encode_after, encode_pair, fit_pair
from infer_cli.settings.origins import Setting

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.template import ChatTemplate

_CONTINUATION = "continuation"


@dataclass(frozen=True)
class PairDefaults:
    """What holds for all rows. `variables` are the chat template's."""

    variables: Mapping[str, object] | None = None
    overflow: PairPolicy = "error"


class PairPreparer:
    """`load_template` is called with the first row that has messages. `window`: tokens that a row may
    fill."""

    params: Mapping[str, object] = {}
    settings: tuple[Setting, ...] = ()
    is_sampling = False
    run_seed: int | None = None

    def __init__(
        self,
        defaults: PairDefaults,
        vocab: Vocab,
        load_template: Callable[[], ChatTemplate],
        window: int,
    ) -> None:
        self._defaults, self._vocab, self._window = defaults, vocab, window
        self._template = LateTemplate(load_template)

    def lines(self, origin: Origin, form: OutputFormat) -> Lines[ScoredPair]:
        return PairLines(origin)

    def prepare(self, row: Row) -> PreparedPair:
        """Raises an InferError that says why this row can't be scored; NoTemplate for all like it."""
        asked = row.asked
        if asked is None:
            raise UsageError(row.error)
        for name in asked.values:
            if name != _CONTINUATION:
                raise UsageError(f"unknown key {name!r}")
        if _CONTINUATION not in asked.values:
            raise UsageError("a row has a continuation")
        text = _text(asked.values[_CONTINUATION], _CONTINUATION)
        overflow = self._defaults.overflow
        pair = fit_pair(self._encoded(asked, text), self._window, overflow == "truncate-left")
        return PreparedPair(row, pair, text, overflow)

    def _encoded(self, asked: RowRequest, continuation: str) -> Pair:
        if asked.messages is None:
            return encode_pair(self._vocab, _text(asked.prompt, "context"), continuation)
        messages = build_messages(None, history=messages_from(asked.messages))
        prompt = encode_prompt(
            self._template.get(), messages, self._vocab, variables=self._defaults.variables
        )
        return encode_after(self._vocab, prompt, continuation)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} must be a string")
    return value
