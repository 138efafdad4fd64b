"""What of a prompt's files is kept for other questions about them. Knows no command line and no terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from infer_cli.answering.reply import failure
from infer_cli.errors import InferError, UnexpectedFailure, UsageError
from infer_cli.models.installed import FAKE
from infer_cli.prefix_cache.cache import Kept, PrefixCache, reason
from infer_cli.prefix_cache.store import PrefixStore, store_dir
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.system.ids import new_id
from infer_cli.text.common_prefix import n_same
from infer_cli.types import EngineRequest, Finished, Prefilled, SamplingParams

if TYPE_CHECKING:
    from infer_cli.prompt.plan import PromptPlan
    from infer_cli.runtime.long_prompt import PromptReader
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session


def open_cache(
    session: Session,
    running: RunningEngine,
    sha256: str | None,
    most_bytes: int | None,
    note: Callable[[str], None],
) -> PrefixCache:
    """The store as a session's engine may use it; `sha256` is that of the model's file, as far as known."""
    name, sha256 = (FAKE, FAKE) if session.model.is_fake else (session.model.name, sha256)
    return PrefixCache(running, PrefixStore(most_bytes=most_bytes), name, sha256, note)


def n_shared(prompt: PromptPlan) -> int:
    """Tokens that a prompt would begin with whatever was asked about its files. Raises InferError."""
    return n_same(prompt.ids, prompt.ids_of_another_question())


def keep_files(
    prefixes: PrefixCache, prompt: PromptPlan, model_sha256: str | None, note: Callable[[str], None]
) -> None:
    """Keep what was evaluated of a prompt's files. Never fails: `note` is told.

    `model_sha256`: of a model never seen before, it has been hashed since the cache was opened.
    """
    if not prefixes.worth_keeping(prompt.ids):
        return
    if model_sha256 is not None:
        prefixes.model_sha256 = model_sha256
    try:
        kept = prefixes.keep(prompt.ids, n_shared(prompt))
    except (InferError, OSError, ValueError, MemoryError) as e:
        note(f"prefix cache: nothing kept: {reason(e)}")
    else:
        if kept is not None and kept.written:
            note(f"prefix cache: kept {kept}")


def check_worth_warming(n_tokens: int) -> None:
    """Raises UsageError where so few tokens of a prompt are the files' own that none would be kept."""
    if n_tokens < MIN_PREFIX:
        raise UsageError(
            f"less than {MIN_PREFIX} tokens of the prompt are the files' own",
            "reading so little again takes no longer than finding it",
        )


def warm(
    prefixes: PrefixCache,
    running: RunningEngine,
    reader: PromptReader,
    ids: tuple[int, ...],
    n_tokens: int,
    model: str,
    on_progress: Callable[[float], None],
) -> Kept:
    """Evaluate a prompt and keep its first `n_tokens`, as far as the store has not got them already.

    `reader` may read the prompt in place of the engine; `on_progress` takes what share of it is read, 0 to 1;
    `model` is what the user calls it. Raises UnexpectedFailure where nothing is kept, ModelInvalid.
    """
    prefixes.restore(ids)
    try:
        found = prefixes.found(n_tokens, ids)
    except ValueError as e:
        raise _nothing_kept(e) from None
    if found is not None:
        return found
    reader.read(ids, None, lambda n_read: on_progress(n_read / len(ids)))
    _evaluate(running, ids, model, on_progress)
    try:
        kept = prefixes.keep(ids, n_tokens)
    except (OSError, ValueError) as e:
        raise _nothing_kept(e) from None
    if kept is None:
        raise UnexpectedFailure(
            "nothing was kept: this model's states can't be used again in this mode", "see docs/cache.md"
        )
    return kept


def _evaluate(
    running: RunningEngine, ids: tuple[int, ...], model: str, on_progress: Callable[[float], None]
) -> None:
    request = EngineRequest(new_id(), ids, SamplingParams(), max_tokens=1)
    for event in running.service.submit([request]):
        if isinstance(event, Prefilled):
            on_progress(event.done / event.total)
        elif isinstance(event, Finished) and event.error is not None:
            raise failure(event.error, event.error_status, model)


def _nothing_kept(error: Exception) -> UnexpectedFailure:
    hint = f"the cache is in {store_dir()}; --cache-size says how large it may be"
    return UnexpectedFailure(f"nothing was kept: {reason(error)}", hint)
