"""Items on disk: `items.jsonl` has what is asked of and known about each, `requests.jsonl` its rows."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from infer_cli.batch.records import json_value
from infer_cli.errors import UsageError
from infer_cli.evaluation.tasks.doc import Doc, doc_sha256
from infer_cli.evaluation.tasks.item import Item
from infer_cli.system.files import bounded_lines, naming, open_regular

_KEYS = frozenset(
    {"index", "id", "sha256", "group", "cluster", "doc", "references", "choices", "gold", "fewshot", "n_rows"}
)


@dataclass(frozen=True)
class ItemLine:
    """A line of `items.jsonl`: an item but for its rows, of which it has `n_rows`. `sha256` is of `doc`."""

    index: int
    id: str
    sha256: str
    group: str | None
    cluster: str | None
    doc: Doc
    references: tuple[str, ...]
    choices: tuple[str, ...]
    gold: int | None
    fewshot: tuple[str, ...]
    n_rows: int

    def with_rows(self, rows: Iterable[Mapping[str, object]]) -> Item:
        return Item(
            self.index,
            self.id,
            self.doc,
            tuple(rows),
            self.references,
            self.choices,
            self.gold,
            self.group,
            self.cluster,
            self.fewshot,
        )


class WrittenItems(NamedTuple):
    """`sha256` is of the bytes of `items.jsonl`."""

    n_items: int
    n_rows: int
    sha256: str


def write_items(items: Iterable[Item], items_path: Path, requests_path: Path) -> WrittenItems:
    """Write both files, one item in memory at a time; what was there stays until both are whole.
    Raises OSError, and what `items` raises."""
    digest, n_items, n_rows = sha256(), 0, 0
    new = [path.with_name(f".{path.name}.new") for path in (items_path, requests_path)]
    try:
        for path in new:
            path.unlink(missing_ok=True)  # a link, where the folder is anyone's
        with naming(items_path), new[0].open("xb") as item_file, new[1].open("xb") as request_file:
            for item in items:
                line = _line(item_json(item))
                digest.update(line)
                item_file.write(line)
                for row in item.rows:
                    request_file.write(_line(row))
                n_items, n_rows = n_items + 1, n_rows + len(item.rows)
            for file in (item_file, request_file):
                file.flush()
                os.fsync(file.fileno())
        new[1].replace(requests_path)
        new[0].replace(items_path)
    finally:
        for path in new:
            path.unlink(missing_ok=True)
    return WrittenItems(n_items, n_rows, digest.hexdigest())


def item_json(item: Item) -> dict[str, object]:
    """The object of its line, in its fixed order of keys."""
    return {
        "index": item.index,
        "id": item.id,
        "sha256": doc_sha256(item.doc),
        "group": item.group,
        "cluster": item.cluster,
        "doc": item.doc,
        "references": item.references,
        "choices": item.choices,
        "gold": item.gold,
        "fewshot": item.fewshot,
        "n_rows": len(item.rows),
    }


def read_item_lines(path: Path) -> Iterator[ItemLine]:
    """Lines of `items.jsonl`, one at a time. Raises UsageError naming the line for what is no item's."""
    for number, value in _objects(path):
        where = f"{path}: line {number}"
        if set(value) != _KEYS or not _is_typed(value):
            raise UsageError(f"{where} is not an item's", "the file is written by `infer eval`")
        if doc_sha256(value["doc"]) != value["sha256"]:
            raise UsageError(f"{where}: the digest of its doc is not the one beside it")
        texts = {key: tuple(value[key]) for key in ("references", "choices", "fewshot")}
        yield ItemLine(**{**value, **texts})


def read_written_items(items_path: Path, requests_path: Path) -> Iterator[Item]:
    """Items of both files. Raises UsageError for files that do not belong together."""
    rows = (value for _, value in _objects(requests_path))
    for line in read_item_lines(items_path):
        own = list(itertools.islice(rows, line.n_rows))
        if len(own) < line.n_rows:
            raise UsageError(f"{requests_path} has fewer rows than {items_path} says")
        yield line.with_rows(own)
    if next(rows, None) is not None:
        raise UsageError(f"{requests_path} has more rows than {items_path} says")


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with open_regular(path) as file:
            for number, line in enumerate(bounded_lines(file, path), 1):
                try:
                    value = json_value(line.rstrip(b"\n"))
                except UsageError as e:
                    raise UsageError(f"{path}: line {number}: {e.message}", e.hint) from None
                if not isinstance(value, dict):
                    raise UsageError(f"{path}: line {number} is not an object")
                yield number, value
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from None


def _is_typed(value: Mapping[str, object]) -> bool:
    return (
        _is_whole(value["index"])
        and _is_whole(value["n_rows"])
        and isinstance(value["id"], str)
        and isinstance(value["sha256"], str)
        and isinstance(value["group"], (str, NoneType))
        and isinstance(value["cluster"], (str, NoneType))
        and (value["gold"] is None or _is_whole(value["gold"]))
        and isinstance(value["doc"], dict)
        and _are_texts(value["references"])
        and _are_texts(value["choices"])
        and _are_texts(value["fewshot"])
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value: object) -> bool:
    if not isinstance(value, list):
        return False
    for each in value:  # noqa: SIM110  # most are empty, for which all() takes as long as the rest of a line
        if not isinstance(each, str):
            return False
    return True


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
