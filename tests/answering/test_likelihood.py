"""The value of a likelihood: its sums, its JSON object, its digest."""

from __future__ import annotations

import hashlib
import json
import math

import pytest

from infer_cli.answering import likelihood
from infer_cli.answering.likelihood import ScoredPair, scored_pair_of
from infer_cli.answering.reply import NOTHING_COMPUTED
from infer_cli.errors import ExitStatus
from infer_cli.types import (
    EngineIdentity,
    Finished,
    Likelihood,
    ModelIdentity,
    Provenance,
    ReplyError,
    Usage,
)

CAME_FROM = Provenance(ModelIdentity("fake", None), EngineIdentity("1", "fake", "f", {"infer": "1"}), False)
END = NOTHING_COMPUTED._replace(reason="stop", usage=Usage(5, 2, 0))


def scored(end: Finished, text: str = "é b", error: ReplyError | None = None) -> ScoredPair:
    return scored_pair_of(
        end,
        CAME_FROM,
        pair_id="p",
        context=(1, 2, 3),
        continuation=(4, 5, 6),
        text=text,
        mode="invariant",
        promise="invariant",
        error=error,
    )


def test_sums_are_exact() -> None:
    logprobs = (-0.1, -1e16, -0.2)
    pair = scored(END._replace(likelihood=Likelihood(logprobs, greedy=True)))
    assert pair.logprob == -1e16
    assert sum(logprobs[:1] * 10) != scored(END._replace(likelihood=Likelihood((-0.1,) * 10, True))).logprob
    value = likelihood.as_json(pair)
    assert (value["n_tokens"], value["n_bytes"], value["n_chars"]) == (3, 4, 3)
    assert value["logprob_per_token"] == -1e16 / 3
    assert value["logprob_per_byte"] == -1e16 / 4
    assert (value["greedy"], value["tokens"], value["error"]) == (True, [4, 5, 6], None)


def test_the_digest_is_over_the_three_values_alone() -> None:
    pair = scored(END._replace(likelihood=Likelihood((-0.5, -1.0, -0.25), greedy=False)))
    hashed = '{"context":[1,2,3],"continuation":[4,5,6],"token_logprobs":[-0.5,-1.0,-0.25]}'
    assert pair.digest == "sha256:" + hashlib.sha256(hashed.encode()).hexdigest()


def test_a_token_that_can_not_come_has_no_logarithm() -> None:
    value = likelihood.as_json(scored(END._replace(likelihood=Likelihood((-0.5, -math.inf, -1.0), False))))
    assert value["token_logprobs"] == [-0.5, None, -1.0]
    assert value["logprob"] is value["logprob_per_token"] is value["logprob_per_byte"] is None
    hashed = '{"context":[1,2,3],"continuation":[4,5,6],"token_logprobs":[-0.5,null,-1.0]}'
    assert value["digest"] == "sha256:" + hashlib.sha256(hashed.encode()).hexdigest()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (END._replace(reason="error", error="no", error_status=ExitStatus.MODEL_INVALID), 4),
        (END._replace(reason="deadline"), 7),
        (END._replace(reason="cancelled"), 130),
    ],
)
def test_what_failed_has_no_likelihood(end: Finished, code: int) -> None:
    value = likelihood.as_json(scored(end))
    assert value["logprob"] is value["token_logprobs"] is value["greedy"] is None
    assert value["logprob_per_token"] is value["logprob_per_byte"] is None
    assert isinstance(value["error"], dict) and value["error"]["code"] == code
    assert json.loads(json.dumps(value, allow_nan=False)) == value


def test_a_failure_before_the_engine() -> None:
    value = likelihood.as_json(scored(NOTHING_COMPUTED, error={"code": 2, "message": "why"}))
    assert value["error"] == {"code": 2, "message": "why"} and value["logprob"] is None
