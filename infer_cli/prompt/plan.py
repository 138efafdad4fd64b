"""From the parts of a prompt to token ids that fit the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from infer_cli.errors import UsageError
from infer_cli.prompt.budget import Budget, budget_of
from infer_cli.prompt.encode import EncodedPrompt, encode_prompt, encode_raw, tag_tokens
from infer_cli.prompt.fitting import Fitted, Policy, fit_encoded, needed_window
from infer_cli.prompt.input import PromptInput
from infer_cli.settings.defaults import FIT_RESERVE
from infer_cli.text.reasoning import ReasoningTags, pairs_of
from infer_cli.types import Message

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.prompt.attachments import Attachment
    from infer_cli.prompt.template import ChatTemplate


class PromptEncoder(NamedTuple):
    """What makes token ids of an input. `template` None: its text is completed; `parse_special`: control
    tokens are read in it. `deadline_s`: seconds that the renderings of one prompt may take, all together."""

    vocab: Vocab
    template: ChatTemplate | None
    variables: Mapping[str, object]
    parse_special: bool = False
    deadline_s: float | None = None

    def begin(self) -> PromptEncoder:
        """The same encoder for one prompt, whose deadline counts from now."""
        if self.template is None:
            return self
        return self._replace(template=self.template.within(self.deadline_s))

    def encode(
        self, given: PromptInput, messages: Sequence[Message], attachments: Sequence[Attachment]
    ) -> EncodedPrompt:
        """The prompt of an input of which these messages and attachments are kept. Raises InferError."""
        if self.template is None:
            text = given.text(attachments)
            ids = encode_raw(text, self.vocab, parse_special=self.parse_special)
            return EncodedPrompt(ids, text, None)
        conversation = given.conversation(messages, attachments)
        return encode_prompt(
            self.template, conversation, self.vocab, variables=self.variables, tools=given.tools
        )


class PromptPlan(NamedTuple):
    """A prompt that was encoded and made to fit. `messages` is what was asked, None for a text to complete;
    `window` and `reserve`, what is kept for the reply, are tokens."""

    given: PromptInput
    encoder: PromptEncoder
    encoded: EncodedPrompt
    fitted: Fitted
    messages: tuple[Message, ...] | None
    window: int
    reserve: int

    @property
    def ids(self) -> tuple[int, ...]:
        return self.encoded.ids

    @property
    def template_sha256(self) -> str | None:
        template = self.encoder.template
        return None if template is None else template.sha256

    @property
    def reasoning(self) -> ReasoningTags:
        """The tags that a reply's reasoning may stand between."""
        template = self.encoder.template
        pairs = () if template is None else pairs_of(template.source)
        tokens = tag_tokens(self.encoder.vocab, pairs) if pairs else {}
        return ReasoningTags(pairs, self.encoded.open_reasoning, tokens)

    def budget(self) -> Budget:
        """What fills the window."""
        vocab = self.encoder.vocab
        parts = self.given.parts(
            self.fitted.messages,
            self.fitted.attachments,
            lambda text: len(vocab.tokenize(text.encode())),
        )
        rest = "separators" if self.given.raw else "chat template"
        return budget_of(len(self.ids), parts, window=self.window, reserve=self.reserve, rest=rest)

    def needed_window(self, max_tokens: int, n_ctx_train: int) -> int:
        """Tokens that prompt and reply will fill. Raises UsageError for no prompt, ContextOverflow."""
        check_not_empty(self.ids)
        return needed_window(len(self.ids), max_tokens, self.window, n_ctx_train)

    def ids_of_another_question(self) -> tuple[int, ...]:
        """The prompt, had something else been asked about its files. Raises InferError."""
        other = self.given._replace(words=() if self.given.words else ("?",))
        encoder = self.encoder.begin()
        return encoder.encode(other, self.fitted.messages, self.fitted.attachments).ids


def plan_prompt(
    given: PromptInput, encoder: PromptEncoder, *, window: int, max_tokens: int, policy: Policy
) -> PromptPlan:
    """Encode an input, without what does not fit a window of so many tokens with a reply.

    Raises ContextOverflow where what may not be dropped does not fit, and what a template fails with.
    """
    reserve = min(max_tokens, FIT_RESERVE)
    limited = encoder.begin()

    def encode(messages: Sequence[Message], attachments: Sequence[Attachment]) -> EncodedPrompt:
        return limited.encode(given, messages, attachments)

    encoded, fitted = fit_encoded(
        given.messages,
        given.attachments,
        encode,
        window=window,
        reserve=reserve,
        policy=policy,
        answers_last=not given.has_text,
    )
    asked = None if given.raw else tuple(given.conversation(fitted.messages, fitted.attachments))
    return PromptPlan(given, encoder, encoded, fitted, asked, window, reserve)


def check_not_empty(prompt_ids: Sequence[int]) -> None:
    """Raises UsageError for a prompt without tokens."""
    if not prompt_ids:
        raise UsageError("the prompt is empty", "give it as an argument, with -f FILE, or on stdin")
