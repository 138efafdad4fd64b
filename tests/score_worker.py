"""Run as a process of its own: scores texts under one mode in several ways and prints what came out.

One mode a process, because llama.cpp reads its kernel settings once. Arguments: MODEL MODE WAY…
Output: one JSON line per way: {"way": …, "likelihoods": of each text, of each token, in hexadecimal,
"evaluated": tokens}. A way is words joined by commas: `shuffled`, `alone` (each text over an empty context),
`1thread`, `few` (few rows with logits a call).
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from infer_cli.backend import native
from infer_cli.models.installed import InstalledModel
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.types import Finished, Mode, ScoreRequest

SHOTS = "".join(f"Question: what is {n} and {n}? Answer: {2 * n}.\n" for n in range(12))
TEXTS = [
    *(
        f"The {noun} sat on the {place}"
        for noun in ("cat", "dog", "catfish")
        for place in ("mat", "mast", "m")
    ),
    *(f"{SHOTS}Question: what is {n} and 1? Answer: {n + a}." for n in (7, 8) for a in range(4)),
    "مرحبا كيف حالك",
    "a b " * 150,
]


def requests_of(session: Session) -> list[ScoreRequest]:
    """Half of the texts are scored whole, of the others their last tokens."""
    vocab = session.loaded.vocab
    prefix = vocab.bos if vocab.bos is not None else vocab.eos
    assert prefix is not None
    found = []
    for n, text in enumerate(TEXTS):
        ids = (prefix, *vocab.tokenize(text.encode()))
        found.append(ScoreRequest(str(n), ids, 1 if n < 6 or n >= len(TEXTS) - 1 else len(ids) - 4))
    return found


def score(session: Session, way: set[str]) -> tuple[list[list[str]], int]:
    requests = requests_of(session)
    window = max(len(request.ids) for request in requests)
    order = sorted(requests, key=lambda request: request.ids)
    if "shuffled" in way:
        random.Random(7).shuffle(order)
    ends: dict[str, Finished] = {}
    for part in [[request] for request in order] if "alone" in way else [order]:
        engine = session.score_engine(window, n_rows=24 if "few" in way else None)
        for request in part:
            engine.submit(request, time.perf_counter())
        while not engine.idle:
            ends |= {event.request_id: event for event in engine.step() if isinstance(event, Finished)}
        engine.close()
    likelihoods = []
    for request in requests:
        likelihood = ends[request.id].likelihood
        assert likelihood is not None, ends[request.id].error
        likelihoods.append([logprob.hex() for logprob in likelihood.token_logprobs])
    usages = [end.usage for end in ends.values()]
    return likelihoods, sum(usage.prompt_tokens - usage.cached_tokens for usage in usages)


def main() -> None:
    path, mode, *ways = sys.argv[1:]
    assert mode in ("fast", "canonical", "invariant")
    chosen: Mode = mode  # type: ignore[assignment]
    native.log_to(os.open(os.devnull, os.O_WRONLY))
    for way in ways:
        words = set(way.split(","))
        options = EngineOptions(threads=1 if "1thread" in words else 2, mode=chosen)
        session = Session(
            InstalledModel("it", Path(path), None, None), options, 1, os.open(os.devnull, os.O_WRONLY)
        )
        session.wait()
        likelihoods, n_evaluated = score(session, words)
        session.close()
        print(json.dumps({"way": way, "likelihoods": likelihoods, "evaluated": n_evaluated}), flush=True)


if __name__ == "__main__":
    main()
