"""`infer tokens`: how many tokens a text is, which ones, and whether they fit. Loads no weights."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, Optional

import typer

from infer_cli.cli.flags import options as o
from infer_cli.cli.screen.terminal import console
from infer_cli.errors import UsageError

if TYPE_CHECKING:
    from infer_cli.backend.base import Vocab
    from infer_cli.cli.screen.terminal import Notices
    from infer_cli.process.worker import Worker
    from infer_cli.vocab.counting import CountedInput, CountedText, TokenCounter

# Typer reads the signature at run time, on Python 3.10 too: `Optional` there, not `| None`.
# ruff: noqa: UP045

Shown = Literal["count", "ids", "pieces", "json"]

_ID_LIST = r"\d{1,9}(?:[,\s]+\d{1,9})*,?"
_IDS = re.compile(rf"{_ID_LIST}|\[\s*{_ID_LIST}\s*\]", re.ASCII)  # a list as JSON has it too

_PIECE_STYLES = (
    "black on bright_cyan",
    "black on bright_yellow",
    "black on bright_green",
    "black on bright_magenta",
)


def tokens(
    text: Annotated[Optional[list[str]], typer.Argument(help="The text; words are joined.")] = None,
    model: o.Model = None,
    file: Annotated[
        Optional[list[str]],
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="Count a file, a folder's text files or a web page; `-` is stdin.",
        ),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Show the ids; of ids such as 1,2,3 the text.")] = False,
    pieces: Annotated[
        bool, typer.Option("--pieces", help="Show what each token stands for; a line each in a pipe.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a text, ids included.")] = False,
    add_special: Annotated[
        bool,
        typer.Option("--add-special", help="Add the tokens that the model wants around a text (BOS, EOS)."),
    ] = False,
    parse_special: Annotated[
        bool, typer.Option("--parse-special", help="Let the text contain control tokens.")
    ] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    offline: o.Offline = False,
) -> int:
    """Count the tokens of a text, of files or of stdin. As a model would; its weights are not loaded."""
    from infer_cli.process.supervisor import supervise

    if ids + pieces + as_json > 1:
        raise UsageError("--ids, --pieces and --json exclude each other")
    shown: Shown = "ids" if ids else "pieces" if pieces else "json" if as_json else "count"
    words, names = tuple(text or ()), tuple(file or ())
    if not words and not names and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("there is no text to count", "give it as an argument, with -f FILE, or on stdin")

    def work(worker: Worker) -> int:
        from infer_cli.cli.screen.terminal import Notices
        from infer_cli.process.explain import explained
        from infer_cli.vocab.counting import TokenCounter

        notices = Notices(quiet=quiet, stats=False)
        try:
            with explained(worker):
                source = _open(model, offline, quiet, notices, worker)
                counter = TokenCounter(source, add_special=add_special, parse_special=parse_special)
                if shown == "ids" and not names and _IDS.fullmatch(" ".join(words)):
                    sys.stdout.buffer.write(counter.text_of(_ids_in(words)) + b"\n")
                else:
                    _Report(counter, shown).of(_inputs(words, names, notices, offline=offline))
        finally:
            notices.clear()
        return 0

    return supervise(work, verbose=verbose)


def _amount(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"


# --- what is counted ------------------------------------------------------------------------------


def _ids_in(words: tuple[str, ...]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", " ".join(words))]


def _inputs(
    words: tuple[str, ...], names: tuple[str, ...], notices: Notices, *, offline: bool
) -> list[CountedInput]:
    from infer_cli.prompt.named_texts import read_named
    from infer_cli.system.files import is_url
    from infer_cli.vocab.counting import CountedInput

    if names.count("-") > 1:
        raise UsageError("-f - is given twice: stdin can be read once")
    inputs = []
    if words:
        data = " ".join(words).encode("utf-8", "surrogateescape")
        inputs.append(CountedInput(None, lambda: iter((data,))))
    for name in names:
        if name != "-" and (is_url(name) or os.path.isdir(name)):
            found = read_named(name, notices, offline=offline)
            inputs += [CountedInput(item.name, partial(_whole, item.text)) for item in found]
        else:
            inputs.append(CountedInput("stdin" if name == "-" else name, _reader(name)))
    return inputs or [CountedInput(None, _reader("-"))]


def _whole(text: str) -> Iterator[bytes]:
    yield text.encode()


def _reader(name: str) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        from infer_cli.system.files import open_regular
        from infer_cli.vocab.tiktoken_tokenizer import BLOCK_BYTES

        try:
            with contextlib.nullcontext(_stdin()) if name == "-" else open_regular(name) as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        except OSError as e:
            raise UsageError(f"{name}: {e.strerror}", "name a text file that can be read") from None

    return blocks


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("there is no stdin to read")
    return sys.stdin.buffer


# --- what counts ----------------------------------------------------------------------------------


def _open(model: str | None, offline: bool, quiet: bool, notices: Notices, worker: Worker) -> CountedText:
    from infer_cli.models.installed import is_fake

    if is_fake(model):
        assert model is not None
        return _fake(model)
    from infer_cli.vocab.tiktoken_file import SUFFIX

    if model is not None and model.endswith(SUFFIX):
        return _encoding(Path(model))
    from infer_cli.cli.screen.pull_progress import PullProgress
    from infer_cli.models.gguf.reading import read_header
    from infer_cli.models.store import resolve
    from infer_cli.vocab.counting import CountedText, read_once
    from infer_cli.vocab.loading import load_vocab
    from infer_cli.vocab.tiktoken_proof import exact_tokenizer

    with PullProgress(quiet) as progress:
        found = resolve(model, offline=offline, on_fetch=progress.notice, on_event=progress.event)
    header = read_header(found.path)
    vocab = read_once(lambda: load_vocab(header, worker))
    exact = exact_tokenizer(header, vocab, lambda: notices.status("checking this vocabulary, once"))
    notices.clear()
    return CountedText(found.name, header.hyperparameter("context_length"), vocab, exact, "llama.cpp", header)


def _fake(model: str) -> CountedText:
    from infer_cli.backend.fake import FakeScript, FakeVocab
    from infer_cli.vocab.counting import CountedText

    path = model.partition(":")[2]
    script = FakeScript.read(Path(path)) if path else FakeScript()
    return CountedText(model, script.n_ctx_train, FakeVocab, None, "fake", None)


def _encoding(path: Path) -> CountedText:
    from infer_cli.vocab.counting import CountedText
    from infer_cli.vocab.tiktoken_file import read_encoding

    def no_vocab() -> Vocab:
        raise UsageError(
            f"{name} has no special tokens here", "--add-special and --parse-special need a model (-m)"
        )

    name, exact = read_encoding(path)
    return CountedText(name, None, no_vocab, exact, "llama.cpp", None)


# --- what is shown --------------------------------------------------------------------------------


class _Report:
    def __init__(self, counter: TokenCounter, shown: Shown) -> None:
        self._counter, self._shown = counter, shown
        self._out: BinaryIO = sys.stdout.buffer

    def of(self, inputs: list[CountedInput]) -> None:
        from infer_cli.vocab.tiktoken_tokenizer import NotText, TooLongAtOnce

        counts = []
        for item in inputs:
            try:
                counts.append(self._one(item, alone=len(inputs) == 1))
            except (NotText, TooLongAtOnce) as e:
                raise type(e)(f"{item.name or 'the text'}: {e.message}", e.hint) from None
        total = sum(counts)
        if self._shown == "json":
            if len(inputs) > 1:
                self._write_json({"total": {"n_inputs": len(inputs), **self._facts(total)}})
            return
        self._line(f"{total}\ttotal" if len(inputs) > 1 else _amount(total))
        self._line(self._fit(total))

    def _one(self, item: CountedInput, *, alone: bool) -> int:
        """Show an input; how many tokens it has."""
        if self._shown == "json":
            return self._json(item, alone=alone)
        if self._shown != "count" and not alone:
            self._line(f"{item.name or 'text'}:")
        if self._shown == "ids":
            n = self._ids(self._counter.ids(item))
            self._line("")
        elif self._shown == "pieces":
            n = self._pieces(self._counter.ids(item))
        else:
            n = self._counter.count(item)
        if not alone:
            self._line(f"{n}\t{item.name or 'text'}")
        return n

    def _line(self, text: str) -> None:
        self._out.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def _fit(self, n_tokens: int) -> str:
        source = self._counter.source
        if source.window is None:
            return f"{source.name} does not say how large its window is"
        left = source.window - n_tokens
        outcome = f"yes, {left} left" if left >= 0 else f"no, {-left} too many"
        return f"fits the window of {source.name} ({source.window}): {outcome}"

    def _facts(self, n_tokens: int) -> dict[str, object]:
        source = self._counter.source
        window = source.window
        return {
            "n_tokens": n_tokens,
            "method": self._counter.method,
            "model": source.name,
            "window": window,
            "fits": None if window is None else n_tokens <= window,
            "left": None if window is None else window - n_tokens,
        }

    def _ids(self, stretches: Iterable[list[int]], joint: bytes = b" ") -> int:
        n = 0
        for ids in stretches:
            if ids:
                self._out.write((joint if n else b"") + joint.join(b"%d" % i for i in ids))
                n += len(ids)
        return n

    def _json(self, item: CountedInput, *, alone: bool) -> int:
        """Ids first: they are written as they come, and the count is known after."""
        stretches = self._counter.ids(item)
        begun = list(islice(stretches, 2))  # what can't be read is an error before anything is written
        self._out.write(b'{"ids": [')
        n = self._ids(chain(begun, stretches), b", ")
        self._out.write(b"], ")
        facts = self._facts(n) if alone else {"name": item.name, **self._facts(n)}
        self._out.write(json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace")[1:] + b"\n")
        return n

    def _write_json(self, value: dict[str, object]) -> None:
        self._line(json.dumps(value, ensure_ascii=False))

    def _pieces(self, stretches: Iterable[list[int]]) -> int:
        n = 0
        if not sys.stdout.isatty():
            for ids in stretches:
                self._out.writelines(f"{i}\t{shown_piece(self._counter.piece(i))}\n".encode() for i in ids)
                n += len(ids)
            return n
        from rich.text import Text

        screen = console(sys.stdout, highlight=False, soft_wrap=True)
        colours = screen.color_system is not None and not screen.no_color
        for ids in stretches:
            line = Text()
            for i in ids:
                piece = self._counter.piece(i)
                style = _PIECE_STYLES[n % len(_PIECE_STYLES)] if colours else ""
                line.append(shown_piece(piece) + ("" if colours else "|"), style)
                if piece.endswith(b"\n"):
                    line.append("\n")
                n += 1
            screen.print(line, end="")
        screen.print()
        return n


def shown_piece(piece: bytes) -> str:
    """A piece in one line: control characters and bytes that are no character are escaped."""
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in piece)
    return "".join(
        "\\\\"
        if char == "\\"
        else char
        if char.isprintable()
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
