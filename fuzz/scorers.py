"""Scorers and extractions of tasks: hostile patterns, paths and schemas, over hostile replies.

An input is a JSON object: `extraction` and `scorer` are tables of a task, `reply` and `reference` texts.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

from fuzz.mutate import TEXTS
from fuzz.target import Broken, Input, Target
from infer_cli.evaluation.scorers.extraction import Extractor
from infer_cli.evaluation.scorers.registry import make_scorers
from infer_cli.evaluation.scorers.scorer import Answer, ScorerFailed
from infer_cli.evaluation.tasks.task import Extraction, ScorerSpec, Task

_MOST_EXPLANATION = 400  # characters
_REPLIES = (
    "answer", " is ", ": ", "(", ")", "B", "A ", "a", "**", "\\boxed{", "{", "}", "[", "]", '"',
    "\\", ",", "1", "1,234",
    ".5", "-", "$", "/", "%", "e9", "e999999999", "```", "```py\n", "~~~", "\n", " ", "\t", "\0",
    "\ud800", "\udfff",
    "é", "𝄞", "null", "NaN", '"a":', '{"a": [1, {"b": "x"}]}', "#### 72", "9" * 500, "[" * 70, "]" * 70,
)  # fmt: skip
_PATTERNS = (
    "a", "x", ".", "\\d", "\\w", "\\s", "\\b", "\\pL", "(", ")", "(?:", "(?=", "(?<!", "(?P<n>",
    "[", "^", "]", "a-z",
    "|", "*", "+", "?", "{2,}", "{1000}", "{1001}", "*?", "++", "$", "\\", "\\1", "(?i)", "(?s)",
    "#### ", "\ud800", "\0",
)  # fmt: skip
_PATHS = (
    "$", "$", ".a", ".b", "..", "..a", ".*", "[0]", "[-1]", "[*]", "['a']", "[0,1]", "[1:3]",
    "[::-1]", "[?", "@.a", "@",
    "$.a", " == ", "1", "'x'", " && ", "!", "length(", "search(", "match(", ",", ")", "]", "(",
    "count(@.*)",
)  # fmt: skip
_KEYWORDS = (
    "type", "pattern", "properties", "patternProperties", "items", "allOf", "anyOf", "not", "$ref",
    "$defs", "$schema",
    "$id", "$anchor", "$dynamicRef", "const", "enum", "multipleOf", "minimum", "uniqueItems",
    "required", "format",
)  # fmt: skip
_OPTIONS = (
    "ignore_case", "lower", "articles", "which", "values", "pattern", "full", "absolute", "relative",
    "percent_is_hundredth", "letters", "choices", "fields", "partial", "schema", "unit", "min", "max",
)  # fmt: skip
_SCORERS = (
    "exact", "normalized", "contains", "regex", "f1", "number", "choice", "json_field",
    "json_schema", "length",
    "not_empty", "ended", "exat",
)  # fmt: skip


class ScorersTarget(Target):
    name = "scorers"

    def generate(self, rng: random.Random) -> Input:
        kind = rng.choice(_SCORERS)
        options: dict[str, object] = {}
        if kind == "regex":
            options["pattern"] = _joined(rng, _PATTERNS, 10)
        elif kind == "json_schema":
            options["schema"] = {"type": ["object", "array"], **_schema(rng, 4)}
        elif kind == "json_field":
            options["fields"] = [_joined(rng, _PATHS, 6)]
        elif kind == "length":
            options["min"] = rng.randrange(9)
        if rng.random() < 0.3:
            options[rng.choice(_OPTIONS)] = _value(rng)
        value = {
            "extraction": {
                "kind": rng.choice(("whole", "regex", "last_number", "json_path", "code_block", "letter")),
                "pattern": _joined(rng, _PATTERNS, 10),
                "path": _joined(rng, _PATHS, 6),
                "group": rng.randrange(3),
                "first": rng.random() < 0.5,
            },
            "scorer": {"kind": kind, **options},
            "reply": _joined(rng, _REPLIES, 40) * rng.choice((1, 1, 1, 300)),
            "reference": _joined(rng, _REPLIES, 3),
        }
        return Input("json", json.dumps(value).encode())

    def check(self, given: Input) -> None:
        value = json.loads(given.data)
        found = self._found(value["extraction"], value["reply"])
        options = dict(value["scorer"])
        spec = ScorerSpec(options.pop("kind"), "score", options)
        task = Task("t", "1", "generate", "t.toml", "", "", scorers=(spec,))
        (scorer,) = make_scorers(task, allow_code=False)
        answer = Answer(value["reply"], found, (value["reference"],), {"choices": ["a", "b"]}, "stop")
        try:
            score = scorer.score(answer)
        except ScorerFailed as e:
            explanation = str(e)
        else:
            explanation = score.explanation
            if not 0 <= score.value <= 1 or not math.isfinite(score.value):
                raise Broken(f"a score is {score.value}")
            if scorer.is_proportion and score.value not in (0, 1):
                raise Broken(f"a score of a proportion is {score.value}")
        if len(explanation) > _MOST_EXPLANATION:
            raise Broken(f"an explanation has {len(explanation)} characters")

    def _found(self, table: dict[str, object], reply: str) -> str:
        extractor = Extractor([Extraction(**table)], "t.toml")  # type: ignore[arg-type]
        found = extractor.find(reply)
        if found != extractor.find(reply):
            raise Broken("an extraction finds something else the second time")
        if found is not None and found != found.strip():
            raise Broken("an answer has white space around it")
        return reply if found is None else found


def _joined(rng: random.Random, pieces: Sequence[str], most: int) -> str:
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, most)))


def _value(rng: random.Random) -> object:
    text = rng.choice(TEXTS)
    return rng.choice((text, [text], {text: 1}, True, 0, -1, 1.5, 10**30, [], {}, [1], "all", "words", "AB"))


def _schema(rng: random.Random, depth: int) -> dict[str, object]:
    """Not always one: a keyword may have any value."""
    made: dict[str, object] = {}
    for _ in range(rng.randint(0, 3)):
        keyword = rng.choice(_KEYWORDS)
        inner = _schema(rng, depth - 1) if depth else {}
        made[keyword] = {
            "pattern": _joined(rng, _PATTERNS, 8),
            "properties": {"a": inner, "$ref": inner},
            "patternProperties": {_joined(rng, _PATTERNS, 4): inner},
            "items": inner,
            "allOf": [inner, inner],
            "anyOf": [inner, True],
            "not": inner,
            "$ref": rng.choice(
                ("#", "#/$defs/a", "#/items", "#a", "http://127.0.0.1:1/x", "file:///etc/passwd")
            ),
            "$defs": {"a": inner, "b": {"$ref": "#/$defs/a"}},
        }.get(keyword) or _value(rng)
    return made
