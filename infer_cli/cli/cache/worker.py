"""What `infer cache warm` does in its worker process: the model reads files, and what it has read is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from infer_cli.cli.run.asking import (
    begin_load,
    caches_files,
    finish_load,
    perform,
    plan_of,
    read_prompt,
)
from infer_cli.cli.run.options import RunOptions
from infer_cli.cli.screen.terminal import Notices
from infer_cli.errors import ExitStatus
from infer_cli.prefix_cache import warming
from infer_cli.runtime.long_prompt import PromptReader

if TYPE_CHECKING:
    from infer_cli.prefix_cache.cache import Kept
    from infer_cli.process.worker import Worker


def warm(values: Mapping[str, tuple[object, str]], worker: Worker) -> int:
    """Evaluate files, and keep that; the command line is (value, origin) by name. Raises InferError."""
    return perform(_warm, values, worker)


def _warm(options: RunOptions, worker: Worker, notices: Notices) -> int:
    options = replace(options, max_tokens=1)
    session = begin_load(options, worker, notices)
    # While the model loads:
    given = read_prompt(options, notices, awaits_question=True)
    caches = caches_files(options, given)
    finish_load(session, notices, recording=not options.no_record, caching=caches)
    prompt = plan_of(options, session, given, notices)
    n_window = prompt.needed_window(options.max_tokens, session.loaded.n_ctx_train)
    n_shared = warming.n_shared(prompt) if caches else 0
    warming.check_worth_warming(n_shared)
    running = session.start(n_window)
    notices.status("hashing the model, once")
    sha256 = session.sha256()
    prefixes = warming.open_cache(session, running, sha256, options.cache_bytes, notices.detail)
    kept = warming.warm(
        prefixes,
        running,
        PromptReader(session, running, notices),
        prompt.ids,
        n_shared,
        session.model.name,
        lambda done: notices.status(f"reading {done:.0%}"),
    )
    notices.clear()
    _tell(kept, session.model.name, as_json=options.format != "text")
    return ExitStatus.OK


def _tell(kept: Kept, model: str, *, as_json: bool) -> None:
    if not as_json:
        print(f"{'kept' if kept.written else 'kept already'}: {kept}")
        return
    shown = {
        "model": model,
        "n_tokens": kept.n_tokens,
        "bytes": kept.size,
        "bytes_per_token": round(kept.size / kept.n_tokens),
        "written": kept.written,
    }
    print(json.dumps(shown))
