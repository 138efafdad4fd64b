"""A finished reply for tests of sinks, with nothing in it that they look at but its sample and text."""

from __future__ import annotations

from infer_cli.types import EngineIdentity, ModelIdentity, Reply, Timings, Usage


def reply(sample: int = 0, text: str | None = "x") -> Reply:
    return Reply(
        id=f"r{sample}",
        custom_id=None,
        sample=sample,
        text=text,
        reasoning=None,
        tokens=(1,),
        logprobs=None,
        finish_reason="stop",
        digest="sha256:0",
        usage=Usage(1, 0, 1),
        timings=Timings(0.0, 0.0, None, 0.0, None, None),
        run_seed=None,
        seed=None,
        mode="canonical",
        promise="canonical",
        probed=False,
        params={},
        model=ModelIdentity(None, None),
        engine=EngineIdentity(None, None, None, {}),
    )
