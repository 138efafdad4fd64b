"""What a job over the rows of a file is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infer_cli.batch.engine_choice import EngineChoice, MeasureWidths, choose_engine
from infer_cli.batch.job import OUTPUT_FORMATS, JobFile, Kind, OutputFormat, Shard
from infer_cli.batch.kind import RowPreparer
from infer_cli.batch.neighbours import OF_LIKELIHOODS, OF_REPLIES, LookAhead
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.batch.rows import Input
from infer_cli.batch.summary import ReplyTally, Tally
from infer_cli.prompt.fitting import Policy
from infer_cli.prompt.template import template_variables
from infer_cli.settings.defaults import MAX_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.settings.seeds import draw_seed
from infer_cli.system.files import read_bytes
from infer_cli.system.hashing import sha256_hex
from infer_cli.types import TEMPLATE_DECIDES, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.batch.scanned import Scan
    from infer_cli.runtime.model_protocols import LoadedModel
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session


@dataclass(frozen=True)
class JobRequest(ABC):
    """Rows, and what the output and the engine are to be. What a row is asked is the kind's.

    `parallel` None: as many answers side by side as is best. `chat_template` is a file. `redo`: what another
    job, or another row, has answered is answered again. `seed` None: the one that the job has, or one that is
    drawn; `seed_is_for_this`: it was given for this job, and must have a meaning.
    """

    input: Input
    engine: EngineOptions
    parallel: int | None = None
    shard: Shard = field(default_factory=Shard)
    output_format: OutputFormat = OUTPUT_FORMATS[0]
    ordered: bool = False
    redo: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    sampling: Mapping[str, Given] = field(default_factory=dict)
    seed: int | None = None
    seed_is_for_this: bool = False
    n_samples: int = 1
    deadline_s: float | None = None

    @property
    @abstractmethod
    def kind(self) -> Kind: ...

    @property
    @abstractmethod
    def answer_name(self) -> str:
        """What a row gets."""

    def choose_seed(self, begun: JobFile | None) -> int:
        """The seed of all rows; `begun` is the job that goes on."""
        if self.seed is not None:
            return self.seed
        return draw_seed() if begun is None or begun.run_seed is None else begun.run_seed

    @abstractmethod
    def make_preparer(self, session: Session, run_seed: int) -> RowPreparer[Any]:
        """What makes of a row what the engine takes. Raises UsageError for parameters without a meaning."""

    @abstractmethod
    def choose_engine(
        self, begun: JobFile | None, scanned: Scan, loaded: LoadedModel, measure: MeasureWidths
    ) -> EngineChoice:
        """The engine for the rows that are left."""

    @abstractmethod
    def start(self, session: Session, choice: EngineChoice, scanned: Scan) -> RunningEngine:
        """Raises OutOfMemory."""

    @property
    @abstractmethod
    def ahead(self) -> LookAhead: ...

    @abstractmethod
    def new_tally(self, scanned: Scan, width: int) -> Tally: ...

    @abstractmethod
    def job_params(self, preparer: RowPreparer[Any]) -> dict[str, object]:
        """All that decides an answer beside the rows, the engine and the seed, as a job's file has it."""

    @abstractmethod
    def counted(self, scanned: Scan) -> dict[str, float]:
        """What `--dry-run` says of the rows."""

    def input_params(self) -> dict[str, object]:
        """What of it says how rows become prompts."""
        rows, template = self.input, self.chat_template
        return {
            "format": rows.format,
            "row_template": None if rows.template is None else rows.template.text,
            "chat_template": None if template is None else sha256_hex(read_bytes(template)),
            "variables": dict(self.variables),
        }


@dataclass(frozen=True)
class BatchRequest(JobRequest):
    """Replies to rows, and what holds for those that say nothing else. `choices`: the answers that are
    allowed; empty: any."""

    system: str | None = None
    raw: bool = False
    overflow: Policy = "error"
    max_tokens: int = MAX_TOKENS
    stop: tuple[str, ...] = ()
    n_logprobs: int | None = None
    choices: tuple[str, ...] = ()
    thinking: ThinkingParams = TEMPLATE_DECIDES

    @property
    def kind(self) -> Kind:
        return "replies"

    @property
    def answer_name(self) -> str:
        return "reply"

    def make_preparer(self, session: Session, run_seed: int) -> Preparer:
        loaded, recommended = session.loaded, session.recommended
        defaults = Defaults(
            sampling=self.sampling,
            entry=recommended.entry,
            recommended=recommended.file,
            run_seed=run_seed,
            max_tokens=self.max_tokens,
            stop=self.stop,
            system=self.system,
            n_samples=self.n_samples,
            n_logprobs=self.n_logprobs,
            deadline_s=self.deadline_s,
            raw=self.raw,
            variables=template_variables(self.variables),
            overflow=self.overflow,
            choices=self.choices,
            thinking=self.thinking,
        )
        return Preparer(
            defaults,
            loaded.vocab,
            lambda: session.chat_template(self.chat_template),
            loaded.window,
            loaded.n_ctx_train,
        )

    def choose_engine(
        self, begun: JobFile | None, scanned: Scan, loaded: LoadedModel, measure: MeasureWidths
    ) -> EngineChoice:
        return choose_engine(self, begun, scanned, loaded, measure)

    @property
    def ahead(self) -> LookAhead:
        return OF_LIKELIHOODS if self.choices else OF_REPLIES

    def start(self, session: Session, choice: EngineChoice, scanned: Scan) -> RunningEngine:
        """Slots are for rows without choices, and where no row is left."""
        n_ctx_seq = choice.window if scanned.n_window or not scanned.n_score_window else 0
        return session.start(n_ctx_seq, choice.policy, score_window=scanned.n_score_window)

    def new_tally(self, scanned: Scan, width: int) -> ReplyTally:
        return ReplyTally(scanned.n_mine, scanned.n_replies, width)

    def job_params(self, preparer: RowPreparer[Any]) -> dict[str, object]:
        return {
            **preparer.params,
            "stop": list(self.stop),
            "system": self.system,
            "samples": self.n_samples,
            "logprobs": self.n_logprobs,
            "raw": self.raw,
            **self.input_params(),
            "overflow": self.overflow,
            **({"choices": list(self.choices)} if self.choices else {}),
        }

    def counted(self, scanned: Scan) -> dict[str, float]:
        return {
            "rows": scanned.n_mine,
            "replies": scanned.n_replies,
            "prompt_tokens": scanned.n_prompt_tokens,
            "distinct_prompt_tokens": scanned.n_distinct_tokens,
            "window": scanned.n_window,
            **scanned.failing(),
            "truncated": scanned.n_truncated,
            "reply_tokens": scanned.n_reply_tokens,
        }
