"""A run of which every field holds what could break out of a page, and what could confuse its reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infer_cli.answering.reply import json_line
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.results import Estimated, Identity, MetricResult
from infer_cli.evaluation.runs.sample import Sample, ScoredChoice
from tests.evaluation.comparing.run_folders import RESULTS, Answered, write_run

# Each sets a mark where it runs; the last turn text around, hide it, or are halves of characters.
ATTACKS = (
    "<script>window.HACKED = 1</script>",
    "</script><script>window.HACKED = 2</script>",
    "<!--<script>window.HACKED = 3</script>-->",
    '"><img src=x onerror="window.HACKED = 4">',
    "</style></textarea></title><svg onload=window.HACKED=5>",
    "javascript:window.HACKED=6",
    "' onfocus='window.HACKED=7' autofocus='",
    "${window.HACKED = 8}{{7*7}}$data\\u003cscript\\u003e",
    "]]><iframe srcdoc='<script>top.HACKED=9</script>'>",
    "&lt;script&gt;window.HACKED=10&lt;/script&gt;",
    "\u202egnp.exe\u202c \u2066\u05d0\u05d1\u05d2 \x00\x07\x1b[31m\x7f\x85\u2028\u2029 \ud800\ufffe",
    "http://example.com/a?b=<c>&d",
)
HOSTILE = " ".join(ATTACKS)


def write_hostile_run(path: Path, *, n_wrong: int = 2) -> Path:
    """A run of six items, of which some are wrong. All texts of all files are hostile, but for the task's
    name in `run.json`: such a one is refused."""
    scores = [0.0 if i < n_wrong else 1.0 for i in range(6)]
    estimated = Estimated(0.5, 0.1, (0.25, 0.75), HOSTILE, 6, 6, HOSTILE)
    groups = {f"{i}{attack}": estimated for i, attack in enumerate(ATTACKS)}
    results = replace(
        RESULTS,
        task=dict.fromkeys(("name", "version", "description", "licence", "citation"), HOSTILE)
        | {"kind": "choice"},
        model=Identity(HOSTILE, HOSTILE),
        engine={HOSTILE: {HOSTILE: [HOSTILE]}},
        mode=HOSTILE,
        promise=HOSTILE,
        config={HOSTILE: HOSTILE},
        hashes={HOSTILE: HOSTILE},
        command=(HOSTILE, HOSTILE),
        infer=HOSTILE,
        libraries={HOSTILE: HOSTILE},
        hardware={HOSTILE: HOSTILE},
        began_at=HOSTILE,
        warnings=(HOSTILE,),
        code_scorers=(HOSTILE,),
        verified={HOSTILE: HOSTILE},
    )
    items = [Answered(f"{i} {HOSTILE}", [{HOSTILE: score}], HOSTILE) for i, score in enumerate(scores)]
    folder = RunFolder(write_run(path, items, metrics=(HOSTILE,), results=results))
    metric = MetricResult(HOSTILE, estimated, True, groups, estimated, (0.5,), 0.0)
    # What `write_run` does not write: groups, and all else that a sample can have.
    value = json.loads(folder.results.read_bytes())
    value["task"]["name"] = HOSTILE
    value["scores"] = [metric.as_json()]
    folder.results.write_text(json.dumps(value))
    folder.samples.write_bytes(b"".join(_line(i, score, len(ATTACKS)) for i, score in enumerate(scores)))
    return path


def _line(index: int, score: float, n_groups: int) -> bytes:
    messages = [{"role": HOSTILE, "content": HOSTILE}, HOSTILE]
    choice = ScoredChoice(HOSTILE, -1.0 - score, 1, 1, None)
    sample = Sample(
        item=f"{index} {HOSTILE}",
        index=index,
        sample=0,
        seed=None,
        group=f"{index % n_groups}{ATTACKS[index % n_groups]}",
        cluster=HOSTILE,
        prompt=messages if index % 2 else HOSTILE,
        answer=HOSTILE,
        extracted=HOSTILE + " extracted",
        references=(HOSTILE,),
        outcome="error" if index == 0 else "ok",
        scores={HOSTILE: score},
        explanations={HOSTILE: HOSTILE},
        choices=(choice, replace_logprob(choice)),
        gold=0,
        error={"code": 5, "message": HOSTILE} if index == 0 else None,
    )
    return json_line(sample.as_json())


def replace_logprob(choice: ScoredChoice) -> ScoredChoice:
    return choice._replace(logprob=-1.5)


def texts(value: object) -> Sequence[str]:
    """All texts of a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for each in value for text in texts(each)] if isinstance(value, list) else []
