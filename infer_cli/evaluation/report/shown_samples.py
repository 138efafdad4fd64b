"""The samples of a report: their texts, bounded, so that the page opens at once whatever a run is like."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from infer_cli.evaluation.report.blocks import number
from infer_cli.evaluation.report.calibration import probabilities
from infer_cli.evaluation.runs.reading import Run
from infer_cli.evaluation.runs.sample import Sample

MOST_ROWS = 20_000
MOST_CHARS = 16_000_000  # of all texts of a page
# Characters that are shown of one text: the most with which all fit.
_STEPS = (20_000, 10_000, 5_000, 2_500, 1_000, 500, 250)
_MOST_VALUES = 100  # choices, references, messages and scores of a sample
# The end of a long prompt is its question, that of a long reply its answer.
_HEAD_SHARE = 3


class Text(NamedTuple):
    """A text of a sample, and what it is."""

    title: str
    text: str


@dataclass(frozen=True)
class _Texts:
    """All that is shown of a sample."""

    texts: Sequence[Text]
    scores: Sequence[tuple[str, str, str]]  # name, value, explanation
    choices: Sequence[tuple[str, str, str, str]]  # text, what it is, likelihood, probability

    def cut(self, most: int) -> _Texts:
        return _Texts(
            [Text(text.title, shortened_text(text.text, most)) for text in self.texts],
            [
                (shortened_text(name, most), value, shortened_text(why, most))
                for name, value, why in self.scores
            ],
            [(shortened_text(choice[0], most), *choice[1:]) for choice in self.choices],
        )

    def lengths(self) -> Iterator[int]:
        yield from (len(text.text) for text in self.texts)
        yield from (len(name) + len(why) for name, _, why in self.scores)
        yield from (len(choice[0]) for choice in self.choices)


class ShownSamples(NamedTuple):
    """Rows for the page's script. `n_left_out` samples are not among them, all of which are right or have
    no more room; `most` characters are shown of one text."""

    rows: Sequence[Mapping[str, object]]
    n_left_out: int
    most: int


def shown_samples(runs: Sequence[Run]) -> ShownSamples:
    """Those that failed come first where there are too many. Raises UsageError for samples that are none."""
    statuses = [[status_of(run, sample) for sample in run.samples()] for run in runs]
    kept = _kept(statuses)
    lengths = array("q")
    for run, numbers in zip(runs, kept, strict=True):
        for number_, sample in enumerate(run.samples()):
            if number_ in numbers:
                lengths.extend(_texts(sample).lengths())
    most = most_chars(lengths)
    rows: list[Mapping[str, object]] = []
    for place, run in enumerate(runs):
        for number_, sample in enumerate(run.samples()):
            if number_ in kept[place]:
                rows.append(_row(place, number_, sample, statuses[place][number_], most))
    return ShownSamples(rows, sum(map(len, statuses)) - len(rows), most)


def most_chars(lengths: Sequence[int]) -> int:
    """How much of each text can be shown so that all have room."""
    return next(
        (most for most in _STEPS if sum(min(length, most) for length in lengths) <= MOST_CHARS), _STEPS[-1]
    )


def shortened_text(text: str, most: int) -> str:
    """Its beginning and its end, with how much is left out between them."""
    if len(text) <= most:
        return text
    head = most // _HEAD_SHARE
    left_out = len(text) - most
    return f"{text[:head]}\n[… {left_out:,} characters are left out …]\n{text[head + left_out :]}"


def status_of(run: Run, sample: Sample) -> str:
    """`right` or `wrong` where the main score can be: it is the best that a score from 0 to 1 can be, or not.
    `scored` for others; else the outcome."""
    if sample.outcome != "ok":
        return sample.outcome
    main = run.results.scores[0] if run.results.scores else None
    score = None if main is None else sample.scores.get(main.metric)
    if main is None or score is None or not 0 <= score <= 1:
        return "scored"
    return "right" if score == (1.0 if main.higher_is_better else 0.0) else "wrong"


def _kept(statuses: Sequence[Sequence[str]]) -> list[set[int]]:
    """Numbers of the samples that are shown, of each run."""
    kept: list[set[int]] = [set() for _ in statuses]
    room = MOST_ROWS
    for is_right in (False, True):
        for place, of_run in enumerate(statuses):
            numbers = [i for i, status in enumerate(of_run) if (status == "right") == is_right]
            kept[place].update(numbers[:room])
            room -= len(numbers[:room])
    return kept


def _row(run: int, place: int, sample: Sample, status: str, most: int) -> dict[str, object]:
    found = _texts(sample)
    cut = found.cut(most)
    return {
        "run": run,
        "line": place + 1,
        "item": shortened_text(sample.item, most),
        "group": sample.group,
        "status": status,
        "which": _which(sample),
        "texts": cut.texts,
        "scores": cut.scores,
        "choices": cut.choices,
        "cut": cut != found or _is_long(sample),
    }


def _is_long(sample: Sample) -> bool:
    return max(len(sample.choices), len(sample.references), len(sample.scores)) > _MOST_VALUES


def _which(sample: Sample) -> str:
    parts = []
    if sample.seed is not None:
        parts.append(f"seed {sample.seed}")
    if sample.sample:
        parts.append(f"sample {sample.sample}")
    return ", ".join(parts)


def _texts(sample: Sample) -> _Texts:
    texts = list(prompt_texts(sample.prompt))
    if sample.answer is not None:
        texts.append(Text("answer", sample.answer))
    if sample.extracted is not None and sample.extracted != sample.answer:
        texts.append(Text("extracted", str(sample.extracted)))
    texts += [Text("reference", str(reference)) for reference in sample.references[:_MOST_VALUES]]
    if sample.error is not None:
        texts.append(Text("error", str(sample.error.get("message", sample.error))))
    names = list(dict.fromkeys([*sample.scores, *sample.explanations]))[:_MOST_VALUES]
    return _Texts(
        texts,
        [(name, number(sample.scores.get(name)), sample.explanations.get(name, "")) for name in names],
        list(_choices(sample)),
    )


def prompt_texts(prompt: object) -> Iterator[Text]:
    """A text as it is; of messages each, with its role."""
    if not isinstance(prompt, list):
        if prompt != "":  # a likelihood may have no context
            yield Text("prompt", str(prompt))
        return
    for message in prompt[:_MOST_VALUES]:
        is_message = isinstance(message, dict) and isinstance(message.get("content"), str)
        if is_message:
            yield Text(f"prompt, {message.get('role')}", message["content"])
        else:
            yield Text("prompt", json.dumps(message, ensure_ascii=False))


def _choices(sample: Sample) -> Iterable[tuple[str, str, str, str]]:
    if sample.gold is None or len(sample.choices) < 2:
        return
    among = probabilities(sample.choices)
    for place, choice in enumerate(sample.choices[:_MOST_VALUES]):
        what = [
            *(["right"] if place == sample.gold else []),
            *(["chosen"] if among is not None and among.index(max(among)) == place else []),
        ]
        probability = "-" if among is None else f"{among[place]:.3f}"
        yield choice.text, ", ".join(what), number(choice.logprob), probability
