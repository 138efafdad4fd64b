"""Is a likelihood that of its row? Looked at, asked again, compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from infer_cli.answering.likelihood import ScoredPair, digest
from infer_cli.batch.job import OutputFormat
from infer_cli.batch.kind import Asked, Lines, Origin
from infer_cli.batch.output_index import Line
from infer_cli.batch.pair_preparing import PairPreparer
from infer_cli.batch.pairs import POLICIES, PairLines, PairPolicy, PreparedPair
from infer_cli.checking.claimed_likelihoods import LikelihoodClaim
from infer_cli.checking.comparison import is_same
from infer_cli.checking.examination import Difference, Unchecked, different


class LikelihoodExamination:
    """`overflow` is the job's. Without a job it is None: how a context was cut is taken from the claims."""

    def __init__(
        self, overflow: PairPolicy | None, new_preparer: Callable[[PairPolicy], PairPreparer]
    ) -> None:
        self._overflow = overflow
        self._preparers = {policy: new_preparer(policy) for policy in POLICIES}

    def lines(self, origin: Origin, form: OutputFormat) -> Lines[ScoredPair]:
        return PairLines(origin)

    def preparer(self, claim: LikelihoodClaim) -> PairPreparer:
        return self._preparers[self._overflow or claim.overflow]

    def look(
        self, line: Line, claims: Sequence[LikelihoodClaim], asked: PreparedPair
    ) -> PreparedPair | Difference | Unchecked:
        (claim,) = claims
        if claim.error_code is not None and not claim.tokens:
            return different(claim, f"it failed with code {claim.error_code}, and the row can be scored")
        what = _unlike(claim, asked)
        return different(claim, what) if what else asked

    def again(self, claim: LikelihoodClaim, asked: PreparedPair) -> Asked[ScoredPair]:
        return asked

    def compare(self, claim: LikelihoodClaim, answer: ScoredPair) -> Difference | None:
        if claim.error_code is not None and answer.error is None:
            return different(claim, f"it failed with code {claim.error_code}, and now it is scored")
        if claim.error_code is None and answer.error is not None:
            return different(claim, f"no likelihood now: {answer.error['message']}")
        return None


def _unlike(claim: LikelihoodClaim, asked: PreparedPair) -> str:
    """What of a claim is not what the row asks for, in words; empty where all is."""
    pair = asked.pair
    if claim.tokens != pair.continuation:
        return "its tokens are not those of the row's continuation"
    if (claim.n_bytes, claim.n_chars) != (len(asked.text.encode()), len(asked.text)):
        return "its n_bytes or n_chars are not those of the row's continuation"
    if claim.n_prompt != len(asked.prompt_ids) and claim.error_code is None:
        return f"its prompt had {claim.n_prompt} tokens, the row's has {len(asked.prompt_ids)}"
    if not is_same(asked.truncation, claim.truncation):
        return "what was left out of its context is not what its line says"
    if claim.digest != digest(pair.context, pair.continuation, claim.token_logprobs):
        return "its digest is not that of what the line says"
    return ""
