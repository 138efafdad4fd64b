"""What do the promises cost? Tokens a second of canonical and invariant as a share of fast.

    python -m benchmarks.modes [--rounds 7] [--threads N] [--smollm2 MODEL] [--gemma MODEL]
        [--types Q4_1,Gemma] [--loads short,long] [--requests 32]

short: 32 questions, 48 tokens each. long: 32 prompts of 430 tokens, 16 tokens each. 16 side by side, greedy,
no two prompts beginning alike. The default model is quantized anew to each type, Gemma 3 is taken as it is.

The engine alone is measured, in a process each time, without its load. All modes have the weights as they are
stored, where `infer batch --fast` might take them as F16. Fast and invariant guess ahead, as they always do.
A table for docs/determinism.md goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import common
from benchmarks.quantizations import FTYPES, GEMMA, quantize
from infer_cli.types import Mode

WIDTH = 16
MODES: tuple[Mode, ...] = ("fast", "canonical", "invariant")
TYPES = ("Q4_1", "Q4_0", "Q8_0", "Q4_K_M", "Q6_K", GEMMA)


class Load(NamedTuple):
    """`n_prompt` None: as long as the question is. Tokens."""

    n_prompt: int | None
    n_reply: int


LOADS = {"short": Load(None, 48), "long": Load(430, 16)}

# The default model's template.
_BEFORE, _AFTER = b"<|im_start|>user\n", b"<|im_end|>\n<|im_start|>assistant\n"

_THINGS = (
    "a volcano", "the moon", "bread", "a compass", "rain", "the heart", "glass", "a magnet",
    "paper", "the tide", "honey", "a battery", "snow", "the ear", "rust", "a rainbow",
    "salt", "the wind", "soap", "a telescope", "steel", "the brain", "sand", "a candle",
    "cheese", "thunder", "silk", "a clock", "coal", "the eye", "ink", "a bridge",
)  # fmt: skip
_ASKS = ("How does {} work?", "What is {} made of?", "Why do we need {}?", "Who first described {}?")


def benchmark() -> str:
    given = _arguments().parse_args()
    types, loads = given.types.split(","), given.loads.split(",")
    for wrong in [*(set(types) - {*FTYPES, GEMMA}), *(set(loads) - {*LOADS})]:
        raise common.BenchmarkError(f"{wrong!r} is neither a type nor a load")
    report, threads = common.Report("modes", given.rounds), common.threads_of(given)
    source = common.model_path(given.smollm2)
    gemma = common.model_path(given.gemma) if GEMMA in types else ""
    shares: dict[tuple[str, str, Mode], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        env = common.clean_environment(Path(folder) / "home")
        version = common.run([*common.INFER, "--version"], env).stdout.split()[-1]
        for name in types:
            model = Path(gemma if name == GEMMA else f"{folder}/{name}.gguf")
            if name != GEMMA:
                quantize(source, model, name, env)
            for load in loads:
                order = {
                    "model": str(model),
                    "threads": threads,
                    "load": load,
                    "n": given.requests,
                    "chat": name != GEMMA,  # a base model
                }
                results = common.interleave(
                    {m: _rate({**order, "mode": m}, env) for m in MODES}, given.rounds
                )
                for mode, rates in results.items():
                    report.series(f"{name} {load} {mode} tokens/s", rates)
                for mode in MODES[1:]:
                    ratio = report.ratio(f"{name} {load}: {mode} / fast", results[mode], results["fast"])
                    shares[name, load, mode] = ratio
            if name != GEMMA:
                model.unlink()
    print(_table(types, loads, shares), file=sys.stderr)
    settings = {
        "threads": threads,
        "width": WIDTH,
        "requests": given.requests,
        "types": types,
        "loads": loads,
    }
    return report.line(common.machine_facts(infer=version), settings)


def _rate(order: Mapping[str, object], env: dict[str, str]) -> Callable[[], float]:
    """Tokens a second of the replies, their prompts' time included; in a process of its own, since llama.cpp
    reads its settings once."""
    command = [sys.executable, "-c", "from benchmarks import modes; modes.answer_all()", json.dumps(order)]

    def measure() -> float:
        found = json.loads(common.run(command, env).stdout)
        return float(found["tokens"] / found["seconds"])

    return measure


def answer_all() -> None:
    """What the process does: carries out the order in its argument, prints tokens and seconds."""
    import time

    from infer_cli.engine.engine import Engine
    from infer_cli.runtime.llama_loading import LlamaLoader
    from infer_cli.runtime.options import EngineOptions
    from infer_cli.types import EngineRequest, Finished, SamplingParams

    order = json.loads(sys.argv[1])
    load = LOADS[order["load"]]
    options = EngineOptions(threads=order["threads"], mode=order["mode"], gpu_layers="0")
    loader = LlamaLoader(Path(order["model"]), options, WIDTH, os.open(os.devnull, os.O_WRONLY))
    loaded = loader.loaded()
    before, after = (b"", b"") if not order["chat"] else (_BEFORE, _AFTER)
    begin, end = (loaded.vocab.tokenize_special(text) for text in (before, after))
    prompts = []
    for i in range(order["n"]):
        ids = loaded.vocab.tokenize(_text(i, load).encode())
        n = len(ids) if load.n_prompt is None else load.n_prompt - len(begin) - len(end)
        prompts.append((*begin, *ids[:n], *end))
    if len({prompt[:20] for prompt in prompts}) < len(prompts) or len(prompts[0]) < (load.n_prompt or 1):
        raise SystemExit("the prompts begin alike, or are too short")
    window = max(map(len, prompts)) + load.n_reply
    policy = loaded.policy
    backend = loaded.open(loaded.context(policy, window))
    backend.vocab.is_eog = lambda token: False  # type: ignore[method-assign]  # all replies are equally long
    engine = Engine(backend, policy, time.perf_counter, window)
    tokens, seconds = 0, 0.0
    for requests in (prompts[:1], prompts):  # the first call of all reads the file
        for i, prompt in enumerate(requests):
            engine.submit(EngineRequest(str(i), prompt, SamplingParams(), load.n_reply), 0.0)
        began, tokens = time.perf_counter(), 0
        while not engine.idle:
            tokens += sum(len(event.tokens) for event in engine.step() if isinstance(event, Finished))
        seconds = time.perf_counter() - began
    if tokens != len(prompts) * load.n_reply:
        raise SystemExit(f"replies end early: {tokens} tokens of {len(prompts)} replies")
    print(json.dumps({"tokens": tokens, "seconds": seconds}))


def _text(i: int, load: Load) -> str:
    """The i-th prompt, or more than it."""
    thing = _THINGS[i % len(_THINGS)]
    ask = _ASKS[i // len(_THINGS) % len(_ASKS)].format(thing)
    if load.n_prompt is None:
        return f"{ask} Say it in a few plain sentences that a child understands, with one example.\nAnswer:"
    lines = (f"{ask} Line {n} says that {n * (i + 7) % 97} of them were seen." for n in range(load.n_prompt))
    return "\n".join(lines)


def _table(types: list[str], loads: list[str], shares: Mapping[tuple[str, str, Mode], float]) -> str:
    """Markdown."""
    columns = [(load, mode) for load in loads for mode in ("invariant", "canonical")]
    lines = [
        "| Weights | " + " | ".join(f"{load}: {mode}" for load, mode in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name in types:
        cells = [f"{shares[name, load, mode]:.2f}" for load, mode in columns]  # type: ignore[index]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _arguments() -> argparse.ArgumentParser:
    parser = common.arguments(__doc__, rounds=common.MIN_ROUNDS)
    common.add_model(parser)
    common.add_gemma(parser)
    parser.add_argument("--types", default=",".join(TYPES), help="some of these, with commas between")
    parser.add_argument("--loads", default=",".join(LOADS), help="short, long or both")
    parser.add_argument("--requests", type=int, default=32, help="of each load (32)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(benchmark))
