"""A conversation on the real model: a turn costs its own tokens, and its evaluation history repeats it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from infer_cli.answering.reply import digest
from infer_cli.backend import native
from infer_cli.backend.llama import LlamaBackend
from infer_cli.backend.llama_model import LlamaModel
from infer_cli.backend.spec import ContextSpec, ModelSpec
from infer_cli.conversation.codec import TurnCodec
from infer_cli.conversation.conversation import Conversation, TurnPlan
from infer_cli.engine.engine import Engine
from infer_cli.engine.mode_policy import ModelTraits, choose
from infer_cli.models.gguf.reading import read_header
from infer_cli.prompt.template import ChatTemplate
from infer_cli.types import EngineIdentity, EngineRequest, Finished, ModelIdentity, Reply, SamplingParams

pytestmark = pytest.mark.weights

SAMPLED = SamplingParams(temperature=0.8)
N_TOKENS = 6
WINDOW = 2048


class CountingBackend(LlamaBackend):
    """Counts the rows of all decode calls."""

    n_rows = 0

    def decode(self, tokens, positions, seqs, outputs):  # type: ignore[no-untyped-def]
        self.n_rows += len(tokens)
        return super().decode(tokens, positions, seqs, outputs)


class Chat:
    def __init__(self, model: LlamaModel, path: Path) -> None:
        policy = choose("canonical", 1, ModelTraits())
        spec = ContextSpec(WINDOW, policy.n_seq_max, policy.n_batch, policy.n_outputs_max, 2)
        self.backend = CountingBackend(model, spec)
        self.engine = Engine(self.backend, policy, time.perf_counter, WINDOW)
        source = read_header(path).chat_template
        assert source is not None
        template = ChatTemplate(source, bos="", eos="", now=datetime(2026, 1, 1, tzinfo=timezone.utc))
        codec = TurnCodec(template, model.vocab, WINDOW, policy.chunk)
        self.conversation = Conversation(codec, "You are helpful.")

    def reply(self, plan: TurnPlan, seed: int) -> tuple[Finished, str]:
        """The reply, its digest; the tokens evaluated are exactly the new ones."""
        request = EngineRequest(
            "r", plan.prompt_ids, SAMPLED, N_TOKENS, seed, history=plan.past, session="talk"
        )
        before = self.backend.n_rows
        self.engine.submit(request, 0.0)
        ends: list[Finished] = []
        while not self.engine.idle:
            ends += [e for e in self.engine.step() if isinstance(e, Finished)]
        (end,) = ends
        n_new = end.usage.prompt_tokens - end.usage.cached_tokens
        assert self.backend.n_rows - before == n_new + len(end.tokens) - 1
        return end, digest(end.tokens, end.text.decode("utf-8", "replace"), end.reason, seed, {})

    def ask(self, text: str, seed: int) -> tuple[TurnPlan, Finished, str]:
        plan = self.conversation.plan(text, N_TOKENS)
        end, hashed = self.reply(plan, seed)
        self.conversation.add(plan, _reply(end))
        return plan, end, hashed


def _reply(end: Finished) -> Reply:
    return Reply(
        "r", None, 0, end.text.decode("utf-8", "replace"), None, end.tokens, None, end.reason, "", end.usage,
        end.timings, None, None, "canonical", "canonical", False, {},
        ModelIdentity(None, None), EngineIdentity(None, None, None, {}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(smollm2: Path) -> Iterator[LlamaModel]:
    native.log_to(os.open(os.devnull, os.O_WRONLY))
    model = LlamaModel(ModelSpec(smollm2))
    yield model
    model.close()


def test_twenty_turns(model: LlamaModel, smollm2: Path) -> None:
    chat = Chat(model, smollm2)
    digests = []
    plan = None
    for turn in range(20):
        plan, end, hashed = chat.ask(f"Turn {turn}: tell me of {'many ' * (turn % 7) ** 2}things.", turn)
        assert end.usage.prompt_tokens - end.usage.cached_tokens == len(plan.prompt_ids)
        assert end.usage.cached_tokens == chat.backend.n_rows - len(plan.prompt_ids) - len(end.tokens) + 1
        digests.append(hashed)

    # Undone and asked again, and only replied to again: the same bytes.
    for _ in range(3):
        chat.conversation.branches.undo()
    for turn in range(17, 20):
        assert (
            chat.ask(f"Turn {turn}: tell me of {'many ' * (turn % 7) ** 2}things.", turn)[2] == digests[turn]
        )
    last = chat.conversation.branches.undo()
    assert chat.ask(last.user, 1000)[2] != digests[19]
    chat.conversation.branches.undo()
    assert chat.ask(last.user, 19)[2] == digests[19]

    # A fresh engine that is given the whole history repeats the last reply.
    assert plan is not None
    fresh = Chat(model, smollm2)
    end, hashed = fresh.reply(plan, 19)
    assert end.usage.cached_tokens == 0
    assert hashed == digests[19]
    chat.backend.close()
    fresh.backend.close()


def test_a_reply_that_goes_on_is_the_reply_that_was_not_cut(model: LlamaModel, smollm2: Path) -> None:
    chat = Chat(model, smollm2)
    greedy = SamplingParams()
    plan = chat.conversation.plan("Tell me a story.", N_TOKENS)

    def run(plan: TurnPlan, n: int, session: str) -> Finished:
        chat.engine.submit(
            EngineRequest("r", plan.prompt_ids, greedy, n, history=plan.past, session=session), 0.0
        )
        ends: list[Finished] = []
        while not chat.engine.idle:
            ends += [e for e in chat.engine.step() if isinstance(e, Finished)]
        return ends[0]

    whole = run(plan, 20, "whole")
    first = run(plan, 8, "cut")
    chat.conversation.add(plan, _reply(first))
    more = run(chat.conversation.plan_more(), 12, "cut")
    assert first.tokens + more.tokens == whole.tokens
    assert more.usage.prompt_tokens - more.usage.cached_tokens == 1
    chat.backend.close()
