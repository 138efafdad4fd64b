"""How `infer records` prints: tables, JSON, Markdown, differences."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from infer_cli.text.graphemes import beginning, wrapped
from infer_cli.text.sanitize import single_line

if TYPE_CHECKING:
    from infer_cli.records.compare import Comparison, TokenDifference
    from infer_cli.records.record import Record


_PREVIEW = 240  # characters of a prompt in a list


def write(text: str) -> None:
    """To stdout; on a terminal without what a terminal would obey: models wrote it."""
    if sys.stdout.isatty():
        from infer_cli.text.sanitize import sanitize

        text = sanitize(text)
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def as_object(record: Record) -> dict[str, object]:
    from infer_cli.records.record import as_json

    return as_json(record)


def write_json(records: Iterable[Record]) -> None:
    write_objects(map(as_object, records))


def write_objects(values: Iterable[dict[str, object]]) -> None:
    from infer_cli.answering.reply import json_line

    for value in values:
        sys.stdout.buffer.write(json_line(value))
    sys.stdout.buffer.flush()


def table_row(record: Record) -> tuple[str, ...]:
    """id, time, kind, model, tokens of the reply, finish reason, thread, beginning of the prompt."""
    from infer_cli.records.record import timestamp

    cells = (
        record.id,
        timestamp(record.created_at),
        record.kind,
        record.model,
        _n_tokens(record),
        record.finish_reason,
        record.thread,
        _preview(record),
    )
    return tuple("-" if cell is None else single_line(cell) for cell in cells)


def print_table(records: list[Record]) -> None:
    from infer_cli.cli.screen.table import Column, print_table, short_ids, when_in_short

    ids = short_ids([record.id for record in records])
    now = datetime.now().astimezone()
    rows = []
    for record, record_id in zip(records, ids, strict=True):
        _, _, kind, model, tokens, end, _, prompt = table_row(record)
        when = when_in_short(datetime.fromtimestamp(record.created_at).astimezone(), now)
        rows.append((record_id, when, kind, model, tokens, end, prompt))
    columns = (
        Column("id"),
        Column("when", rank=1, right=True),
        Column("kind", rank=4),
        Column("model", rank=2),
        Column("tokens", rank=3, right=True),
        Column("end", rank=5),
        Column("prompt", is_text=True),
    )
    print_table(columns, rows)


def _n_tokens(record: Record) -> str | None:
    return None if record.usage is None else str(record.usage["completion_tokens"])


def _preview(record: Record) -> str | None:
    """The beginning of what the user asked last, else of the prompt; of a job its output file."""
    if record.private:
        return "(private)"
    asked = [message.text for message in record.messages or () if message.role == "user"]
    text = asked[-1] if asked else record.prompt or record.output
    return None if text is None else beginning(text, _PREVIEW)


def described(record: Record, width: int | None = None) -> str:
    """`width`: columns of the terminal, where lines are cut between words; None: they stay whole."""
    from infer_cli.records.record import timestamp

    usage, timings = record.usage or {}, record.timings or {}
    settings = ", ".join(
        f"{s.name}={'not set' if s.value is None else s.value} ({s.origin})" for s in record.settings
    )
    facts: dict[str, object] = {
        "id": record.id,
        "kind": record.kind,
        "created": timestamp(record.created_at),
        "thread": record.thread,
        "turn": record.turn,
        "model": record.model,
        "model sha256": record.model_sha256,
        "model files": ", ".join(f"{file.path} ({file.size} bytes)" for file in record.model_files) or None,
        "adapters": ", ".join(f"{adapter.path}:{adapter.scale:g}" for adapter in record.adapters) or None,
        "template": record.template_sha256,
        "engine": record.fingerprint,
        "promise": None if record.promise is None else f"{record.promise} (mode {record.mode})",
        "settings": settings or None,
        "run seed": record.run_seed,
        "seed": record.seed,
        "tokens": ", ".join(f"{value} {name.removesuffix('_tokens')}" for name, value in usage.items())
        or None,
        "timings": ", ".join(f"{name} {value:.4g}" for name, value in _numbers(timings)) or None,
        "end": record.finish_reason,
        "choices": ", ".join(f"{c.text} {c.probability:.4f}" for c in record.choices or ()) or None,
        "truncation": record.truncation,
        "error": None if record.error is None else record.error.get("message"),
        "digest": record.digest,
        "output": record.output,
    }
    indent = max(map(len, facts)) + 2
    lines: list[str] = []
    for name, value in facts.items():
        if value is not None:
            text = single_line(str(value))
            first, *rest = [" " * indent + text] if width is None else wrapped(text, indent, width)
            lines += [name + first[len(name) :], *rest]
    if record.private:
        lines.append("private: only hashes of the prompt and the reply were kept; replay is off")
    return "\n".join([*lines, ""]) + "".join(
        f"\n--- {title}\n{_line_ended(text)}" for title, text in _texts(record)
    )


def _numbers(timings: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in timings.items() if isinstance(value, (int, float)))


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    """What was said: by whom, and what."""
    if record.messages is not None:
        yield from ((message.role, message.text) for message in record.messages)
    elif record.prompt is not None:
        yield "prompt", record.prompt
    if record.reasoning is not None:
        yield "reasoning", record.reasoning
    if record.text is not None:
        yield "reply", record.text


def markdown_of(record: Record) -> str:
    from infer_cli.records.record import timestamp

    about = [f"{timestamp(record.created_at)}", f"model {record.model}"]
    if record.seed is not None:
        about.append(f"seed {record.seed}")
    about += [f"end: {record.finish_reason}"] if record.finish_reason is not None else []
    about += [f"output: {record.output}"] if record.output is not None else []
    about += ["private"] if record.private else []
    texts = "".join(f"### {title}\n\n{_line_ended(text)}\n" for title, text in _texts(record))
    return f"## {record.id}\n\n{single_line(', '.join(about))}\n\n{texts}"


def _line_ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def differences_in_words(comparison: Comparison) -> str:
    lines = ["the replies are the same" if comparison.same_reply else "the replies differ"]
    width = max((len(difference.what) for difference in comparison.differences), default=0)
    lines += [f"{d.what:<{width}}  {_shown(d.a)} -> {_shown(d.b)}" for d in comparison.differences]
    lines += _token_difference("prompt", comparison.prompt) + _token_difference("reply", comparison.reply)
    return "\n".join(lines) + "\n"


def _token_difference(name: str, difference: TokenDifference | None) -> list[str]:
    if difference is None:
        return []
    a, b = ("the end" if token is None else str(token) for token in (difference.a, difference.b))
    lines = [f"{name} differs from token {difference.index} on: {a} -> {b}"]
    if difference.text_a != difference.text_b:
        lines += [f"  A: {difference.text_a!r}", f"  B: {difference.text_b!r}"]
    return lines


def _shown(value: object) -> str:
    return "-" if value is None else single_line(str(value))


def counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
