"""What a run asks of the engine: a job over the requests in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infer_cli.batch.job import Shard
from infer_cli.batch.pairs_request import PairsRequest
from infer_cli.batch.request import BatchRequest, JobRequest
from infer_cli.batch.rows import PAIRS, PROMPTS, Input
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import GenerationFacts, RunFacts
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.source import ItemSource
from infer_cli.settings.defaults import MAX_TOKENS
from infer_cli.settings.origins import Given
from infer_cli.types import TEMPLATE_DECIDES, ThinkingParams

if TYPE_CHECKING:
    from infer_cli.runtime.options import EngineOptions

DEFAULT_SEED = 0  # of a sampled run, so that the same command line has the same score
_OF_TASK = "task"


@dataclass(frozen=True)
class Asking:
    """How answers are made, as the command line says it; None: as the task says."""

    engine: EngineOptions
    parallel: int | None = None
    shard: Shard = field(default_factory=Shard)
    redo: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    sampling: Mapping[str, Given] = field(default_factory=dict)
    seed: int | None = None
    n_samples: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    deadline_s: float | None = None
    system: str | None = None
    thinking: ThinkingParams = TEMPLATE_DECIDES


def check_asking(source: ItemSource, asking: Asking) -> None:
    """Raises UsageError for several replies that would all be the same."""
    if source.task.kind != "generate":
        return
    temperature = _sampling(source.generation, asking).get("temperature")
    if temperature is not None and str(temperature.value) not in ("0", "0.0"):
        return
    for flag, is_given in (
        ("--samples", asking.n_samples > 1),
        ("--seeds", len(source.selection.seeds) > 1),
    ):
        if is_given:
            raise UsageError(f"{flag} needs a temperature: greedy replies are all the same", "add -t")


def job_request(folder: RunFolder, facts: RunFacts, asking: Asking) -> JobRequest:
    """Over the requests in the folder."""
    name = str(folder.requests)
    if facts.task.kind != "generate":
        return PairsRequest(
            input=Input(name, "jsonl", shape=PAIRS),
            engine=asking.engine,
            shard=asking.shard,
            redo=asking.redo,
            variables=asking.variables,
            chat_template=asking.chat_template,
            deadline_s=asking.deadline_s,
        )
    made = facts.generation
    return BatchRequest(
        input=Input(name, "jsonl", shape=PROMPTS),
        engine=asking.engine,
        parallel=asking.parallel,
        shard=asking.shard,
        redo=asking.redo,
        variables=asking.variables,
        chat_template=asking.chat_template,
        sampling=_sampling(made, asking),
        seed=DEFAULT_SEED if asking.seed is None else asking.seed,
        n_samples=asking.n_samples,
        deadline_s=asking.deadline_s,
        system=asking.system,
        raw=not facts.selection.chat,
        max_tokens=asking.max_tokens or made.max_tokens or MAX_TOKENS,
        stop=asking.stop or made.stop,
        thinking=asking.thinking if facts.selection.chat else TEMPLATE_DECIDES,
    )


def _sampling(made: GenerationFacts, asking: Asking) -> Mapping[str, Given]:
    return {**{key: Given(value, _OF_TASK) for key, value in made.sampling.items()}, **asking.sampling}
