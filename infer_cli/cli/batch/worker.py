"""What `infer batch` does in its worker process: job, model, rows, engine, output, exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, cast

from infer_cli.batch import resume
from infer_cli.batch.in_flight import Flight, after_crash
from infer_cli.batch.job import (
    DEFAULT_WIDTH,
    LEAST_WINDOW,
    JobFile,
    check_beside,
    counted_rows,
    flight_path,
    job_dir,
    job_path,
    journal_path,
    lock_path,
    read_job,
)
from infer_cli.batch.ordered import Ordered
from infer_cli.batch.output import Appended, Output, Piped
from infer_cli.batch.output_index import Held, Line
from infer_cli.batch.preparing import Defaults, NoTemplate, Preparer
from infer_cli.batch.replies import Origin
from infer_cli.batch.rows import Row
from infer_cli.batch.runner import Runner
from infer_cli.batch.scan import Scan, scan
from infer_cli.batch.summary import Tally
from infer_cli.cli.batch.display import Display
from infer_cli.cli.batch.options import BatchOptions
from infer_cli.cli.screen.model_lookup import find_model
from infer_cli.cli.screen.terminal import Notices
from infer_cli.cli.screen.waiting import wait_for
from infer_cli.engine.policy import canonical_width
from infer_cli.errors import ExitStatus, InferError, UsageError
from infer_cli.process.explain import explained
from infer_cli.prompt.renderer import closed_at_end, shared
from infer_cli.prompt.template import template_variables
from infer_cli.runtime.session import Session
from infer_cli.settings.durations import duration
from infer_cli.settings.seeds import draw_seed
from infer_cli.system.files import lock, read_bytes, write_atomic
from infer_cli.system.hashing import sha256_hex
from infer_cli.system.ids import new_id

if TYPE_CHECKING:
    from infer_cli.engine.policy import Policy
    from infer_cli.models.installed import InstalledModel
    from infer_cli.process.worker import Worker
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.runtime.running import Running
    from infer_cli.settings.origins import Setting


def answer_all(options: BatchOptions, worker: Worker) -> int:
    """Answer one command line; returns the exit code. Raises InferError."""
    notices = Notices(quiet=options.quiet, stats=not options.quiet)
    try:
        with explained(worker), closed_at_end():
            return _Batch(options, worker, notices).run()
    finally:
        notices.clear()


class _Batch:
    def __init__(self, options: BatchOptions, worker: Worker, notices: Notices) -> None:
        self._options, self._worker, self._notices = options, worker, notices
        output = options.output
        # What can't be found again: a pipe, a device.
        self._resumes = output is not None and (output.is_file() or not output.exists())
        self._old: JobFile | None = None
        self._held = Held()  # what is answered
        self._written = Held()  # and in the output itself
        self._retries = False
        self._redone: frozenset[int] = frozenset()  # rows whose answers go

    def run(self) -> int:
        if not self._options.dry_run:
            self._take_output()
        self._session = self._load()
        preparer = self._preparer()
        scanned = self._scan(preparer)
        if not self._options.dry_run:
            self._check_rows(preparer, scanned)
        self._expand(scanned)
        policy = self._policy(scanned)
        if self._options.dry_run:
            self._tell_mode()
            return self._tell(scanned, self._in_use(policy, scanned))
        running = self._session.start(_window(scanned), self._in_use(policy, scanned))
        job = self._job(preparer, running, scanned, policy.width)
        self._tell_mode()
        return self._answer(job, preparer, running, scanned)

    # --- the output ----------------------------------------------------------------------------

    def _take_output(self) -> None:
        """Lock the output and read what it holds."""
        output = self._options.output
        if output is None or not self._resumes:
            self._notices.warn("a batch whose output is a pipe can't be resumed: -o FILE can")
            return
        if output.exists() and output.stat().st_size and read_job(output) is None:
            raise UsageError(
                f"{output} is there already, and no batch has written it here", "name another file with -o"
            )
        try:
            job_dir(output).mkdir(exist_ok=True)
        except OSError as e:
            raise UsageError(f"{job_dir(output)} can't be made: {e.strerror}") from None
        check_beside(output)
        self._lock = lock(lock_path(output), output)
        self._retries = self._options.retry_errors and not after_crash(flight_path(output))
        self._old = read_job(output)
        if self._old is None and output.exists() and output.stat().st_size:
            raise UsageError(f"{output} was written meanwhile", "name another file with -o")
        self._find()
        if not self._held.rows:
            self._old = None  # nothing was answered: nothing to be held to

    @property
    def _was_ordered(self) -> bool:
        return self._old is not None and self._old.ordered

    @property
    def _had_seed(self) -> bool:
        return self._old is not None and self._old.run_seed is not None

    def _find(self) -> None:
        assert self._options.output is not None
        output = self._options.output
        self._written, self._held = resume.find(output, journal_path(output), self._keep)

    def _keep(self, line: Line) -> bool:
        return line.row not in self._redone and not (line.failed and self._retries)

    def _drop_unwanted(self) -> None:
        """Take out of the output what is to be answered again."""
        output = self._options.output
        assert output is not None
        if output.exists():
            resume.drop(output, journal_path(output), self._keep, ordered=self._was_ordered)
        self._find()

    def _begin_anew(self) -> None:
        """Empty the output."""
        output = self._options.output
        assert output is not None
        journal_path(output).unlink(missing_ok=True)
        if output.exists():
            os.truncate(output, 0)
        self._find()

    def _open(self) -> Output:
        output, ordered = self._options.output, self._options.ordered
        if output is not None and self._resumes:
            appended = Appended(output, self._written.n_bytes)
            return Ordered(appended, journal_path(output)) if ordered else appended
        stream = sys.stdout.buffer if output is None else open(output, "wb")  # noqa: SIM115  # open to the end
        if not ordered:
            return Piped(stream)
        journal, name = tempfile.mkstemp(prefix="infer-batch-")
        os.close(journal)
        try:
            return Ordered(Piped(stream), Path(name))
        finally:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                os.unlink(name)

    # --- the model -----------------------------------------------------------------------------

    def _load(self) -> Session:
        options = self._options
        model = find_model(options.model, offline=options.offline, quiet=options.quiet)
        session = self._begin_loading(model, expand=self._had("weights"))
        wait_for(session, self._notices)
        return session

    def _begin_loading(self, model: InstalledModel, *, expand: bool) -> Session:
        options = self._options
        width = options.parallel or (self._old.width if self._old is not None else DEFAULT_WIDTH)
        engine = dataclasses.replace(self._engine, expand=expand)
        return Session(model, engine, width, self._worker.native_fd)

    @property
    def _engine(self) -> EngineOptions:
        """The engine that is asked for. A job that goes on keeps its mode, unless one is asked for."""
        engine = self._options.engine
        if self._old is None or engine.fallback is None:
            return engine
        return dataclasses.replace(engine, mode=self._old.mode, fallback=None)

    @property
    def _mode_setting(self) -> Setting:
        """The mode in use, and where it came from."""
        asked = next(setting for setting in self._options.settings if setting.name == "mode")
        goes_on = self._old is not None and self._options.engine.fallback is not None
        return asked._replace(
            value=self._session.loaded.policy.mode, origin="the job's beginning" if goes_on else asked.origin
        )

    def _tell_mode(self) -> None:
        """Say which mode it is where none was asked for."""
        policy = self._session.loaded.policy
        if self._options.engine.fallback is None:
            return
        if self._old is not None:
            why = ", as the job was begun"
        elif policy.passed_over:
            why = f", not {self._options.engine.mode}: {policy.passed_over}"
        else:
            why = ", the default: what stands beside a reply does not change it"
        self._notices.note(f"mode {policy.mode}{why}")

    def _had(self, fact: str) -> bool:
        """Whether the engine that the output was begun with has this fact, which others have not."""
        return self._old is not None and fact in self._old.engine

    def _expand(self, scanned: Scan) -> None:
        """Take the weights as F16 where the job is mostly reading, the mode lets it, and here it pays."""
        if self._old is not None or self._options.shard.of > 1 or not scanned.mostly_read:
            return  # all shards have the same engine
        if not self._session.loaded.may_expand(_window(scanned)):
            return
        from infer_cli.runtime.calibration import EXPANSION_PAYS, reading_tps

        self._notices.status("looking whether F16 weights are quicker")
        as_stored = reading_tps(self._session.loaded)
        try:
            expanded = self._begin_loading(self._session.model, expand=True)
            wait_for(expanded, self._notices)
            ratio = reading_tps(expanded.loaded) / as_stored
        except InferError as e:
            self._notices.warn(f"weights are as they are stored: {e.message}")
            return
        found = f"as F16 prompts are read {ratio:.1f} times as fast"
        if ratio >= EXPANSION_PAYS:
            self._session = expanded
            self._notices.note(f"weights are F16 in memory: {found}")
        else:
            expanded.close()
            self._notices.note(f"weights are as they are stored: {found}")

    def _policy(self, scanned: Scan) -> Policy:
        """The mode's, with the width and memory that are given, or recorded, or the best here where the mode
        lets them be."""
        planned = self._session.loaded.policy
        if planned.mode == "canonical":
            asked = self._options.parallel
            if asked not in (None, planned.width):
                self._notices.note(f"{planned.width} replies side by side: canonical has no width of {asked}")
            return planned
        policy = self._session.loaded.choose_policy(
            self._width(scanned), kv_unified=self._kv_unified(scanned)
        )
        if policy.kv_unified and not self._session.loaded.fits(policy, _window(scanned)):
            return self._session.loaded.choose_policy(policy.width)
        return policy

    def _in_use(self, policy: Policy, scanned: Scan) -> Policy:
        """With no more slots than replies, where their number means nothing to the promise."""
        n_slots = min(policy.width, max(1, scanned.n_to_answer))
        return policy if policy.promise != "invariant" else self._session.loaded.choose_policy(n_slots)

    def _width(self, scanned: Scan) -> int:
        options, planned = self._options, self._session.loaded.policy
        one_width = options.shard.of > 1 and planned.promise != "invariant"  # else shards could not be merged
        if options.parallel or self._old is not None or one_width:
            return planned.width
        from infer_cli.runtime.calibration import LEAST_REPLIES, best_width, rates_by_width

        if scanned.n_to_answer < LEAST_REPLIES:
            return planned.width
        self._notices.status("looking for the best width")
        rates = rates_by_width(self._session.loaded, _window(scanned), scanned.n_to_answer)
        self._notices.clear()
        width = best_width(rates)
        listed = ", ".join(f"{rate:.0f} with {n}" for n, rate in rates.items())
        self._notices.note(f"{width} replies side by side: tokens a second are {listed}")
        return width

    def _kv_unified(self, scanned: Scan) -> bool:
        """Whether the replies are to share one memory, where the mode lets them."""
        if self._old is not None:
            return self._had("kv_unified")
        return self._options.shard.of == 1 and scanned.mostly_shared  # all shards have the same engine

    def _preparer(self) -> Preparer:
        options, loaded = self._options, self._session.loaded
        old_seed = self._old.run_seed if self._old is not None else None
        self._run_seed = (
            int(str(options.seed.value))
            if options.seed is not None
            else draw_seed()
            if old_seed is None
            else old_seed
        )
        defaults = Defaults(
            sampling=options.sampling,
            entry=self._session.recommended.entry,
            recommended=self._session.recommended.file,
            run_seed=self._run_seed,
            max_tokens=options.max_tokens,
            stop=options.stop,
            system=options.system,
            n_samples=options.n_samples,
            n_logprobs=options.n_logprobs,
            deadline_s=options.deadline_s,
            raw=options.raw,
            variables=template_variables(options.variables),
            overflow=options.overflow,
        )
        vocab = loaded.vocab
        return Preparer(
            defaults,
            vocab,
            lambda: self._session.chat_template(options.chat_template),
            loaded.window,
            loaded.n_ctx_train,
        )

    # --- the rows ------------------------------------------------------------------------------

    def _scan(self, preparer: Preparer) -> Scan:
        def tell(n_rows: int) -> None:
            if n_rows % 100 == 0:
                self._notices.status(f"reading rows: {n_rows}")

        def failing(index: int, error: InferError) -> None:
            if self._options.dry_run:  # otherwise its line in the output says so
                self._notices.warn(f"row {index}: {error.message}")

        options = self._options

        def scanned(held: Held) -> Scan:
            return scan(
                options.input.rows(),
                options.shard,
                preparer,
                held,
                options.n_samples,
                tell,
                failing,
                count_distinct=options.dry_run or self._session.loaded.policy.mode == "fast",
            )

        try:
            found = scanned(self._held)
            if options.redo and self._held.rows:  # all of them may go
                found.n_window = scanned(Held()).n_window
            return found
        except NoTemplate as e:
            raise e.error from None
        finally:
            self._notices.clear()

    def _check_rows(self, preparer: Preparer, scanned: Scan) -> None:
        """Refuse, or redo, rows that were answered when they said something else."""
        options = self._options
        is_sampled = scanned.sampled or self._had_seed
        if options.seed is not None:
            # In another shard, a row may sample.
            if options.seed.by_flag and not is_sampled and options.shard.of == 1:
                raise UsageError("--seed has no meaning without sampling: the replies are greedy", "add -t")
        elif options.shard.of > 1 and is_sampled and not self._had_seed:
            raise UsageError("shards that sample need one seed", "give each the same --seed")
        if not scanned.changed:
            return
        if not options.redo:
            raise UsageError(
                f"{options.output} has answers to what is different now: {counted_rows(scanned.changed)}",
                "--redo answers these again; -o OTHER begins another output",
            )
        self._redone = frozenset(scanned.changed)

    def _my_rows(self) -> Iterable[Row]:
        return (row for row in self._options.input.rows() if self._options.shard.has(row.index))

    def _tell(self, scanned: Scan, policy: Policy) -> int:
        """What `--dry-run` prints."""
        found: dict[str, float] = {
            "rows": scanned.n_mine,
            "replies": scanned.n_replies,
            "prompt_tokens": scanned.n_prompt_tokens,
            "distinct_prompt_tokens": scanned.n_distinct_tokens,
            "window": scanned.n_window,
            "failing": sum(scanned.failures.values()),
            "does_not_fit": scanned.failures.get(ExitStatus.DOES_NOT_FIT, 0),
            "truncated": scanned.n_truncated,
            "reply_tokens": scanned.n_reply_tokens,
        }
        _print_table(found)
        measured = self._expected(scanned, policy)
        _print_table(measured)
        if self._options.summary is not None:
            data = json.dumps({**found, **measured}, indent=1).encode() + b"\n"
            write_atomic(self._options.summary, [data], durable=True)
        return ExitStatus.SOME_ROWS_FAILED if scanned.failures else ExitStatus.OK

    def _expected(self, scanned: Scan, policy: Policy) -> dict[str, float]:
        """What the job will take, by a short measurement."""
        if not scanned.n_to_answer:
            return {"expected_s": 0.0}
        from infer_cli.runtime.calibration import pace

        self._notices.status("measuring the speed")
        n_rows = scanned.n_mine - sum(scanned.failures.values())
        n_prompt = -(-scanned.n_prompt_tokens // n_rows)  # a mean
        found = pace(self._session.loaded, policy, scanned.n_to_answer, n_prompt)
        self._notices.clear()
        seconds = found.seconds(scanned.n_distinct_tokens, scanned.n_reply_tokens, scanned.n_longest_reply)
        self._notices.note(
            f"expected: {duration(seconds)}, if every reply is as long as it may be:"
            f" {found.n_rows} side by side, {found.prefill_tps:.0f} tok/s in,"
            f" {found.decode_tps:.0f} tok/s out"
        )
        return {
            "width": policy.width,
            "prompt_tokens_per_s": round(found.prefill_tps, 1),
            "generated_tokens_per_s": round(found.decode_tps, 1),
            "expected_s": round(seconds, 1),
        }

    # --- the job -------------------------------------------------------------------------------

    def _job(self, preparer: Preparer, running: Running, scanned: Scan, width: int) -> JobFile:
        """The job as it is now, planned with this width; compared with what the output was begun with, and
        written down."""
        options = self._options
        came_from = running.provenance()
        job = JobFile(
            id=self._old.id if self._old is not None else new_id(),
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            model=came_from.model._asdict(),
            fingerprint=str(came_from.engine.fingerprint),
            engine=dict(came_from.engine.facts),
            width=width,
            window=self._session.loaded.window,
            run_seed=self._run_seed if scanned.sampled or self._had_seed else None,
            params=self._params(preparer),
            output_format=options.output_format,
            ordered=options.ordered,
            input=options.input.name,
            n_rows=scanned.n_rows,
            rows_sha256=scanned.rows_sha256,
            shard=options.shard,
            given={name: given.value for name, given in options.sampling.items()},
            deadline_s=self._longest_deadline(),
        )
        output = options.output
        if output is None or not self._resumes:
            return job
        if self._old is not None:
            different = self._old.differences(job)
            if self._old.shard != job.shard:
                different.append(f"shard was {self._old.shard}, is {job.shard}")
            if different and not options.redo:
                raise UsageError(
                    f"{output} was begun with other settings: {'; '.join(different[:4])}",
                    "--redo answers all rows again; -o OTHER begins another output",
                )
            if different:
                self._begin_anew()
            elif self._retries or self._redone:
                self._drop_unwanted()
        else:
            self._begin_anew()
        job.write(job_path(output))
        return job

    def _longest_deadline(self) -> float | None:
        """Of this run and those before it."""
        before = None if self._old is None else self._old.deadline_s
        return max((s for s in (before, self._options.deadline_s) if s is not None), default=None)

    def _params(self, preparer: Preparer) -> dict[str, object]:
        options = self._options
        template = options.chat_template
        return {
            **preparer.params,
            "stop": list(options.stop),
            "system": options.system,
            "samples": options.n_samples,
            "logprobs": options.n_logprobs,
            "raw": options.raw,
            "format": options.input.format,
            "row_template": options.row_template,
            "chat_template": None if template is None else sha256_hex(read_bytes(template)),
            "variables": dict(options.variables),
            "overflow": options.overflow,
        }

    def _answer(
        self,
        job: JobFile,
        preparer: Preparer,
        running: Running,
        scanned: Scan,
    ) -> int:
        from infer_cli.process.worker import on_interrupt

        options = self._options
        tally = Tally(scanned.n_mine, scanned.n_replies, running.policy.width)
        tally.take_over(self._held)
        flight = Flight(flight_path(options.output)) if options.output is not None and self._resumes else None
        output = self._open()
        display = Display(tally, quiet=options.quiet)
        runner = Runner(
            running,
            preparer,
            Origin(job.id, running.policy.mode, running.policy.promise, running.provenance()),
            output,
            options.output_format,
            tally,
            flight,
            self._written.has,
            _window(scanned),
            None if options.max_errors is None else options.max_errors.of(scanned.n_replies),
            display.update,
        )

        def interrupt(_signal_name: str) -> None:
            runner.stop("interrupted")
            shared().cancel()

        on_interrupt(interrupt)
        began = time.perf_counter()
        try:
            if flight is not None and flight.crashes:
                suspects = frozenset(flight.crashes)
                runner.run_alone(row for row in self._my_rows() if row.index in suspects)
            runner.run(self._my_rows())
        finally:
            display.close()
            output.close()
        wall_s = time.perf_counter() - began
        tally.n_decode_rows, tally.n_dummy_rows = running.service.decode_rows
        self._report(tally, wall_s, job, self._quicker(scanned))
        if runner.stopped != "interrupted":
            self._record(tally, wall_s, job, preparer)
        if runner.stopped is None and flight is not None:
            flight.close()
            self._tidy()
        return self._status(runner, tally)

    def _status(self, runner: Runner, tally: Tally) -> ExitStatus:
        goes_on = "; the same command line goes on from there" if self._resumes else ""
        if runner.stopped == "interrupted":
            self._notices.warn(f"interrupted: what was finished is kept{goes_on}")
            return ExitStatus.INTERRUPTED
        if runner.stopped == "errors" and tally.n_before + tally.n_done < tally.n_replies:
            self._notices.warn(f"stopped: too many errors ({runner.n_failed}){goes_on}")
            return ExitStatus.DEADLINE
        if tally.n_failed + tally.n_failed_before:
            if self._resumes:
                self._notices.note(
                    "the same command line with --retry-errors answers those again that failed"
                )
            return ExitStatus.SOME_ROWS_FAILED
        return ExitStatus.OK

    def _tidy(self) -> None:
        """All is answered: nothing is under way, nothing waits."""
        assert self._options.output is not None
        for path in (flight_path(self._options.output), journal_path(self._options.output)):
            path.unlink(missing_ok=True)

    def _quicker(self, scanned: Scan) -> list[str]:
        """Flags with which a small canonical job would take less time."""
        policy, n = self._session.loaded.policy, scanned.n_to_answer
        if policy.mode != "canonical" or not policy.fixed_width or self._old is not None:
            return []
        if not 0 < canonical_width(n) < policy.width:
            return []
        free = self._session.loaded.choose_policy(policy.width, mode="invariant").promise == "invariant"
        return [*(["--invariant"] if free else []), f"--parallel {canonical_width(n)}"]

    def _report(self, tally: Tally, wall_s: float, job: JobFile, quicker: list[str]) -> None:
        options, policy = self._options, self._session.loaded.policy
        for line in tally.in_words(wall_s):
            self._notices.note(line)
        self._notices.note(
            f"mode {policy.mode}" + ("" if policy.promise == policy.mode else f", promise {policy.promise}")
        )
        if quicker:
            self._notices.note(
                f"each step had {policy.width} rows, however few the replies: quicker would be"
                f" {' or '.join(quicker)}"
            )
        if job.run_seed is not None:
            self._notices.note(f"seed {job.run_seed}")
        if truncated := tally.truncated():
            self._notices.warn(truncated)
        if options.summary is not None:
            facts = {
                "id": job.id,
                "output": None if options.output is None else str(options.output),
                "model": job.model,
                "fingerprint": job.fingerprint,
                "mode": policy.mode,
                "promise": policy.promise,
                "quicker": quicker,
                "run_seed": job.run_seed,
                **tally.as_json(wall_s),
            }
            write_atomic(options.summary, [json.dumps(facts, indent=1).encode() + b"\n"], durable=True)

    def _record(
        self,
        tally: Tally,
        wall_s: float,
        job: JobFile,
        preparer: Preparer,
    ) -> None:
        """Keep what was done. The replies are out; a failure is a warning."""
        options = self._options
        if options.no_record or not tally.n_done:
            return
        from infer_cli.records.record import Record, adapters_of, model_files
        from infer_cli.records.store import keep

        def records() -> Iterator[Record]:
            yield Record(
                id=new_id(),
                kind="batch",
                created_at=time.time(),
                model=str(job.model.get("name")),
                model_sha256=cast("str | None", job.model.get("sha256")),
                model_files=() if self._session.model.is_fake else model_files(self._session.model.path),
                adapters=adapters_of(options.engine.loras),
                fingerprint=job.fingerprint,
                engine=job.engine,
                mode=self._session.loaded.policy.mode,
                promise=self._session.loaded.policy.promise,
                width=job.width,
                n_ctx=job.window,
                params=preparer.params,
                settings=(
                    *(self._mode_setting if s.name == "mode" else s for s in options.settings),
                    *preparer.settings,
                ),
                run_seed=job.run_seed,
                usage={
                    "prompt_tokens": tally.n_prompt,
                    "cached_tokens": tally.n_cached,
                    "completion_tokens": tally.n_generated,
                },
                timings={"total_s": wall_s},
                output=None if options.output is None else str(options.output.absolute()),
            )

        keep(records(), self._notices.warn)


def _print_table(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        print(f"{name}\t{value}")
    sys.stdout.flush()  # a note on stderr follows it


def _window(scanned: Scan) -> int:
    """Tokens that each slot is to hold."""
    return max(scanned.n_window, LEAST_WINDOW)
