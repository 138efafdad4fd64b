"""What a job of likelihoods is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_cli.batch.engine_choice import EngineChoice, MeasureWidths
from infer_cli.batch.job import LEAST_WINDOW, JobFile, Kind
from infer_cli.batch.kind import RowPreparer
from infer_cli.batch.neighbours import OF_LIKELIHOODS, LookAhead
from infer_cli.batch.pair_preparing import PairDefaults, PairPreparer
from infer_cli.batch.pair_tally import PairTally
from infer_cli.batch.pairs import PairPolicy
from infer_cli.batch.request import JobRequest
from infer_cli.prompt.template import template_variables

if TYPE_CHECKING:
    from infer_cli.batch.scanned import Scan
    from infer_cli.runtime.model_protocols import LoadedModel
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session


@dataclass(frozen=True)
class PairsRequest(JobRequest):
    """Likelihoods of rows: of continuations after their contexts. How many are evaluated together is the
    engine's matter; where a mode fixes the shape it is one."""

    parallel: int | None = 1
    overflow: PairPolicy = "error"

    @property
    def kind(self) -> Kind:
        return "likelihoods"

    @property
    def answer_name(self) -> str:
        return "pair"

    @property
    def ahead(self) -> LookAhead:
        return OF_LIKELIHOODS

    def make_preparer(self, session: Session, run_seed: int) -> PairPreparer:
        loaded = session.loaded
        return PairPreparer(
            PairDefaults(template_variables(self.variables), self.overflow),
            loaded.vocab,
            lambda: session.chat_template(self.chat_template),
            loaded.window,
        )

    def choose_engine(
        self, begun: JobFile | None, scanned: Scan, loaded: LoadedModel, measure: MeasureWidths
    ) -> EngineChoice:
        policy = loaded.policy
        return EngineChoice(policy, policy.width, max(scanned.n_score_window, LEAST_WINDOW))

    def start(self, session: Session, choice: EngineChoice, scanned: Scan) -> RunningEngine:
        return session.start_scoring(choice.window, choice.policy)

    def new_tally(self, scanned: Scan, width: int) -> PairTally:
        return PairTally(scanned.n_mine, scanned.n_replies, width)

    def job_params(self, preparer: RowPreparer[Any]) -> dict[str, object]:
        return {**self.input_params(), "overflow": self.overflow}

    def counted(self, scanned: Scan) -> dict[str, float]:
        return {
            "rows": scanned.n_mine,
            "pairs": scanned.n_replies,
            "tokens": scanned.n_prompt_tokens,
            "window": scanned.n_score_window,
            **scanned.failing(),
            "truncated": scanned.n_truncated,
        }
