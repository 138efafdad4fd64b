"""What a line of a results file claims: replies or a likelihood."""

from __future__ import annotations

from collections.abc import Sequence

from infer_cli.batch.job import JobFile, Kind
from infer_cli.batch.output_index import Line
from infer_cli.checking.claimed_likelihoods import likelihood_claim
from infer_cli.checking.claimed_replies import reply_claims
from infer_cli.checking.examination import Claim


def kind_of(line: Line) -> Kind:
    """What a line's answers are."""
    return "likelihoods" if "token_logprobs" in line.value else "replies"


def claims_of(line: Line, job: JobFile | None) -> Sequence[Claim]:
    """The answers of a line. Raises UsageError for a line that is not as it should be."""
    return [likelihood_claim(line)] if kind_of(line) == "likelihoods" else reply_claims(line, job)
