"""Perplexity of a text, and divergence of two models, against rows of logits computed one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infer_cli.backend.fake import FakeBackend, FakeScript, FakeVocab
from infer_cli.backend.spec import ContextSpec
from infer_cli.engine.score_engine import OnRow
from infer_cli.errors import InferError, ModelInvalid, UsageError
from infer_cli.models.installed import InstalledModel, fake_model, named_by_path
from infer_cli.runtime import llama_loading
from infer_cli.runtime.llama_environment import ProcessSwitches
from infer_cli.runtime.options import EngineOptions
from infer_cli.runtime.session import Session
from infer_cli.scoring.comparison import MOST_LOGITS, Comparison, check_same_vocabulary, rows_a_call
from infer_cli.scoring.divergence import compare_rows
from infer_cli.scoring.measurement import measure_against, measure_text
from infer_cli.scoring.statistics import Estimate
from infer_cli.scoring.windowed_text import WindowedText, cut_text
from infer_cli.scoring.windows import Windowing
from infer_cli.types import Mode, ScoreRequest
from tests.cli_helpers import script
from tests.tiny_gguf import write_tiny_gguf

if TYPE_CHECKING:
    from infer_cli.backend.base import Floats

TEXT = "the quick brown fox jumps over the lazy dog and runs away\n" * 6
WINDOWINGS = [Windowing(32), Windowing(33, limit=3), Windowing(32, 10), Windowing(40, rolling=True)]


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    """To be filled; they are closed after the test."""
    opened: list[Session] = []
    yield opened
    for session in opened:
        session.close()


def _session(
    opened: list[Session], model: InstalledModel | str = "fake", mode: Mode = "canonical"
) -> Session:
    found = fake_model(model) if isinstance(model, str) else model
    session = Session(found, EngineOptions(threads=1, mode=mode), 1, 2)
    session.wait()
    opened.append(session)
    return session


def _file(path: Path) -> InstalledModel:
    found = named_by_path(str(path))
    assert found is not None
    return found


def _cut(session: Session, windowing: Windowing, text: str = TEXT) -> WindowedText:
    return cut_text(text, windowing, session.loaded.vocab, session.loaded.n_ctx_train)


def _plain_nll(text: WindowedText) -> list[float]:
    """Of the fake model: each window alone, a row at a time."""
    found = []
    for span in text.spans:
        backend = FakeBackend(FakeScript(), ContextSpec(4096, 1, 1, 1, 1))
        ids = text.ids(span)
        for position, token in enumerate(ids[:-1]):
            backend.decode([token], [position], [0], [True])
            row = backend.logits(1)[0].astype(np.float64)
            if position + 1 >= span.first:
                found.append(math.log(np.exp(row).sum()) - row[ids[position + 1]])
    return found


@pytest.mark.parametrize("windowing", WINDOWINGS)
@pytest.mark.parametrize("mode", ["invariant", "canonical", "fast"])
def test_perplexity_is_of_the_rows_before_each_token(
    sessions: list[Session], windowing: Windowing, mode: Mode
) -> None:
    session = _session(sessions, mode=mode)
    text = _cut(session, windowing)
    seen: list[tuple[int, Estimate]] = []
    measured = measure_text(session, text, lambda n, ppl: seen.append((n, ppl)))
    nll = np.array(_plain_nll(text))
    found = measured.found
    assert (found.n_tokens, found.n_windows) == (len(nll), len(text.spans))
    assert found.nll.value == pytest.approx(nll.mean(), rel=1e-8)
    assert found.nll.error == pytest.approx(nll.std(ddof=1) / math.sqrt(len(nll)), rel=1e-9)
    assert found.ppl.value == pytest.approx(math.exp(nll.mean()), rel=1e-7)
    assert found.bits_per_byte == pytest.approx(nll.sum() / math.log(2) / found.n_bytes)
    assert found.n_bytes == len(nll)  # a token of the fake model is a byte
    assert [n for n, _ in seen] == list(range(1, len(text.spans) + 1))
    assert seen[-1][1] == found.ppl
    assert (measured.mode, measured.windowing) == (mode, windowing)


def test_a_rolling_text_counts_all_its_bytes(sessions: list[Session]) -> None:
    session = _session(sessions)
    text = "\u00e9\u00e9 \u65e5\u672c\n" * 5
    found = measure_text(session, _cut(session, Windowing(16, rolling=True), text)).found
    assert found.n_bytes == len(text.encode())


def test_nan_is_the_models_fault(sessions: list[Session], tmp_path: Path) -> None:
    session = _session(sessions, script(tmp_path, nan_after=0))
    with pytest.raises(ModelInvalid, match="NaN"):
        measure_text(session, _cut(session, Windowing(32)))
    with pytest.raises(ModelInvalid, match="NaN"):
        measure_against(session, _session(sessions), _cut(session, Windowing(32)))
    with pytest.raises(ModelInvalid, match="NaN"):
        measure_against(_session(sessions), session, _cut(session, Windowing(32)))


def test_what_the_caller_raises_ends_the_work(sessions: list[Session]) -> None:
    def stop(n_windows: int, ppl: Estimate) -> None:
        raise InferError("enough")

    session = _session(sessions)
    with pytest.raises(InferError, match="enough"):
        measure_text(session, _cut(session, Windowing(32)), stop)
    assert measure_text(session, _cut(session, Windowing(32))).found.n_windows > 5


# --- two models -----------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[InstalledModel, InstalledModel]:
    """Two models of one vocabulary, in canonical mode, which needs no switches of llama.cpp."""
    monkeypatch.setattr(llama_loading, "PROCESS_SWITCHES", ProcessSwitches())
    one = write_tiny_gguf(tmp_path / "one.gguf", weight_type="F32", seed=1)
    other = write_tiny_gguf(tmp_path / "other.gguf", weight_type="F32", seed=2)
    return _file(one), _file(other)


def _rows(session: Session, text: WindowedText) -> dict[tuple[int, int], np.ndarray]:
    """Every row of logits that predicts a scored token, by window and position."""
    rows: dict[tuple[int, int], np.ndarray] = {}
    with_rows = session.score_engine(
        text.n_read, on_row=lambda request, at, row: rows.update({(int(request.id), at): row.copy()})
    )
    for _, request in text.requests():
        with_rows.submit(request, 0.0)
    while not with_rows.idle:
        with_rows.step()
    with_rows.close()
    return rows


def test_divergence_is_of_the_rows_of_both(
    sessions: list[Session], pair: tuple[InstalledModel, InstalledModel]
) -> None:
    session, base = (_session(sessions, model) for model in pair)
    text = _cut(session, Windowing(64, limit=3), TEXT * 8)
    seen: list[int] = []
    measured = measure_against(session, base, text, lambda n, ppl, kl: seen.append(n))
    own, theirs = _rows(session, text), _rows(base, text)
    differences = [compare_rows(theirs[at], own[at]) for at in sorted(own)]
    assert measured.against is not None
    far = measured.against.divergence
    kls = sorted(difference.kl for difference in differences)
    assert far.kl_mean.value == pytest.approx(np.mean(kls), rel=1e-12)
    assert far.kl_median == pytest.approx(np.median(kls), rel=1e-12)
    assert far.kl_p99 == pytest.approx(np.percentile(kls, 99), rel=1e-12)
    assert far.kl_max == kls[-1]
    assert far.same_top.value == np.mean([difference.same_top for difference in differences])
    assert measured.found == measure_text(session, text).found
    assert measured.against.ppl == measure_text(base, text).found.ppl
    assert far.ppl_ratio.value == pytest.approx(measured.found.ppl.value / measured.against.ppl.value)
    assert far.ppl_ratio.error > 0
    assert seen == [1, 2, 3]


def test_a_model_against_itself_differs_by_nothing(
    sessions: list[Session], pair: tuple[InstalledModel, InstalledModel]
) -> None:
    """To the last bit."""
    session, same = _session(sessions, pair[0]), _session(sessions, pair[0])
    measured = measure_against(session, same, _cut(session, Windowing(64, limit=3), TEXT * 8))
    assert measured.against is not None
    far = measured.against.divergence
    assert (far.kl_mean, far.kl_median, far.kl_p99, far.kl_max) == (Estimate(0.0, 0.0), 0.0, 0.0, 0.0)
    assert far.same_top == far.ppl_ratio == Estimate(1.0, 0.0)
    assert far.ppl_base == measured.found.ppl


@pytest.mark.parametrize(("n_own", "n_theirs"), [(2, 2), (3, 50), (50, 3), (200, 200)])
def test_few_rows_wait_for_the_other_model(sessions: list[Session], n_own: int, n_theirs: int) -> None:
    """However many rows a call of each engine gives: never more than those of one call."""
    session = _session(sessions, mode="invariant")  # canonical calls have rows of their own number
    text = _cut(session, Windowing(64))
    comparison = Comparison(text, "one", "other")
    n_waiting: list[int] = []

    def then_count(see: OnRow) -> OnRow:
        def seen(request: ScoreRequest, position: int, row: Floats) -> None:
            see(request, position, row)
            n_waiting.append(comparison.n_waiting)

        return seen

    engine = session.score_engine(text.n_read, on_row=then_count(comparison.see_model), n_rows=n_own)
    base = session.score_engine(text.n_read, on_row=then_count(comparison.see_base), n_rows=n_theirs)
    compared = comparison.run(engine, base)
    assert compared.model == compared.base
    assert compared.divergence.kl_max == 0
    assert max(n_waiting) <= max(n_own, n_theirs)
    assert len(n_waiting) == 2 * text.n_scored
    assert n_waiting[-1] == 0


def test_logits_that_are_held_are_bounded() -> None:
    for n_vocab in (300, 49152, 262144):
        assert 0 < 3 * 4 * n_vocab * rows_a_call(n_vocab) <= MOST_LOGITS


class _Other(FakeVocab):
    def token_text(self, token: int) -> bytes:
        return b"?" if token == 65 else super().token_text(token)


class _Larger(FakeVocab):
    n_tokens = 300


@pytest.mark.parametrize(
    ("other", "how"),
    [(_Other(), "token 65 is b'A' and b'?'"), (_Larger(), "259 and 300 tokens")],
)
def test_another_vocabulary_is_refused(other: FakeVocab, how: str) -> None:
    check_same_vocabulary(FakeVocab(), FakeVocab(), "a", "b")
    with pytest.raises(UsageError) as caught:
        check_same_vocabulary(FakeVocab(), other, "a", "b")
    assert caught.value.message == f"a and b have other vocabularies: {how}"
