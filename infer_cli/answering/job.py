"""What is asked: a prompt as ids, how to answer it, how many times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infer_cli.settings.sampling import SamplingChoice, effective_params
from infer_cli.settings.seeds import sample_seed
from infer_cli.system.ids import new_id
from infer_cli.text.reasoning import ReasoningTags, TagPair
from infer_cli.types import EngineRequest, ReasoningBudget, SamplingParams, Segment, ThinkingParams


@dataclass(frozen=True)
class Job:
    """What is asked: a prompt, how to answer it, how many times."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    params: Mapping[str, object]
    max_tokens: int
    run_seed: int | None
    n_samples: int = 1
    stop: tuple[str, ...] = ()
    n_logprobs: int | None = None
    deadline_s: float | None = None
    reasoning_pairs: tuple[TagPair, ...] = ()
    open_reasoning: TagPair | None = None
    tag_tokens: Mapping[int, bytes] = field(default_factory=dict)
    history: tuple[Segment, ...] = ()
    session: str | None = None
    truncation: dict[str, object] | None = None  # what was cut from the prompt
    budget: ReasoningBudget | None = None

    def seed(self, sample: int) -> int | None:
        return None if self.run_seed is None else sample_seed(self.run_seed, sample)

    def reply_id(self, sample: int) -> str:
        return self.id if self.n_samples == 1 else f"{self.id}-{sample}"

    def request(self, sample: int, request_id: str, *, streams: bool = True) -> EngineRequest:
        """What the engine is asked for one sample, under an id that the engine does not have yet."""
        return EngineRequest(
            request_id,
            self.prompt_ids,
            self.sampling,
            self.max_tokens,
            self.seed(sample),
            tuple(text.encode() for text in self.stop),
            self.n_logprobs,
            self.deadline_s,
            self.tag_tokens,
            self.history,
            self.session,
            streams=streams,
            reasoning=self.budget,
        )


def make_job(
    prompt_ids: tuple[int, ...],
    sampling: SamplingChoice,
    reasoning: ReasoningTags,
    *,
    max_tokens: int,
    n_samples: int = 1,
    stop: tuple[str, ...] = (),
    n_logprobs: int | None = None,
    deadline_s: float | None = None,
    history: tuple[Segment, ...] = (),
    session: str | None = None,
    truncation: dict[str, object] | None = None,
    think: bool | None = None,
    budget: ReasoningBudget | None = None,
) -> Job:
    """A new job. `deadline_s` is seconds from when it is handed in; `history` was evaluated before; `think`:
    what the prompt was made with."""
    return Job(
        id=new_id(),
        prompt_ids=prompt_ids,
        sampling=sampling.params,
        params=effective_params(sampling.params, max_tokens, stop, ThinkingParams(think).with_budget(budget)),
        max_tokens=max_tokens,
        run_seed=sampling.run_seed,
        n_samples=n_samples,
        stop=stop,
        n_logprobs=n_logprobs,
        deadline_s=deadline_s,
        reasoning_pairs=reasoning.pairs,
        open_reasoning=reasoning.opened,
        tag_tokens=reasoning.tokens,
        history=history,
        session=session,
        truncation=truncation,
        budget=budget,
    )
