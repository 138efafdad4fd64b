"""Whether `inspect view` shows a run of ours, and a picture of it.

    python -m benchmarks.inspect_view RUN [--picture FILE.png] [--browser chromium]

RUN is a folder of `infer eval`. Needs inspect_ai, playwright (`pip install playwright`, which drives the
browser) and the browser. `inspect view` serves the log in it; the browser opens the list of logs, the log,
and its first sample. Checked: the list shows the task and the model, the log the ids of the items, the sample
its answer, score and explanation. Ends in one JSON line, with what was not shown; if there is any, the exit
code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from infer_cli.evaluation.formats.scored_items import explanation_of
from infer_cli.evaluation.formats.writing import write_formats
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.evaluation.runs.reading import read_run

_WAIT_S = 60
_SIZE = {"width": 1000, "height": 640}


def main() -> None:
    given = _arguments().parse_args()
    log = write_formats(RunFolder(given.run)).inspect_log
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["view", "start", "--log-dir", str(given.run.resolve()), "--port", str(port)]
    server = subprocess.Popen(
        [given.inspect_python, "-m", "inspect_ai", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        missing = _look(url, given.run, log.name, given.browser, given.picture)
    finally:
        server.terminate()
        server.wait()
    print(json.dumps({"log": log.name, "not_shown": missing}))
    sys.exit(bool(missing))


def _wait_for(url: str) -> None:
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return


def _look(url: str, folder: Path, log: str, browser: str, picture: Path | None) -> list[str]:
    """What was not shown."""
    from playwright.sync_api import sync_playwright

    run = read_run(folder)
    samples = list(run.samples())
    first = samples[0]
    score = next(iter(first.scores))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=_SIZE)
        missing = _lacking(page, f"{url}/", [run.facts.task.name, run.results.model.name])
        shown = _in_its_order({sample.item for sample in samples})[:5]
        missing += _lacking(page, f"{url}/#/logs/{log}", [run.facts.task.name, *shown])
        if picture is not None:
            page.screenshot(path=picture)
        explained = explanation_of(first, score).splitlines()[0]
        of_sample = f"{url}/#/logs/{log}/samples/sample/{first.item}/1"
        missing += _lacking(page, f"{of_sample}/messages", [first.answer or ""])
        missing += _lacking(page, f"{of_sample}/scoring", [score, explained])
        if picture is not None:
            page.screenshot(path=picture.with_stem(f"{picture.stem}-sample"))
        chromium.close()
    return missing


def _in_its_order(ids: set[str]) -> list[str]:
    """As the view sorts them: as numbers where all are, else as texts."""
    return sorted(ids, key=int) if all(each.isdecimal() for each in ids) else sorted(ids)


def _lacking(page: Any, url: str, texts: list[str]) -> list[str]:
    page.goto(url)
    found: list[str] = []
    for text in texts:
        words = " ".join(text.split())
        try:
            page.wait_for_function(
                "words => document.body.innerText.replace(/\\s+/g, ' ').includes(words)",
                arg=words,
                timeout=15_000,
            )
        except Exception as e:  # playwright's own class is not there where it is not installed
            if type(e).__name__ != "TimeoutError":
                raise
            found.append(f"{url}: {words}")
    return found


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inspect_view")
    parser.add_argument("run", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--inspect-python", default=os.environ.get("INFER_BENCH_INSPECT", sys.executable))
    return parser


if __name__ == "__main__":
    main()
