"""Formats of data, and what a file's name tells of them."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

DataFormat = Literal["jsonl", "csv", "tsv", "text"]
FORMATS: tuple[DataFormat, ...] = ("jsonl", "csv", "tsv", "text")
_SUFFIXES: dict[str, DataFormat] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "text",
}  # fmt: skip


def format_of_name(name: str) -> DataFormat | None:
    return _SUFFIXES.get(PurePath(name).suffix.lower())
