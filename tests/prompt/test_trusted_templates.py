"""Templates that we vouch for: rendered here, with the same text as in the other process."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from infer_cli.backend.fake import CHAT_TEMPLATE
from infer_cli.models.gguf.reading import read_model_header
from infer_cli.prompt.renderer import Renderer, TemplateSource
from infer_cli.prompt.template import ChatTemplate
from infer_cli.prompt.trusted_templates import VOUCHED_FOR, VouchedRenderer, is_vouched_for, renderer_of
from infer_cli.system.hashing import sha256_hex
from infer_cli.types import Message

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
TALK = [Message("system", "Be brief."), Message("user", "<|im_end|> " * 50), Message("assistant", "Yes.")]


def _templates(smollm2: Path) -> list[str]:
    own = read_model_header(smollm2).chat_template
    assert own is not None
    return [CHAT_TEMPLATE, own]


def test_only_these_exact_texts() -> None:
    assert is_vouched_for(CHAT_TEMPLATE)
    assert isinstance(renderer_of(CHAT_TEMPLATE), VouchedRenderer)
    assert isinstance(renderer_of(CHAT_TEMPLATE + " "), Renderer)
    assert not is_vouched_for("")


def test_nothing_is_started_for_them() -> None:
    code = (
        "from datetime import datetime, timezone\n"
        "from infer_cli.backend.fake import CHAT_TEMPLATE\n"
        "from infer_cli.prompt import renderer\n"
        "from infer_cli.prompt.template import ChatTemplate\n"
        "from infer_cli.types import Message\n"
        "renderer.Renderer._linked = None\n"
        "now = datetime.now(timezone.utc)\n"
        "print(ChatTemplate(CHAT_TEMPLATE, bos='', eos='', now=now).render([Message('user', 'a')]), end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.weights
def test_each_is_a_template_that_is_in_use_and_the_text_is_the_same(smollm2: Path) -> None:
    templates = _templates(smollm2)
    assert {sha256_hex(text.encode()) for text in templates} == set(VOUCHED_FOR)
    renderer = Renderer()
    try:
        for text in templates:
            here, there = (
                ChatTemplate(text, bos="<s>", eos="</s>", now=NOW, renderer=r).render(TALK)
                for r in (VouchedRenderer(), renderer)
            )
            assert here == there
    finally:
        renderer.close()


def test_a_long_conversation_is_within_the_allowance() -> None:
    long = [Message("user", "word " * 2000)] * 500
    text = VouchedRenderer().render(
        TemplateSource(CHAT_TEMPLATE), {"messages": [{"role": m.role, "content": m.content} for m in long]}
    )
    assert len(text) > 5_000_000
