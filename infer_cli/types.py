"""The values that pass between layers. Frozen, no behaviour beyond small derived facts, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict

from infer_cli.errors import ExitStatus

FinishReason = Literal[
    "stop",  # the model's end token
    "stop_string",  # one of the user's stop strings
    "length",  # the user's token limit
    "context",  # the window is full
    "deadline",
    "cancelled",
    "repetition",
    "error",
]
Mode = Literal["fast", "canonical", "invariant"]
Promise = Literal["canonical", "invariant", "seed-only"]

MAX_SEED = 2**32 - 2  # 2**32-1 means "random" to llama.cpp (LLAMA_DEFAULT_SEED)


@dataclass(frozen=True)
class SamplingParams:
    """How one token is chosen from the logits. Defaults are llama.cpp's (`common_params_sampling`).

    `temperature` 0 is greedy: the highest logit, lowest id on ties.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1

    @property
    def greedy(self) -> bool:
        return self.temperature <= 0.0

    @property
    def penalized(self) -> bool:
        """Whether earlier tokens change the logits."""
        return (
            self.repeat_penalty != 1.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
            or self.dry_multiplier != 0.0
        )


class ThinkingParams(NamedTuple):
    """Whether a model is to think before it answers, None: as its chat template has it; and how many tokens
    of reasoning it may write, None: as many as the reply."""

    think: bool | None = None
    budget: int | None = None

    def with_budget(self, used: ReasoningBudget | None) -> ThinkingParams:
        """The same with the budget that is used."""
        return self._replace(budget=None if used is None else used.n_tokens)


TEMPLATE_DECIDES = ThinkingParams()


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, as chat templates know it. Content is None only beside tool calls."""

    role: str
    content: str | None
    # Anything else that the template may read: name, tool_calls, tool_call_id, reasoning_content.
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The content, nothing for null."""
        return self.content or ""


class Segment(NamedTuple):
    """A part of what a sequence has evaluated: a prompt, in chunks counted from its start, or sampled tokens,
    one decode call each. The same ids under another kind may give other KV bits."""

    kind: Literal["prompt", "decoded"]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class ReasoningBudget:
    """After `n_tokens` of reasoning its closing tag comes next, as if the model had chosen those tokens.

    `pairs` are the (opening, closing) tags that reasoning may stand between, `opened` the one that the prompt
    left open, `closing` the ids of each closing tag.
    """

    n_tokens: int
    pairs: tuple[tuple[str, str], ...]
    opened: tuple[str, str] | None
    closing: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EngineRequest:
    """One reply to be computed. `history` and `prompt_ids` are final: the engine never changes them.

    `history` is what came before, as it was evaluated; `prompt_ids` is this turn's own prompt, empty
    only where the history ends with decoded tokens: then the reply goes on after them.
    `session`: what this request has evaluated stays in memory, for the session's next request.
    """

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    seed: int | None = None  # None for greedy
    stop: tuple[bytes, ...] = ()
    n_logprobs: int | None = None  # None: none; 0: the chosen token only; N: and the N likeliest
    deadline_s: float | None = None  # seconds from submission
    # Control tokens that stand for text all the same: a thinking model's tags.
    shown_tokens: Mapping[int, bytes] = field(default_factory=dict)
    history: tuple[Segment, ...] = ()
    session: str | None = None
    streams: bool = True  # tokens are told as they come, not only all at the end
    reasoning: ReasoningBudget | None = None  # None: it may be as long as the reply


@dataclass(frozen=True)
class ScoreRequest:
    """How likely the model finds `ids[first:]`, each token after all those before it: no reply is written.

    `first` is at least 1. The last token is not evaluated.
    """

    id: str
    ids: tuple[int, ...]
    first: int
    deadline_s: float | None = None  # seconds from submission


class Likelihood(NamedTuple):
    """Natural-log probabilities of the tokens that a `ScoreRequest` asks for, before sampling parameters.

    `greedy`: each of them is the one that greedy decoding would have chosen.
    """

    token_logprobs: tuple[float, ...]
    greedy: bool

    @property
    def logprob(self) -> float:
        """Of all the tokens together: their sum, rounded once."""
        return math.fsum(self.token_logprobs)


class ChoiceScore(NamedTuple):
    """One of the answers that a question allows: how likely the model finds it.

    `tokens` are its ids as they follow the prompt, `logprob` is their natural-log probability. `probability`
    is its share among the choices, which sum to 1.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    probability: float

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_bytes(self) -> int:
        """Of the text in UTF-8."""
        return len(self.text.encode())

    @property
    def logprob_per_token(self) -> float:
        return self.logprob / self.n_tokens

    @property
    def logprob_per_byte(self) -> float:
        return self.logprob / self.n_bytes


class TokenLogprobs(NamedTuple):
    """Natural-log probabilities of the model's raw distribution (before sampling parameters)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token, logprob), likeliest first


class Usage(NamedTuple):
    """`prompt_tokens` counts all tokens before the reply, `cached_tokens` those not evaluated anew."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Timings(NamedTuple):
    """Seconds. `ttft_s` and `total_s` start at submission to a loaded engine."""

    load_s: float
    queue_s: float
    ttft_s: float | None
    total_s: float
    prefill_tps: float | None
    decode_tps: float | None


# --- events of the engine, in order per request: Prefilled*, Token* (if it streams), Finished (one) -------


class Prefilled(NamedTuple):
    """`done` of `total` prompt tokens are evaluated."""

    request_id: str
    done: int
    total: int


class Token(NamedTuple):
    """A token was chosen. `text` is what can be shown now: bytes held back for a possible stop
    string or released by this token included, so it may be empty or longer than the token's own piece."""

    request_id: str
    token: int
    text: bytes
    logprobs: TokenLogprobs | None = None


class Finished(NamedTuple):
    """The only terminal event of a request. `tail` is text that had been held back.

    `error` says why the reason is "error", `error_status` whose fault it is.
    """

    request_id: str
    reason: FinishReason
    tail: bytes
    tokens: tuple[int, ...]
    text: bytes
    logprobs: tuple[TokenLogprobs, ...] | None
    usage: Usage
    timings: Timings
    error: str | None = None
    error_status: ExitStatus = ExitStatus.UNEXPECTED
    likelihood: Likelihood | None = None  # of a `ScoreRequest` that succeeded


Event = Prefilled | Token | Finished


# --- what a sink sees -----------------------------------------------------------------------------


class Delta(NamedTuple):
    """Text ready to be shown: whole characters only."""

    sample: int
    text: str
    reasoning: bool = False
    tokens: tuple[int, ...] = ()  # those whose text this is; none where it is released without a new token
    logprobs: TokenLogprobs | None = None


class ModelIdentity(NamedTuple):
    """`sha256` is of the model's file; None for the fake."""

    name: str | None
    sha256: str | None


class EngineIdentity(NamedTuple):
    """Versions, and the hash over all `facts` that may change a reply's bytes."""

    infer: str | None
    llama_cpp: str | None
    fingerprint: str | None
    facts: Mapping[str, object]


class Provenance(NamedTuple):
    """What a reply came from. `probed`: a probe has found that the promise holds for both."""

    model: ModelIdentity
    engine: EngineIdentity
    probed: bool


class ReplyError(TypedDict):
    """Why a reply failed: an exit code, and one line."""

    code: int
    message: str | None


@dataclass(frozen=True)
class Reply:
    """One finished reply. `as_json()` in `infer_cli.answering.reply` gives its public form.

    `choices` is there where the answer was to be one of several texts: `text` is the likeliest of them.
    """

    id: str
    custom_id: str | None
    sample: int
    text: str | None
    reasoning: str | None
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: FinishReason
    digest: str
    usage: Usage
    timings: Timings
    run_seed: int | None
    seed: int | None
    mode: Mode
    promise: Promise
    probed: bool
    params: dict[str, object]
    model: ModelIdentity
    engine: EngineIdentity
    truncation: dict[str, object] | None = None
    error: ReplyError | None = None
    choices: tuple[ChoiceScore, ...] | None = None
    reasoning_cut: bool = False  # ended before its reasoning did, by a limit or from outside
