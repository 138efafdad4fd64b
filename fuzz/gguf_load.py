"""Loads damaged GGUF files for real: no header may end the process.

    python -m fuzz.gguf_load --loads 2000            # the tiny model
    python -m fuzz.gguf_load --base MODEL.gguf       # and the header of a real one, over small tensors
    python -m fuzz.gguf_load --again SEED --keep x.gguf

A child reads the header, loads the model, tokenizes and decodes two tokens, file after file, as `infer run`
would; where it dies, the file's seed is noted and another child goes on. Every outcome must be a success or
an `InferError`. Prints one JSON line; exit code 1 where something else happened.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, cast

from fuzz.gguf_mutations import (
    Parts,
    mutated,
    of_architecture,
    read_parts,
    shrunk,
    with_byte_tokens,
    with_experts,
    write_parts,
)
from infer_cli.types import Mode
from tests.tiny_gguf import write_tiny_gguf

LOADS_A_CHILD = 200
MOST_SECONDS = 60.0  # of one load
MOST_MEMORY = 12 * 2**30  # of a child's address space
N_SHOWN = 20
TEXT = "Hello wörld, 12 x 3 = 36.\n\n\t日本語 🙂 <|im_end|> </s> \x01\x7f ~"


# --- the child ------------------------------------------------------------------------------------


def serve() -> None:
    """Answer each `MODE PATH` on stdin with a JSON line: the exit code and message that a user would get."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for line in sys.stdin:
        os.ftruncate(2, 0)
        print(json.dumps(_outcome(*line.rstrip("\n").split(" ", 1))), file=answers, flush=True)


def _outcome(mode: str, path: str) -> dict[str, object]:
    import traceback

    from infer_cli.errors import InferError

    try:
        _load(cast(Mode, mode), Path(path))
    except InferError as error:
        return {"code": int(error.exit_status), "native": error.native, "message": error.message}
    except BaseException:
        return {"code": -1, "message": traceback.format_exc()}
    return {"code": 0, "message": ""}


class _Quiet:
    native_fd = 2


def _load(mode: Mode, path: Path) -> None:
    from infer_cli.answering.reply import failure
    from infer_cli.errors import ExitStatus
    from infer_cli.models.facts import facts_of_model
    from infer_cli.models.gguf.reading import read_model_header
    from infer_cli.models.installed import InstalledModel
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.runtime.session import Session
    from infer_cli.text.json_text import json_text
    from infer_cli.types import EngineRequest, Finished, SamplingParams
    from infer_cli.vocab.loading import load_vocab

    load_vocab(read_model_header(path), _Quiet())  # type: ignore[arg-type]  # all that it uses of a worker
    json_text([fact.value for fact in facts_of_model(path, None, None, None)])
    session = Session(InstalledModel(path.name, path, None, None), EngineOptions(threads=1, mode=mode), 1, 2)
    loaded = session.loaded
    try:
        vocab = loaded.vocab
        ids = [*vocab.tokenize(TEXT.encode()), *vocab.tokenize_special(TEXT.encode())]
        controls = [token.id for token in vocab.control_tokens()[:50]]
        for token in {*ids, *controls, 0, vocab.n_tokens - 1}:
            vocab.piece(token), vocab.token_text(token), vocab.is_eog(token)
        if loaded.window < 3:
            return  # the smallest prompt would not fit, which is told before
        running = session.start(256)
        try:
            prompt = tuple(ids[: min(40, loaded.window - 1)]) or (0,)
            for event in running.service.submit([EngineRequest("a", prompt, SamplingParams(), max_tokens=2)]):
                if isinstance(event, Finished) and event.error is not None:
                    raise failure(event.error, event.error_status, "the model")
        finally:
            running.close()
    finally:
        try:
            session.close()
        except Exception as e:
            assert getattr(e, "exit_status", ExitStatus.UNEXPECTED) != ExitStatus.UNEXPECTED, e


# --- the parent -----------------------------------------------------------------------------------


class Child:
    """A process that loads files until it dies."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab+")
        self.n_loads = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.gguf_load", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "GGML_NO_BACKTRACE": "1", "PYTHONFAULTHANDLER": ""},
            text=True,
        )

    def load(self, path: Path, mode: str) -> dict[str, object]:
        """The outcome; "code" is None where the child died or had to be ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self.n_loads += 1
        self._process.stdin.write(f"{mode} {path}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], MOST_SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if line:
            outcome = json.loads(line)
            assert isinstance(outcome, dict)
            return outcome
        if not ready:
            self._process.kill()
        status = self._process.wait()
        name = "hang" if not ready else signal.Signals(-status).name if status < 0 else f"exit {status}"
        return {"code": None, "message": f"{name}: {self._last_words()}"}

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read()[-4000:].decode("utf-8", "replace").splitlines()
        wanted = [line for line in lines if "what():" in line or re.search(r"\.(c|cpp|h):\d+: ", line)]
        return " | ".join([line.rpartition("/llama.cpp/")[2] for line in wanted] or lines[-1:])[:300]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()
        self._log.close()


@dataclass
class Tally:
    """What came of the loads. `bad` holds seeds and what they did."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bad: list[dict[str, str]] = field(default_factory=list)

    def add(self, seed: str, outcome: dict[str, object]) -> None:
        code, message = outcome["code"], str(outcome["message"])
        kind = {None: "crash", -1: "traceback", 0: "loaded"}.get(code, f"exit {code}")  # type: ignore[call-overload]
        if outcome.get("native"):
            kind += " (llama.cpp's own refusal)"
        self.outcomes[kind] += 1
        if kind in ("crash", "traceback", "exit 1") or not (message.isprintable() or kind == "loaded"):
            self.bad.append({"seed": seed, "what": message[-600:]})


def bases(files: Sequence[Path], scratch: Path) -> list[tuple[str, Parts]]:
    """What is mutated, by name: tiny models of two architectures, and the headers of real files."""
    tiny = read_parts(write_tiny_gguf(scratch / "tiny.gguf"))
    window = read_parts(write_tiny_gguf(scratch / "window.gguf", sliding_window=64))
    found = [
        ("tiny", tiny),
        ("window", window),
        ("experts", with_experts(tiny)),
        ("bytes", with_byte_tokens(tiny)),
        ("qwen2", of_architecture(tiny, "qwen2")),  # its biases need not be there
        ("nanbeige", of_architecture(tiny, "nanbeige")),
    ]
    return found + [(path.stem, shrunk(read_parts(path, most_data=0))) for path in files]


def seeds(run: int, tiny: Sequence[str], real: Sequence[str], loads: int) -> Iterator[str]:
    """`BASE:RUN:NUMBER`: the tiny models in turn, a real header now and then, as it takes longer to load."""
    rng = random.Random(run)
    for i in range(loads):
        name = rng.choice(real) if real and rng.random() < 0.2 else tiny[i % len(tiny)]
        yield f"{name}:{run}:{i}"


def mode_of(seed: str) -> str:
    return random.Random(seed).choice(("fast", "canonical", "invariant"))


def fuzz(loads: int, run: int, files: Sequence[Path], progress: TextIO) -> Tally:
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="infer-fuzz-") as folder:
        scratch = Path(folder)
        by_name = dict(bases(files, scratch))
        child, path = Child(scratch / "log"), scratch / "mutated.gguf"
        try:
            names = list(by_name)
            n_tiny = len(names) - len(files)
            for i, seed in enumerate(seeds(run, names[:n_tiny], names[n_tiny:], loads)):
                write_parts(mutated(by_name[seed.split(":")[0]], seed), path)
                outcome = child.load(path, mode_of(seed))
                tally.add(seed, outcome)
                if outcome["code"] is None:
                    print(f"{seed}: {outcome['message']}", file=progress, flush=True)
                if outcome["code"] is None or child.n_loads >= LOADS_A_CHILD:
                    child.close()
                    child = Child(scratch / "log")
                if i % 500 == 499:
                    print(f"{i + 1} loads: {dict(tally.outcomes)}", file=progress, flush=True)
        finally:
            child.close()
    return tally


def again(seed: str, files: Sequence[Path], keep: Path | None) -> dict[str, object]:
    """The outcome of one seed; its file is written to `keep`."""
    with tempfile.TemporaryDirectory(prefix="infer-fuzz-") as folder:
        path = keep or Path(folder) / "mutated.gguf"
        write_parts(mutated(dict(bases(files, Path(folder)))[seed.split(":")[0]], seed), path)
        child = Child(Path(folder) / "log")
        try:
            return child.load(path, mode_of(seed))
        finally:
            child.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--loads", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="another number, other files")
    parser.add_argument("--base", type=Path, action="append", default=[], help="a real model's file")
    parser.add_argument("--again", help="load the file of one seed")
    parser.add_argument("--keep", type=Path, help="where to write that file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    if options.again:
        print(json.dumps(again(options.again, options.base, options.keep)))
        return 0
    began = time.monotonic()
    tally = fuzz(options.loads, options.seed, options.base, sys.stderr)
    print(
        json.dumps(
            {
                "loads": options.loads,
                "seed": options.seed,
                "seconds": round(time.monotonic() - began),
                "outcomes": dict(tally.outcomes.most_common()),
                "bad": len(tally.bad),
                "first": tally.bad[:N_SHOWN],
            }
        )
    )
    return 1 if tally.bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
