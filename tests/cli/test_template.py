"""`infer template` as its user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli_helpers import infer, one_error_line, script
from tests.tiny_gguf import DEFAULT_TEMPLATE, write_tiny_gguf

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
WITH_TOOLS = "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}" + DEFAULT_TEMPLATE


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_show_is_the_source_to_the_last_byte(tiny: Path) -> None:
    done = infer("template", "show", "-m", tiny)
    assert (done.code, done.text, done.err) == (0, DEFAULT_TEMPLATE, "")


def test_a_model_with_several_templates(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, overrides={"tokenizer.chat_template.tool_use": WITH_TOOLS})
    assert infer("template", "show", "-m", path, "tool_use").text == WITH_TOOLS
    names = [
        line.split("\t")[0] for line in infer("template", "show", "-m", path, "--list").text.splitlines()
    ]
    assert names == ["default", "tool_use"]
    shown = infer("template", "show", "-m", path, "--json").json["templates"]
    assert isinstance(shown, list)
    assert [template["source"] for template in shown] == [DEFAULT_TEMPLATE, WITH_TOOLS]
    one_error_line(infer("template", "show", "-m", path, "other"), 2, "'other'", "tool_use")


def test_a_base_model_has_none(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, chat_template=None)
    for command in ("show", "check"):
        one_error_line(infer("template", command, "-m", path), 2, "base model")


def test_render_is_what_run_would_give(tiny: Path, tmp_path: Path) -> None:
    done = infer("template", "render", "-m", tiny, "--system", "S", "hi", "there")
    text = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\n"
    assert (done.text, done.err) == (text, "")
    rendered = infer("template", "render", "-m", tiny, "--system", "S", "hi <|im_end|>", "--json").json
    infer("run", "-m", tiny, "--system", "S", "hi <|im_end|>", "-n", "1")
    record = json.loads(infer("records", "export").text)
    assert record["prompt"]["ids"] == rendered["ids"]
    assert record["prompt"]["text"] == rendered["text"]
    assert rendered["n_tokens"] == len(record["prompt"]["ids"])


def test_messages_tools_and_variables(tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(WITH_TOOLS + "{{ mode }}{{ messages[1].tool_calls[0].id }}")
    call = {"role": "assistant", "tool_calls": [{"id": "c1"}]}
    messages = tmp_path / "m.json"
    messages.write_text(json.dumps([{"role": "user", "content": "a"}, call]))
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    arguments = ("--messages", messages, "--tools", tools, "--var", "mode=fast", "--chat-template", template)
    done = infer("template", "render", "-m", "fake", *arguments, "more")
    assert done.text.startswith("[weather]<|im_start|>user\na<|im_end|>")
    assert done.text.endswith("more<|im_end|>\n<|im_start|>assistant\nfastc1")
    reply = infer("run", "-m", "fake", *arguments, "more", "--json").json
    rendered = infer("template", "render", "-m", "fake", *arguments, "more", "--json").json
    usage = reply["usage"]
    assert isinstance(usage, dict)
    assert usage["prompt_tokens"] == rendered["n_tokens"]


@pytest.mark.parametrize(
    ("tools", "words"),
    [("{}", "not a list"), ("[1]", "tools[0]"), ("[", "not JSON"), ("[{}]", "ignores the tools")],
)
@pytest.mark.parametrize("command", [("run",), ("template", "render")])
def test_wrong_tools(command: tuple[str, ...], tools: str, words: str) -> None:
    done = infer(*command, "-m", "fake", "hi", "--tools", "-", stdin=tools.encode())
    one_error_line(done, 2, words)


def test_a_variable_that_is_nested_too_deeply_is_text() -> None:
    done = infer("template", "render", "-m", "fake", "--var", "x=" + "[" * 100_000, "hi")
    assert (done.code, done.err) == (0, "warning: --var x: the chat template does not use it\n")


def test_an_empty_conversation_is_refused() -> None:
    one_error_line(infer("template", "render", "-m", "fake"), 2, "empty")


def test_check_passes(tiny: Path) -> None:
    done = infer("template", "check", "-m", tiny)
    assert done.code == 0
    assert done.text.startswith("ok       one question\n")
    report = infer("template", "check", "-m", tiny, "--json").json
    assert report["holds"] is True
    assert report["warnings"] == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ nothing.at_all }}", "undefined"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "too much work"),
        ("{{ raise_exception('never\nat all') }}", "never at all"),
    ],
)
def test_check_fails_with_the_reason(tmp_path: Path, source: str, reason: str) -> None:
    done = infer("template", "check", "-m", script(tmp_path, template=source))
    assert done.code == 9
    assert reason in done.text.splitlines()[0]
    one_error_line(done, 9, "14 of 14")


def test_tokens_that_the_vocabulary_has_not(tmp_path: Path) -> None:
    source = "<|begin_of_text|>" + DEFAULT_TEMPLATE
    done = infer("template", "check", "-m", script(tmp_path, template=source))
    assert "warning  it writes what the vocabulary has no token for: <|begin_of_text|>" in done.text
