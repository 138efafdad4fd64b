"""What commands that answer one prompt have in common: a load, meanwhile the prompt's parts, then a job."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from infer_cli.cli.run.options import RunOptions, check
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices, settings_table
from infer_cli.cli.screen.waiting import begin_reading, loading, switched, wait_for, warn_of_unused
from infer_cli.errors import UsageError
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end
from infer_cli.prompt.template import template_variables
from infer_cli.prompt.trusted_templates import begin_for
from infer_cli.runtime.session import Session
from infer_cli.settings.defaults import MIN_PREFIX
from infer_cli.settings.origins import Given
from infer_cli.settings.sampling import SamplingChoice, choose_sampling
from infer_cli.system.files import read_stdin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infer_cli.answering.job import Job
    from infer_cli.backend.base import Vocab
    from infer_cli.prefix_cache.cache import PrefixCache
    from infer_cli.process.worker import Worker
    from infer_cli.prompt.input import PromptInput
    from infer_cli.prompt.plan import PromptPlan
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.settings.origins import Setting
    from infer_cli.text.reasoning import ReasoningTags
    from infer_cli.types import Segment


def perform(
    work: Callable[[RunOptions, Worker, Notices], int],
    values: Mapping[str, tuple[object, str]],
    worker: Worker,
) -> int:
    """Do the work of a command line that is given as (value, origin) by name; returns the exit code.

    Raises InferError.
    """
    options = check({name: Given(*value) for name, value in values.items()})
    stats = False if options.stats is None and options.format != "text" else options.stats
    notices = Notices(quiet=options.quiet, stats=stats)
    try:
        with explained(worker), closed_at_end():
            return work(options, worker, notices)
    finally:
        notices.clear()


def begin_load(options: RunOptions, worker: Worker, notices: Notices) -> Session:
    """Find the model and begin to load it, and the renderer of templates if need be. Raises InferError."""
    model = find_model(options.model, offline=options.offline, quiet=options.quiet)
    loading(model.name, notices)
    session = Session(model, options.engine, options.n_samples, worker.native_fd)
    if not options.raw:
        begin_for(None if options.chat_template else session.own_template)
    return session


def read_prompt(options: RunOptions, notices: Notices, *, awaits_question: bool = False) -> PromptInput:
    """All parts of the prompt, read. Raises UsageError."""
    from infer_cli.prompt.input import PromptSources, read_input

    sources = PromptSources(
        words=options.words,
        system=options.system,
        files=options.files,
        messages=options.messages,
        tools=options.tools,
        raw=options.raw,
        prompt_template=options.prompt_template,
        variables=options.variables,
        awaits_question=awaits_question,
        offline=options.offline,
    )
    return read_input(sources, lambda: _piped_stdin(notices), notices)


def _piped_stdin(notices: Notices) -> bytes | None:
    """What is piped or redirected in; None for a terminal, /dev/null or no stdin at all."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if stat.S_ISCHR(mode):
        return None
    if not stat.S_ISREG(mode):
        notices.status("reading stdin")
    try:
        return read_stdin()
    finally:
        notices.clear()


def caches_files(options: RunOptions, given: PromptInput) -> bool:
    """Whether files and stdin may be worth keeping: a token is at least one character."""
    if options.no_cache or options.private or options.no_record:
        return False
    return sum(len(item.text) for item in given.attachments) >= MIN_PREFIX


def finish_load(session: Session, notices: Notices, *, recording: bool, caching: bool) -> None:
    """Import what is needed later while the load, which holds no Python lock, goes on; then wait for it."""
    import infer_cli.answering.oneshot
    import infer_cli.backend.llama
    import infer_cli.prompt.plan
    import infer_cli.runtime.engine_facts

    if recording:
        import infer_cli.records.answers
    if caching:
        import infer_cli.prefix_cache.warming  # noqa: F401

    wait_for(session, notices)


def sampling_of(options: RunOptions, session: Session) -> SamplingChoice:
    """What was said about sampling, merged with what the model recommends. Raises UsageError."""
    chosen = choose_sampling(options.sampling, *session.recommended, options.seed, default_temperature="0")
    if chosen.params.greedy and options.n_samples > 1:
        raise UsageError("--samples above 1 needs sampling: greedy replies would all be the same")
    return chosen


def variables_of_template(options: RunOptions) -> dict[str, object]:
    """Those of the chat template: `--var` is a stored prompt's where there is one."""
    return {} if options.prompt_template else template_variables(options.variables)


def plan_of(options: RunOptions, session: Session, given: PromptInput, notices: Notices) -> PromptPlan:
    """The prompt as ids that fit, and what had to go told. Raises InferError."""
    from infer_cli.prompt.plan import PromptEncoder, plan_prompt

    begin_reading(notices)
    template = None if options.raw else session.chat_template(options.chat_template)
    variables = variables_of_template(options)
    if template is not None:
        warn_of_unused(template, variables, notices)
        variables |= switched(template, options.thinking.think, variables, notices)
    encoder = PromptEncoder(
        session.loaded.vocab,
        template,
        variables,
        options.parse_special,
        options.deadline_s,
    )
    assert options.overflow != "summarize"
    prompt = plan_prompt(
        given,
        encoder,
        window=session.loaded.window,
        max_tokens=options.max_tokens,
        policy=options.overflow,
    )
    if options.show_context:
        from infer_cli.cli.screen.context_view import show_budget

        budget = prompt.budget()
        notices.clear()
        show_budget(budget, prompt.fitted.report(), as_json=options.format != "text")
    if prompt.fitted.dropped:
        notices.warn(f"--overflow {prompt.fitted.policy}: {prompt.fitted.told()}")
    return prompt


def settings_of(options: RunOptions, sampling: SamplingChoice, notices: Notices) -> tuple[Setting, ...]:
    """Every setting of the reply; shown where that is wanted."""
    settings = (*options.settings, *sampling.settings)
    if options.show_params:
        notices.clear()
        print(settings_table(settings), file=sys.stderr)
    return settings


def job_of(
    options: RunOptions,
    sampling: SamplingChoice,
    prompt_ids: tuple[int, ...],
    reasoning: ReasoningTags,
    vocab: Vocab,
    truncation: dict[str, object] | None,
    notices: Notices,
    history: tuple[Segment, ...] = (),
) -> Job:
    """What the command line asks of the engine."""
    from infer_cli.answering.job import make_job
    from infer_cli.prompt.thinking import NO_BUDGET, budget_of

    thinking = options.thinking
    budget = budget_of(thinking.budget, reasoning.pairs, reasoning.opened, vocab)
    if budget is None and thinking.budget is not None:
        notices.warn(f"--reasoning-budget: {NO_BUDGET}")
    return make_job(
        prompt_ids,
        sampling,
        reasoning,
        max_tokens=options.max_tokens,
        n_samples=options.n_samples,
        stop=options.stop,
        n_logprobs=options.n_logprobs,
        deadline_s=options.deadline_s,
        history=history,
        truncation=truncation,
        think=thinking.think,
        budget=budget,
    )


def open_prefixes(
    options: RunOptions, session: Session, running: RunningEngine, notices: Notices
) -> PrefixCache:
    """The user's prefix cache, as far as the model's hash is known."""
    from infer_cli.prefix_cache.warming import open_cache

    return open_cache(session, running, session.model.sha256, options.cache_bytes, notices.detail)
