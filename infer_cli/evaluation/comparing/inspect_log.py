"""A log of inspect (`.eval`, or `.json`) as a run that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.comparing.comparable import Asked, ComparableRun, Content, MetricScores
from infer_cli.evaluation.comparing.foreign_json import MOST_BYTES, object_of, refused, score_of
from infer_cli.evaluation.comparing.foreign_scores import ForeignColumn, scored
from infer_cli.evaluation.comparing.likeness import Likeness, likeness_of, said, text_of
from infer_cli.evaluation.comparing.log_archive import LogArchive
from infer_cli.system.files import read_regular

_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # as inspect's own means count them
_ATTACHED = "attachment://"
_NOT_ENDED = "`inspect eval-retry` goes on"
_Sample = Mapping[str, object]


def read_inspect_log(path: Path) -> ComparableRun:
    """Raises UsageError for a file that is no log, or one of a run that did not end."""
    log = _archived(path) if path.suffix == ".eval" else _whole(path)
    header = log.header
    spec = _object(header.get("eval"))
    task = spec.get("task")
    if not isinstance(task, str):
        raise refused(path, "it is no log of inspect")
    if header.get("status") != "success":
        raise UsageError(
            f"{path}: the evaluation did not end (status {header.get('status')!s:.40})",
            _NOT_ENDED,
        )
    samples = _Samples(path, log)
    return ComparableRun(
        name=str(path),
        task=task.rpartition("/")[2],
        model=str(spec.get("model")),
        ids=samples.ids,
        contents=[Content(each.document or b"", each.prompt) for each in samples.likenesses],
        clusters=None,
        metrics=samples.metrics(_directions(header)),
        made_by={"program": "inspect", **_told(spec)},
        asked=samples.asked,
        is_foreign=True,
        likenesses=lambda: samples.likenesses,
    )


class _Log(NamedTuple):
    """`samples` are read one at a time, `read` reads one by its number."""

    header: Mapping[str, object]
    n_samples: int
    read: Callable[[int], _Sample]

    @property
    def samples(self) -> Iterable[_Sample]:
        return map(self.read, range(self.n_samples))


def _archived(path: Path) -> _Log:
    archive = LogArchive(path)
    if "header.json" not in archive.names:
        raise refused(path, "it has no header.json: the evaluation did not end", _NOT_ENDED)
    names = [name for name in archive.names if name.startswith("samples/")]
    header = object_of(archive.read("header.json"), path, "header.json")
    return _Log(header, len(names), lambda i: object_of(archive.read(names[i]), path, f"{names[i]:.80}"))


def _whole(path: Path) -> _Log:
    try:
        data = read_regular(path, MOST_BYTES)
    except OSError as e:
        raise UsageError(
            f"{path} can't be read: {e.strerror}",
            "`inspect log convert --to eval` makes one that is read in parts",
        ) from None
    log = object_of(data, path, "it")
    found = log.get("samples")
    samples = found if isinstance(found, list) else []
    return _Log(log, len(samples), lambda i: _object(samples[i]))


class _Samples:
    """The samples of a log: an item has one for each epoch."""

    def __init__(self, path: Path, log: _Log) -> None:
        self._log, self._first = log, list[int]()
        self._columns: dict[str, ForeignColumn] = {}
        self.ids: list[str] = []
        self.likenesses: list[Likeness] = []
        places: dict[str, int] = {}
        epochs: set[tuple[str, object]] = set()
        for number, sample in enumerate(log.samples):
            item, epoch = sample.get("id"), sample.get("epoch")
            if not isinstance(item, (str, int)) or not isinstance(epoch, int):
                raise refused(path, f"sample {number + 1} is none of inspect's")
            name = str(item)[:1000]
            if (name, epoch) in epochs:
                raise refused(path, f"sample {name:.80} is there twice in epoch {epoch}")
            epochs.add((name, epoch))
            place = places.setdefault(name, len(places))
            if place == len(self.ids):
                self.ids.append(name)
                self._first.append(number)
                self.likenesses.append(_likeness(sample, path, name))
            for score, value in _object(sample.get("scores")).items():
                self._add(place, score, _object(value).get("value"))
        if not self.ids:
            raise refused(path, "it has no sample", "inspect eval --log-samples writes them")

    def _add(self, place: int, name: str, value: object) -> None:
        """A score of several values is several metrics."""
        if isinstance(value, dict):
            for key, each in value.items():
                self._add(place, f"{name}/{key}", each)
            return
        score = _GRADES.get(value) if isinstance(value, str) else score_of(value)
        self._columns.setdefault(name, ForeignColumn(name)).add(place, score)

    def metrics(self, higher_is_better: Mapping[str, bool]) -> tuple[MetricScores, ...]:
        for name, column in self._columns.items():
            column.higher_is_better = higher_is_better.get(name, True)
        return scored(list(self._columns.values()), len(self.ids))

    def asked(self, place: int) -> Asked:
        sample = self._log.read(self._first[place])
        return Asked(said(_prompt(sample)), str(_object(sample.get("output")).get("completion", "")))


def _likeness(sample: _Sample, path: Path, name: str) -> Likeness:
    """Inspect does not keep rows of data; logs of ours have them."""
    metadata = _object(sample.get("metadata"))
    document = metadata.get("doc") if "digest" in metadata else None
    try:
        return likeness_of(document if isinstance(document, dict) else None, _prompt(sample))
    except ValueError:
        raise refused(path, f"sample {name:.80}: its data are no JSON") from None


def _prompt(sample: _Sample) -> object:
    """What was said before the model's first answer; without one, the sample's input."""
    messages = sample.get("messages")
    asked: list[object] = []
    attachments = _object(sample.get("attachments"))
    for message in messages if isinstance(messages, list) else []:
        each = _object(message)
        if each.get("role") == "assistant" and each.get("source") != "input":
            return asked
        asked.append({"role": each.get("role"), "content": _resolved(each.get("content"), attachments)})
    given = sample.get("input")
    return given if isinstance(given, list) else str(given)


def _resolved(content: object, attachments: Mapping[str, object]) -> str:
    text = text_of(content)
    return str(attachments.get(text.removeprefix(_ATTACHED), text)) if text.startswith(_ATTACHED) else text


def _directions(header: Mapping[str, object]) -> dict[str, bool]:
    """What a log of ours says; inspect does not."""
    found: dict[str, bool] = {}
    scores = _object(header.get("results")).get("scores")
    for score in scores if isinstance(scores, list) else []:
        name, told = _object(score).get("name"), _object(_object(score).get("metadata"))
        for metric in told.values():
            if isinstance(better := _object(metric).get("higher_is_better"), bool):
                found.setdefault(str(name), better)
    return found


def _told(spec: Mapping[str, object]) -> dict[str, str]:
    metadata = _object(spec.get("metadata"))
    return {name: str(metadata[name]) for name in ("mode", "promise") if name in metadata}


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
