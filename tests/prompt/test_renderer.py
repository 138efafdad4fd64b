"""A template that gets past the count meets a ceiling of time or memory; the next rendering is right."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import template_grammar
from infer_cli.errors import UnexpectedFailure
from infer_cli.prompt import renderer_link
from infer_cli.prompt.renderer import (
    MOST_BYTES,
    MOST_SECONDS,
    CeilingReached,
    Renderer,
    TemplateSource,
    shared,
)
from infer_cli.prompt.template_errors import TemplateFailed, TemplateRaised
from tests.hanging import HANG

HELLO = TemplateSource("hello {{ name }}")
GREEDY = (
    "{% set ns = namespace(x=[]) %}"
    "{% for i in range(300) %}{% set ns.x = ns.x + [text ~ i] %}{% endfor %}{{ ns.x|length }}"
)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
posix = pytest.mark.skipif(sys.platform == "win32", reason="has no signals")


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.close()


@pytest.fixture
def hasty() -> Iterator[Renderer]:
    """A renderer with little time and memory."""
    renderer = Renderer(seconds=1.5, memory=400 << 20)
    renderer.compile(HELLO)
    yield renderer
    renderer.close()


def _pid(renderer: Renderer) -> int:
    renderer.begin()
    assert renderer._link is not None
    return renderer._link._popen.pid


def _later(seconds: float, action: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def _is_there(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_renders_and_tells_failures_apart(renderer: Renderer) -> None:
    assert renderer.render(HELLO, {"name": "wörld \ud800"}) == "hello wörld \ud800"
    with pytest.raises(TemplateRaised, match="no"):
        renderer.render(TemplateSource("{{ raise_exception('no') }}"), {})
    with pytest.raises(TemplateFailed, match="'name' is undefined") as caught:
        renderer.render(TemplateSource("a\n{{ name }}", strict=True), {})
    assert caught.value.line == 2
    with pytest.raises(TemplateFailed, match="does too much work"):
        renderer.render(TemplateSource("{% for i in range(9999) %}{{ 'x' * 99999 }}{% endfor %}"), {})
    with pytest.raises(TemplateFailed, match="unexpected"):
        renderer.compile(TemplateSource("{{ ) }}"))
    assert renderer.free_variables(TemplateSource("{{ a }}{% set b = c %}{{ b }}")) == {"a", "c"}


def test_a_template_that_hangs_is_stopped(hasty: Renderer) -> None:
    began = time.monotonic()
    with pytest.raises(CeilingReached, match=r"not done in 1\.5 s") as caught:
        hasty.render(TemplateSource(HANG), {})
    assert caught.value.of_time
    assert time.monotonic() - began < 10
    assert hasty.render(HELLO, {"name": "you"}) == "hello you"


def test_a_template_that_takes_much_memory_is_stopped() -> None:
    renderer = Renderer(memory=256 * 10**6)
    try:
        with pytest.raises(CeilingReached, match="more than 256 MB of memory"):
            renderer.render(TemplateSource(GREEDY), {"text": "x" * 4_000_000})
        assert renderer.render(HELLO, {"name": "you"}) == "hello you"
        with pytest.raises(CeilingReached, match="more than 256 MB of memory"):  # the request alone is
            renderer.render(HELLO, {"name": "x" * 300_000_000})
    finally:
        renderer.close()


@posix
def test_a_process_that_is_killed_is_replaced(renderer: Renderer) -> None:
    renderer.compile(HELLO)
    os.kill(_pid(renderer), signal.SIGKILL)
    _wait_until(lambda: renderer._link is not None and renderer._link.has_ended)
    assert renderer.render(HELLO, {"name": "a"}) == "hello a"
    pid = _pid(renderer)
    _later(0.5, lambda: os.kill(pid, signal.SIGKILL))
    with pytest.raises(CeilingReached, match=r"ended \(SIGKILL\)"):
        renderer.render(TemplateSource(HANG), {})
    assert renderer.render(HELLO, {"name": "b"}) == "hello b"


def test_an_interrupt_ends_the_wait(renderer: Renderer) -> None:
    renderer.compile(HELLO)
    _later(0.5, _thread.interrupt_main)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        renderer.render(TemplateSource(HANG), {})
    assert time.monotonic() - began < 8
    assert renderer.render(HELLO, {"name": "you"}) == "hello you"


def test_a_rendering_can_be_cancelled(renderer: Renderer) -> None:
    renderer.compile(HELLO)
    _later(0.5, renderer.cancel)
    with pytest.raises(CeilingReached, match="cancelled"):
        renderer.render(TemplateSource(HANG), {})
    assert renderer.render(HELLO, {"name": "you"}) == "hello you"


def test_one_process_renders_for_all_threads() -> None:
    pid, texts = _pid(shared()), set()
    threads = [
        threading.Thread(target=lambda n=n: texts.add(shared().render(HELLO, {"name": str(n)})))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {f"hello {n}" for n in range(20)}
    assert _pid(shared()) == pid


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_hostile_program_ends_within_bounds(seed: int) -> None:
    random, began = Random(seed), time.monotonic()
    source = template_grammar.template(random)
    if seed % 3 == 0:
        source = template_grammar.mutated(random, source)
    messages = [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": "yes"}]
    with contextlib.suppress(TemplateFailed, TemplateRaised):
        shared().render(TemplateSource(source), {"text": "hello world", "messages": messages})
    assert time.monotonic() - began < MOST_SECONDS + 5
    assert shared().render(HELLO, {"name": "you"}) == "hello you"
    if sys.platform.startswith("linux"):
        status = Path(f"/proc/{_pid(shared())}/status").read_text()
        (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        assert peak << 10 < MOST_BYTES


@linux
def test_it_ends_with_the_process_that_began_it() -> None:
    code = (
        "import sys; from infer_cli.prompt.renderer import *\n"
        "r = Renderer(); r.begin(); print(r._link._popen.pid, flush=True)\n"
        "r.render(TemplateSource(sys.stdin.read()), {})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None and parent.stdout is not None
    with parent.stdout, parent.stdin:
        pid = int(parent.stdout.readline())
        parent.stdin.write(HANG.encode())
        parent.stdin.close()
        time.sleep(0.7)
        assert _is_there(pid)
        parent.kill()
        parent.wait()
    _wait_until(lambda: not _is_there(pid))


@linux
def test_it_is_given_next_to_nothing(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        pid = _pid(renderer)
        renderer.compile(HELLO)
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    assert os.getsid(pid) != os.getsid(0)  # no signal of the terminal reaches it
    (limit,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "address" in line]
    assert limit.split()[3:5] == [str(MOST_BYTES)] * 2


def test_nothing_of_the_working_directory_is_imported(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("types", "json", "jinja2", "markupsafe", "infer_cli", "queue", "sitecustomize", "encodings"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert renderer.render(HELLO, {"name": "you"}) == "hello you"
    assert not (tmp_path / "was-run").exists()


def test_a_process_that_does_not_start_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer_link, "_folders", list)
    with pytest.raises(UnexpectedFailure, match="does not start"):
        Renderer().compile(HELLO)
    monkeypatch.setattr(sys, "executable", os.path.join(os.sep, "no", "python"))
    with pytest.raises(UnexpectedFailure, match="does not start"):
        Renderer().compile(HELLO)


def test_a_long_prompt_fits(renderer: Renderer) -> None:
    assert len(renderer.render(HELLO, {"name": "\ufdd0" * 10_000_000})) == 10_000_006
