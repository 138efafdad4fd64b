"""How long replies are and how long they took: from a run's samples and the times in its replies."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.sample import Sample
from infer_cli.evaluation.strict_numbers import number_of
from infer_cli.system.files import bounded_lines, open_regular

QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)


class Spread(NamedTuple):
    """Values of one kind, in ascending order."""

    name: str
    unit: str
    values: Sequence[float]

    def quantile(self, share: float) -> float:
        """The smallest value that at least this share of all do not exceed."""
        return self.values[max(math.ceil(share * len(self.values)) - 1, 0)]


def lengths(samples: Iterable[Sample], *, is_generated: bool) -> list[Spread]:
    """Tokens of prompts and of replies, or (not `is_generated`) of the texts whose likelihood is taken."""
    prompts, replies = array("d"), array("d")
    for sample in samples:
        prompts.append(sample.n_prompt_tokens)
        replies.append(sample.n_tokens)
    found = [Spread("length of replies" if is_generated else "length of scored texts", "tokens", replies)]
    if is_generated:
        found.insert(0, Spread("length of prompts", "tokens", prompts))
    return [each._replace(values=sorted(each.values)) for each in found if each.values]


def latencies(replies: Path) -> list[Spread]:
    """Of all lines with times: until the first token, and in all. Raises UsageError for a line that is none
    of a batch, or no file."""
    firsts, totals = array("d"), array("d")
    try:
        with open_regular(replies) as file:
            for n, line in enumerate(bounded_lines(file, replies), 1):
                timings = _timings(replies, n, line)
                for name, values in (("ttft_s", firsts), ("total_s", totals)):
                    seconds = number_of(timings.get(name))
                    if seconds is not None:
                        values.append(seconds)
    except OSError as e:
        raise UsageError(f"{replies} can't be read: {e.strerror}", "a report needs all of a run") from None
    found = [Spread("time to the first token", "s", firsts), Spread("time in all", "s", totals)]
    return [each._replace(values=sorted(each.values)) for each in found if each.values]


def _timings(path: Path, n: int, line: bytes) -> dict[str, object]:
    """Of an error row: none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{path}, line {n}: it is no JSON object", "put back the file that the run wrote")
    timings = value.get("timings")
    return timings if isinstance(timings, dict) else {}
