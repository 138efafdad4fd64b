"""A text measured with a loaded model, and with another one beside it: the result, and its JSON object."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_cli.answering.reply import finite
from infer_cli.scoring.comparison import Comparison, check_same_vocabulary, rows_a_call
from infer_cli.scoring.perplexity import measure_perplexity

if TYPE_CHECKING:
    from infer_cli.runtime.running_engine import RunningEngine
    from infer_cli.runtime.session import Session
    from infer_cli.scoring.comparison import OnCompared
    from infer_cli.scoring.divergence import Divergence
    from infer_cli.scoring.perplexity import OnWindow, Perplexity
    from infer_cli.scoring.statistics import Estimate
    from infer_cli.scoring.windowed_text import WindowedText
    from infer_cli.scoring.windows import Windowing
    from infer_cli.types import Mode, Promise, Provenance


@dataclass(frozen=True)
class ComparedWith:
    """The model that a measurement is against, and how far the measured one is from it."""

    ppl: Estimate
    divergence: Divergence
    mode: Mode
    promise: Promise
    provenance: Provenance

    def as_json(self) -> dict[str, object]:
        far = self.divergence
        return {
            "ppl": finite(self.ppl.value),
            "stderr": finite(self.ppl.error),
            "ppl_ratio": finite(far.ppl_ratio.value),
            "ppl_ratio_stderr": finite(far.ppl_ratio.error),
            "kl_mean": finite(far.kl_mean.value),
            "kl_mean_stderr": finite(far.kl_mean.error),
            "kl_median": finite(far.kl_median),
            "kl_p99": finite(far.kl_p99),
            "kl_max": finite(far.kl_max),
            "same_top": far.same_top.value,
            "same_top_stderr": far.same_top.error,
            "mode": self.mode,
            "promise": self.promise,
            "model": self.provenance.model._asdict(),
            "engine": self.provenance.engine._asdict(),
        }


@dataclass(frozen=True)
class Measurement:
    """What was measured, how the text was cut, and what computed it."""

    found: Perplexity
    windowing: Windowing
    mode: Mode
    promise: Promise
    provenance: Provenance
    against: ComparedWith | None = None

    def as_json(self) -> dict[str, object]:
        """The object of `infer perplexity --json`, in its fixed key order; null for what is not finite."""
        found, windowing = self.found, self.windowing
        value: dict[str, object] = {
            "ppl": finite(found.ppl.value),
            "stderr": finite(found.ppl.error),
            "nll": finite(found.nll.value),
            "bits_per_byte": finite(found.bits_per_byte),
            "n_tokens": found.n_tokens,
            "n_bytes": found.n_bytes,
            "n_windows": found.n_windows,
            "windows": windowing.kind,
            "window": windowing.window,
            "stride": windowing.stride,
            "mode": self.mode,
            "promise": self.promise,
            "probed": self.provenance.probed,
            "model": self.provenance.model._asdict(),
            "engine": self.provenance.engine._asdict(),
        }
        return value if self.against is None else {**value, "against": self.against.as_json()}


def measure_text(session: Session, text: WindowedText, on_window: OnWindow | None = None) -> Measurement:
    """With an engine of the session's model. Raises as `measure_perplexity`, and OutOfMemory."""
    with closing(session.start_scoring(text.n_read)) as running:
        return measure_with(running, session.model.name, text, on_window)


def measure_with(
    running: RunningEngine,
    model: str,
    text: WindowedText,
    on_window: OnWindow | None = None,
    *,
    request_prefix: str = "",
) -> Measurement:
    """With an engine that runs. Raises as `measure_perplexity`, whose arguments these are."""
    found = measure_perplexity(running.service, text, model, on_window, request_prefix=request_prefix)
    policy = running.policy
    return Measurement(found, text.windowing, policy.mode, policy.promise, running.provenance())


def measure_against(
    session: Session, base: Session, text: WindowedText, on_window: OnCompared | None = None
) -> Measurement:
    """With an engine of each of two models, stepped on this thread; `text` was cut for the first.

    Raises UsageError where their vocabularies are not the same, and as `Comparison.run`, and OutOfMemory.
    """
    vocab, names = session.loaded.vocab, (session.model.name, base.model.name)
    check_same_vocabulary(vocab, base.loaded.vocab, *names)
    comparison = Comparison(text, *names)
    window, n_rows = text.n_read, rows_a_call(vocab.n_tokens)
    with (
        closing(session.score_engine(window, on_row=comparison.see_model, n_rows=n_rows)) as engine,
        closing(base.score_engine(window, on_row=comparison.see_base, n_rows=n_rows)) as base_engine,
    ):
        compared = comparison.run(engine, base_engine, on_window)
    own, other = session.loaded.policy, base.loaded.policy
    against = ComparedWith(
        compared.base.ppl, compared.divergence, other.mode, other.promise, base.provenance(window)
    )
    return Measurement(
        compared.model, text.windowing, own.mode, own.promise, session.provenance(window), against
    )
