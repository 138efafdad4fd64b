"""Reports in a real browser, which `INFER_TEST_BROWSER` names (such as `chromium`)."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infer_cli.evaluation.report.making import make_report
from infer_cli.evaluation.runs.folder import RunFolder
from tests.evaluation.comparing.run_folders import Answered, right, write_run
from tests.evaluation.report.browser import Browser
from tests.evaluation.report.hostile import ATTACKS, write_hostile_run
from tests.integrations.extras import is_missing

PROGRAM = os.environ.get("INFER_TEST_BROWSER", "")
# By hand, so not one of the tests of extras.
pytestmark = [
    pytest.mark.skipif(not PROGRAM, reason="INFER_TEST_BROWSER names none"),
    pytest.mark.skipif(is_missing("matplotlib"), reason="matplotlib is not installed"),
]

_OPENS_S = 2.0
_ENTER, _TAB, _SPACE = ("Enter", 13, "\r"), ("Tab", 9), (" ", 32, " ")
_ACTIVE = "document.activeElement.id || document.activeElement.tagName"
_COUNT = "document.getElementById('samples-count').textContent"
_ROWS = "document.querySelectorAll('#samples-rows > li').length"

# Of each text its contrast with what is behind it (WCAG 2.2, 1.4.3), the worst of all.
_CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (node) => { for (; node; node = node.parentElement) {
    const c = parse(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); }
    return [255, 255, 255]; };
  let worst = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const isSeen = walker.currentNode.data.trim() && node.getClientRects().length;
    if (!isSeen || node.matches('script, :disabled')) continue;
    const style = getComputedStyle(node);
    const ink = parse(node.namespaceURI.endsWith('svg') ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, node.outerHTML.slice(0, 200)];
  }
  return worst;
})()"""

# Names of what can be focused but is called nothing (WCAG 2.2, 4.1.2).
_NAMELESS = """[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
  .filter((node) => !(node.textContent.trim() || node.getAttribute('aria-label')
    || (node.labels && node.labels.length))).map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    runs = write_hostile_run(folder / "a"), write_hostile_run(folder / "b", n_wrong=4)
    page = folder / "page.html"
    page.write_bytes(make_report(*runs))
    return page


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 samples: 60 right, 40 wrong, 12 errors, 8 cut."""
    folder = tmp_path_factory.mktemp("plain")
    items = [
        *right(*[1.0] * 60, *[0.0] * 40),
        *(
            Answered(f"e{i}", [{"exact": 0.0}], outcomes=["error"], answer=None, extracted=[None])
            for i in range(12)
        ),
        *(
            Answered(f"c{i}", [{"exact": 0.0}], outcomes=["cut"], answer="A needle", extracted=[None])
            for i in range(8)
        ),
    ]
    write_run(folder / "run", items)
    page = folder / "page.html"
    page.write_bytes(make_report(folder / "run"))
    return page


def wait(browser: Browser, milliseconds: int = 300) -> None:
    """For what the page does by and by: events, and a search when nothing more is typed."""
    browser.value(f"new Promise((done) => setTimeout(done, {milliseconds}))")


def open_all(browser: Browser) -> int:
    """Unfold every sample that is drawn; returns how many these are."""
    browser.value("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    wait(browser)
    return int(browser.value("document.querySelectorAll('.rows .body').length"))


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_no_field_runs_a_script_or_leaves_its_place(
    browser: Browser, hostile_page: Path, width: int, dark: bool
) -> None:
    browser.open(hostile_page, width=width, dark=dark)
    assert open_all(browser) == 14  # six samples of each run, and two that differ
    assert browser.value("window.HACKED") is None
    assert browser.messages() == []
    assert browser.requests() == [hostile_page.as_uri()]
    # Each attack is there to be read, as a text.
    text = browser.value("document.getElementById('samples').textContent")
    for attack in ATTACKS[:10]:
        assert attack in text
    assert "\\u202egnp.exe" in text and "\u202e" not in text and "\\u001b[31m" in text
    elements = browser.value("[...document.body.querySelectorAll('*')].map((node) => node.localName)")
    assert not {"img", "iframe", "style", "textarea", "object", "embed", "base", "link"} & set(elements)
    assert elements.count("script") == 2
    names = browser.value("[...document.querySelectorAll('*')].flatMap((node) => node.getAttributeNames())")
    assert not [name for name in names if name.startswith("on") or name == "style"]
    links = browser.value("[...document.querySelectorAll('[href]')].map((node) => node.getAttribute('href'))")
    assert links and all(link.startswith("#") for link in links)
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("document.title").count(ATTACKS[0]) >= 1


def test_the_policy_holds_where_escaping_would_have_failed(
    browser: Browser, hostile_page: Path, tmp_path: Path
) -> None:
    """Markup that is in the page all the same: it is neither run nor loaded, and styles nothing."""
    page = tmp_path / "broken.html"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        injected = (
            f"<script>window.HACKED = 20</script><script src='{address}/x.js'></script>"
            f"<img src='{address}/x.png' onerror='window.HACKED = 21'>"
            "<style>#samples { display: none }</style><b id=styled style='position: fixed'>x</b>"
            "<a id=link href='javascript:window.HACKED=22'>x</a>"
            "<iframe srcdoc='<script>top.HACKED=23</script>'></iframe>"
        )
        page.write_bytes(hostile_page.read_bytes().replace(b"</main>", injected.encode() + b"</main>"))
        browser.open(page)
        browser.value("document.getElementById('link').click()")
        sent = f"fetch('{address}').then(() => 'sent', (error) => error.name)"
        assert browser.value(sent) == "TypeError"
        wait(browser)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            server.accept()
    assert browser.value("window.HACKED") is None
    assert browser.value("getComputedStyle(document.getElementById('samples')).display") == "block"
    assert browser.value("getComputedStyle(document.getElementById('styled')).position") == "static"
    refused = " ".join(browser.messages())
    for directive in ("script-src", "style-src", "default-src"):
        assert directive in refused


def test_no_text_can_be_made_markup(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    for attempt in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.createElement('script').text = 'window.HACKED = 1'",
        "document.body.setAttribute('onclick', 'window.HACKED = 2')",
    ):
        with pytest.raises(AssertionError, match="Trusted"):
            browser.value(attempt)


def test_a_page_without_a_policy_would_have_been_noticed(browser: Browser, tmp_path: Path) -> None:
    """The tests above can fail: the same attacks run where nothing forbids them."""
    page = tmp_path / "open.html"
    page.write_text(
        f"<!doctype html><html data-drawn=true><body>{ATTACKS[3]}{ATTACKS[1]}</body></html>", "utf-8"
    )
    browser.open(page)
    wait(browser)
    assert browser.value("window.HACKED") in (2, 4)


def choose(browser: Browser, name: str, value: str) -> str:
    """Choose in a select as a user does; returns the line that says how many are found."""
    browser.value(
        f"(() => {{ const s = document.getElementById('samples-{name}'); s.value = {json.dumps(value)};"
        "s.dispatchEvent(new Event('change')); })()"
    )
    return str(browser.value(_COUNT))


def test_filters_and_search(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    assert browser.value(_COUNT) == "120 samples, 1 to 50 are shown"
    options = browser.value(
        "[...document.getElementById('samples-status').options].map((o) => o.textContent)"
    )
    assert options == ["all (120)", "all but right (60)", "right (60)", "wrong (40)", "error (12)", "cut (8)"]
    assert choose(browser, "status", "wrong") == "40 of 120 samples"
    assert choose(browser, "status", "bad") == "60 of 120 samples, 1 to 50 are shown"
    assert choose(browser, "status", "error") == "12 of 120 samples"
    browser.value("document.getElementById('samples-text').focus()")
    browser.type("NEEDLE")
    wait(browser)
    assert browser.value(_COUNT) == "nothing is found"
    assert choose(browser, "status", "") == "8 of 120 samples"
    assert browser.value(_ROWS) == 8


def test_groups_and_runs_are_filters_where_there_are_some(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    assert choose(browser, "group", "1") == "2 of 12 samples"
    assert choose(browser, "run", "1") == "1 of 12 samples"
    assert browser.value("document.querySelector('#samples-rows .item').textContent").startswith("1 <script>")


def test_the_keyboard_alone_reaches_everything(browser: Browser, plain_page: Path) -> None:
    browser.open(plain_page)
    browser.press(*_TAB)
    assert browser.value("document.activeElement.className") == "skip"
    browser.press(*_ENTER)
    assert browser.value(_ACTIVE) == "samples"
    reached = []
    for _ in range(3):
        browser.press(*_TAB)
        reached.append(browser.value(_ACTIVE))
    assert reached == ["samples-status", "samples-text", "SUMMARY"]
    browser.press(*_ENTER)
    wait(browser)
    assert browser.value("document.querySelectorAll('#samples-rows details[open] .body').length") == 1
    browser.press(*_SPACE)
    assert browser.value("document.querySelectorAll('#samples-rows details[open]').length") == 0
    browser.value("document.getElementById('samples-next').focus()")
    browser.press(*_ENTER)
    assert browser.value(_COUNT) == "120 samples, 51 to 100 are shown"
    browser.press(*_ENTER)
    assert browser.value(_COUNT) == "120 samples, 101 to 120 are shown"
    assert browser.value(_ACTIVE) == "samples-back"  # the other can't be pressed now
    assert browser.value("document.querySelector('#samples-rows').start") == 101


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read(
    browser: Browser, plain_page: Path, hostile_page: Path, width: int, dark: bool
) -> None:
    for page in (plain_page, hostile_page):
        browser.open(page, width=width, dark=dark)
        open_all(browser)
        ratio, where = browser.value(_CONTRAST)
        assert ratio >= 4.5, where
        assert browser.value(_NAMELESS) == []
        assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("[...document.querySelectorAll('th')].every((cell) => cell.scope)")
    assert browser.value("[...document.querySelectorAll('table')].every((table) => table.caption)")
    assert browser.value("document.querySelectorAll('h1').length") == 1
    assert browser.value("document.querySelectorAll('main, header').length") == 2
    assert browser.value("document.querySelectorAll('.plot[role=img][aria-label]').length") > 5
    assert browser.value("document.getElementById('samples-count').getAttribute('role')") == "status"


def test_the_theme_is_that_of_the_reader(browser: Browser, plain_page: Path) -> None:
    lightness = []
    for dark in (False, True):
        browser.open(plain_page, dark=dark)
        for node, what in (("body", "backgroundColor"), (".plot text", "fill"), (".fill-a", "fill")):
            colour = browser.value(f"getComputedStyle(document.querySelector({node!r})).{what}")
            lightness.append(sum(map(int, re.findall(r"\d+", colour)[:3])))
    assert lightness[0] > 700 > 150 > lightness[3]
    assert lightness[1] < 150 < 600 < lightness[4]
    assert lightness[2] < lightness[5]


def test_ten_thousand_samples_open_at_once(browser: Browser, tmp_path: Path) -> None:
    prompt = "A question of some length, with its examples. " * 40
    items = [
        Answered(f"{i}", [{"exact": float(i % 3 == 0)}], f"{prompt}{i}?", f"Let us see: {i}. " * 30)
        for i in range(10_000)
    ]
    run = write_run(tmp_path / "run", items)
    page = RunFolder(run).report
    page.write_bytes(make_report(run))
    seconds = min(browser.open(page) for _ in range(2))
    print(f"{page.stat().st_size:,} bytes are open in {seconds:.2f} s")
    assert seconds < _OPENS_S
    assert browser.value(_COUNT) == "10,000 samples, 1 to 50 are shown"
    assert browser.value(_ROWS) == 50
    browser.value("document.getElementById('samples-text').focus()")
    browser.type("9999?")
    wait(browser, 1000)
    assert browser.value(_COUNT) == "1 of 10,000 samples"
