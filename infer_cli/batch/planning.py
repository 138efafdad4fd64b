"""From what is asked for to a batch that may begin: the model loaded, the rows read, the engine chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from infer_cli.batch.engine_choice import EngineChoice, LoadPlan, may_try_f16, plan_load
from infer_cli.batch.job import JobEngine, JobFile
from infer_cli.batch.kind import RowPreparer
from infer_cli.batch.measuring import Candidate, try_f16
from infer_cli.batch.request import JobRequest
from infer_cli.batch.scan import scan
from infer_cli.batch.scanned import Scan
from infer_cli.errors import InferError, UsageError
from infer_cli.runtime.calibration import rates_by_width
from infer_cli.runtime.session import Session
from infer_cli.system.ids import new_id

if TYPE_CHECKING:
    from infer_cli.batch.target import JobSoFar, Target
    from infer_cli.types import Provenance

# Opens a session and waits until its model is loaded.
Load = Callable[[LoadPlan], Session]


class Listener(Protocol):
    """Is told what goes on before the first reply."""

    def status(self, text: str, /) -> None:
        """What is being waited for."""

    def clear(self) -> None:
        """It is waited for no more."""

    def note(self, message: str, /) -> None:
        """Something that was chosen, and why."""

    def warn(self, message: str, /) -> None:
        """Something that could not be had."""


class BatchPlan(NamedTuple):
    """A batch that may begin. `begun` is the job that goes on; None: it is a new one."""

    begun: JobFile | None
    session: Session
    preparer: RowPreparer[Any]
    scanned: Scan
    choice: EngineChoice


def plan_batch(
    request: JobRequest, target: Target | None, so_far: JobSoFar, load: Load, listener: Listener
) -> BatchPlan:
    """Load, read all rows, choose the engine. `target` None: nothing will be answered, only counted, and rows
    that can't be answered are told.

    Raises UsageError for a request that can't be met, or not with what the target holds; what `load` raises.
    """
    begun = so_far.job
    load_plan = plan_load(request, begun)
    session = load(load_plan)
    preparer = request.make_preparer(session, request.choose_seed(begun))
    scanned = _scan(request, target is None, so_far, session, preparer, listener)
    if target is not None:
        check_seed(request, begun, scanned)
        target.check_rows(scanned.changed, redo=request.redo)

    def choose(session: Session) -> EngineChoice:
        return _choose_engine(request, begun, scanned, session, listener)

    chosen = Candidate(session, choose(session))
    if may_try_f16(request, begun, scanned, session.loaded):
        chosen = _with_quicker_weights(chosen, scanned, load_plan, load, choose, listener)
    for note in chosen.choice.notes:
        listener.note(note)
    return BatchPlan(begun, chosen.session, preparer, scanned, chosen.choice)


def _scan(
    request: JobRequest,
    only_counts: bool,
    so_far: JobSoFar,
    session: Session,
    preparer: RowPreparer[Any],
    listener: Listener,
) -> Scan:
    def tell(n_rows: int) -> None:
        if n_rows % 100 == 0:
            listener.status(f"reading rows: {n_rows}")

    def tell_failure(index: int, error: InferError) -> None:
        if only_counts:  # otherwise its line in the output says so
            listener.warn(f"row {index}: {error.message}")

    count_distinct = only_counts or session.loaded.policy.mode == "fast"
    try:
        return scan(request, preparer, so_far.answered, tell, tell_failure, count_distinct=count_distinct)
    finally:
        listener.clear()


def _with_quicker_weights(
    stored: Candidate,
    scanned: Scan,
    load_plan: LoadPlan,
    load: Load,
    choose: Callable[[Session], EngineChoice],
    listener: Listener,
) -> Candidate:
    listener.status("looking whether F16 weights are quicker")
    expanded = load_plan._replace(engine=replace(load_plan.engine, expand=True))
    trial = try_f16(stored, scanned, lambda: load(expanded), choose)
    listener.clear()
    (listener.warn if trial.failed else listener.note)(trial.why)
    return trial.chosen


def _choose_engine(
    request: JobRequest, begun: JobFile | None, scanned: Scan, session: Session, listener: Listener
) -> EngineChoice:
    def measure(n_window: int, n_replies: int) -> Mapping[int, float]:
        listener.status("looking for the best width")
        return rates_by_width(session.loaded, n_window, n_replies)

    choice = request.choose_engine(begun, scanned, session.loaded, measure)
    listener.clear()
    return choice


def check_seed(request: JobRequest, begun: JobFile | None, scanned: Scan) -> None:
    """Raises UsageError for a seed that means nothing, and for shards that would each draw their own."""
    is_sampled = _is_sampled(begun, scanned)
    if request.seed is None:
        if request.shard.of > 1 and is_sampled and (begun is None or begun.run_seed is None):
            raise UsageError("shards that sample need one seed", "give each the same --seed")
    elif request.seed_is_for_this and not is_sampled and request.shard.of == 1:  # another may sample
        raise UsageError("--seed has no meaning without sampling: the replies are greedy", "add -t")


def job_of(request: JobRequest, plan: BatchPlan, came_from: Provenance) -> JobFile:
    """The job as it is now."""
    begun, session, preparer, scanned, choice = plan
    deadlines = (None if begun is None else begun.deadline_s, request.deadline_s)
    return JobFile(
        id=new_id() if begun is None else begun.id,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=came_from.model,
        fingerprint=str(came_from.engine.fingerprint),
        engine=JobEngine.of(came_from.engine.facts),
        width=choice.width,
        window=session.loaded.window,
        run_seed=preparer.run_seed if _is_sampled(begun, scanned) else None,
        params=request.job_params(preparer),
        output_format=request.output_format,
        ordered=request.ordered,
        input=request.input.name,
        n_rows=scanned.n_rows,
        rows_sha256=scanned.rows_sha256,
        shard=request.shard,
        given={name: given.value for name, given in request.sampling.items()},
        deadline_s=max((s for s in deadlines if s is not None), default=None),
        kind=request.kind,
    )


def _is_sampled(begun: JobFile | None, scanned: Scan) -> bool:
    """Whether any reply of the job is, by this run or by one before it."""
    return scanned.sampled or (begun is not None and begun.run_seed is not None)
