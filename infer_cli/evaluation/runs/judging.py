"""Has a model judge the answers of a run: what it is asked and what it replies are files of the run.

`judge_requests.jsonl` are rows of `infer batch`, `judge.jsonl` is its output: a batch of its own, which goes
on where it was stopped, and is read again without a model, as the run's own replies are. A question that is
asked of several answers is one row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from infer_cli.answering.reply import json_line
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.output_index import lines_of
from infer_cli.batch.request import BatchRequest
from infer_cli.batch.rows import PROMPTS, Input
from infer_cli.batch.target import FileTarget
from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.scorers.scorer import Answer, Score, Scorer, ScorerFailed
from infer_cli.evaluation.tasks.item_file import read_written_items
from infer_cli.settings.origins import Given
from infer_cli.system.files import open_regular, write_atomic
from infer_cli.system.hashing import sha256_hex

if TYPE_CHECKING:
    from infer_cli.runtime.options import EngineOptions

_CUT = ("length", "context")
_GREEDY: Mapping[str, Given] = {"temperature": Given(0.0, "the judge")}


def judges_of(scorers: Iterable[Scorer]) -> list[Judge]:
    return [scorer for scorer in scorers if isinstance(scorer, Judge)]


def judge_model(judges: Sequence[Judge], given: str | None) -> str:
    """Who is asked: `given` on the command line, else the model that the task names. Raises UsageError where
    there is none, or more than one."""
    if given is not None:
        return given
    named = list(dict.fromkeys(judge.model for judge in judges if judge.model is not None))
    if not named:
        raise UsageError("a scorer needs a model that judges", "name it with --judge MODEL")
    if len(named) > 1:
        raise UsageError(
            f"the task names several models that judge: {', '.join(named)}", "name one with --judge MODEL"
        )
    return named[0]


def write_judge_requests(
    folder: RunFolder, graded: Iterable[Sequence[Sample]], judges: Sequence[Judge]
) -> int:
    """Write what the judges are to be asked; returns how many questions these are.

    `graded` are the samples of each item, in the order of the items, with scores or without. Samples that
    have no score anyway ask nothing. Raises UsageError for files that are none of a run's, OSError.
    """
    n_questions = 0

    def counted() -> Iterator[bytes]:
        nonlocal n_questions
        for line in judge_rows(folder, graded, judges):
            n_questions += 1
            yield line

    write_atomic(folder.judge_requests, counted(), durable=True)
    return n_questions


def judge_rows(
    folder: RunFolder, graded: Iterable[Sequence[Sample]], judges: Sequence[Judge]
) -> Iterator[bytes]:
    """The lines of `write_judge_requests`."""
    asked: set[bytes] = set()
    items = read_written_items(folder.items, folder.requests)
    for item, samples in zip(items, graded, strict=True):
        for sample in samples:
            if sample.answer is None or sample.extracted is None or sample.outcome in ("error", "cut"):
                continue
            answer = Answer(sample.answer, sample.extracted, item.references, item.doc)
            for judge in judges:
                try:
                    question = judge.question(answer)
                except ScorerFailed:  # it fails again where it is graded, and is shown there
                    continue
                key = _key(question, judge.max_tokens)
                if key in asked:
                    continue
                asked.add(key)
                yield json_line(
                    {"custom_id": _id_of(sample, judge), "prompt": question, "max_tokens": judge.max_tokens}
                )


def judge_request(
    folder: RunFolder, engine: EngineOptions, *, parallel: int | None = None, redo: bool = False
) -> BatchRequest:
    """The judges' batch: greedy, through the judging model's chat template, so that no answer is anything but
    text in it."""
    return BatchRequest(
        input=Input(str(folder.judge_requests), "jsonl", shape=PROMPTS),
        engine=engine,
        parallel=parallel,
        redo=redo,
        sampling=_GREEDY,
    )


class JudgeTarget(FileTarget):
    """`judge.jsonl`. A question that is another one now is asked again: the answers may have been made
    again."""

    def __init__(self, folder: RunFolder, *, retry_errors: bool = False) -> None:
        super().__init__(folder.judge_replies, retry_errors=retry_errors)

    def check_rows(self, changed: Collection[int], *, redo: bool) -> None:
        pass


def judge_identity(folder: RunFolder) -> dict[str, object] | None:
    """The model that judged, and its mode; None where none has."""
    job = read_job(folder.judge_replies)
    return None if job is None else {"model": job.model._asdict(), "mode": job.engine.mode}


def with_judges(folder: RunFolder, scorers: Sequence[Scorer]) -> list[Scorer]:
    """The scorers, those that need a judge with what it has replied. Raises UsageError for files that are
    none of a run's."""
    if not any(isinstance(scorer, Judge) for scorer in scorers):
        return list(scorers)
    replies = JudgeReplies(folder)
    return [JudgedScorer(scorer, replies) if isinstance(scorer, Judge) else scorer for scorer in scorers]


class JudgeReplies:
    """The judges' replies by what was asked. Of each only its place is kept."""

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.judge_replies
        self._starts: dict[bytes, int] = {}
        if self._path.exists() and folder.judge_requests.exists():
            rows = {line.row: (line.row_sha256, line.start) for line in lines_of(self._path)}
            for row in Input(str(folder.judge_requests), "jsonl", shape=PROMPTS).rows():
                sha256, start = rows.get(row.index, ("", 0))
                if row.asked is not None and row.sha256 == sha256:
                    key = _key(str(row.asked.prompt), row.asked.values.get("max_tokens"))
                    self._starts[key] = start

    def find(self, question: str, max_tokens: int) -> Mapping[str, object] | None:
        """The line of the reply; None where there is none."""
        start = self._starts.get(_key(question, max_tokens))
        if start is None:
            return None
        with open_regular(self._path) as file:
            file.seek(start)
            value: Mapping[str, object] = json.loads(file.readline())
            return value


class JudgedScorer:
    """A judge with its replies."""

    is_code = False
    higher_is_better = True

    def __init__(self, judge: Judge, replies: JudgeReplies) -> None:
        self.judge, self._replies = judge, replies
        self.name, self.is_proportion, self.worst = judge.name, judge.is_proportion, judge.worst

    def score(self, answer: Answer) -> Score:
        line = self._replies.find(self.judge.question(answer), self.judge.max_tokens)
        if line is None:
            return self.judge.score(answer)
        error, text = line.get("error"), line.get("text")
        if isinstance(error, dict) or not isinstance(text, str):
            why = error.get("message") if isinstance(error, dict) else "it has no text"
            raise ScorerFailed(f"the judge's reply failed: {why}")
        if line.get("finish_reason") in _CUT:
            raise ScorerFailed(
                f"the judge's reply was cut: {line['finish_reason']}, max_tokens {self.judge.max_tokens}"
            )
        return self.judge.verdict(text)


def _key(question: str, max_tokens: object) -> bytes:
    """Of what decides a reply, 128 bits."""
    return bytes.fromhex(sha256_hex(f"{max_tokens} {question}".encode())[:32])


def _id_of(sample: Sample, judge: Judge) -> str:
    """`ITEM/SAMPLE/NAME`, `ITEM@SEED/SAMPLE/NAME` with seeds."""
    seed = "" if sample.seed is None else f"@{sample.seed}"
    return f"{sample.item}{seed}/{sample.sample}/{judge.name}"
