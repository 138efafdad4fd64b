"""What a batch is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infer_cli.batch.job import OUTPUT_FORMATS, JobFile, OutputFormat, Shard
from infer_cli.batch.preparing import Defaults, Preparer
from infer_cli.batch.rows import Input
from infer_cli.prompt.fitting import Policy
from infer_cli.prompt.template import template_variables
from infer_cli.settings.defaults import MAX_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.settings.seeds import draw_seed
from infer_cli.system.files import read_bytes
from infer_cli.system.hashing import sha256_hex

if TYPE_CHECKING:
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.runtime.session import Session


@dataclass(frozen=True)
class BatchRequest:
    """Rows, what holds for those that say nothing else, and what the output and the engine are to be.

    `parallel` None: as many replies side by side as is best. `seed` None: the one that the job has, or one
    that is drawn; `seed_is_for_this`: it was given for this batch, and must have a meaning. `chat_template`
    is a file. `redo`: what another job, or another row, has answered is answered again.
    """

    input: Input
    engine: EngineOptions
    parallel: int | None = None
    shard: Shard = field(default_factory=Shard)
    output_format: OutputFormat = OUTPUT_FORMATS[0]
    ordered: bool = False
    redo: bool = False
    system: str | None = None
    raw: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    overflow: Policy = "error"
    sampling: Mapping[str, Given] = field(default_factory=dict)
    seed: int | None = None
    seed_is_for_this: bool = False
    n_samples: int = 1
    max_tokens: int = MAX_TOKENS
    stop: tuple[str, ...] = ()
    n_logprobs: int | None = None
    deadline_s: float | None = None

    def choose_seed(self, begun: JobFile | None) -> int:
        """The seed of all rows; `begun` is the job that goes on."""
        if self.seed is not None:
            return self.seed
        return draw_seed() if begun is None or begun.run_seed is None else begun.run_seed

    def make_preparer(self, session: Session, run_seed: int) -> Preparer:
        """What makes of a row what the engine takes. Raises UsageError for parameters without a meaning."""
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
        )
        return Preparer(
            defaults,
            loaded.vocab,
            lambda: session.chat_template(self.chat_template),
            loaded.window,
            loaded.n_ctx_train,
        )

    def job_params(self, preparer: Preparer) -> dict[str, object]:
        """All that decides a reply beside the rows, the engine and the seed, as a job's file has it."""
        rows, template = self.input, self.chat_template
        return {
            **preparer.params,
            "stop": list(self.stop),
            "system": self.system,
            "samples": self.n_samples,
            "logprobs": self.n_logprobs,
            "raw": self.raw,
            "format": rows.format,
            "row_template": None if rows.template is None else rows.template.text,
            "chat_template": None if template is None else sha256_hex(read_bytes(template)),
            "variables": dict(self.variables),
            "overflow": self.overflow,
        }
