"""A browser without a window, driven by its DevTools protocol over two pipes. Chromium and its relatives."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

_ANSWER_S = 30.0
# The protocol's pipes are the file descriptors 3 and 4 of the browser.
_LAUNCHER = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 103); os.dup2(w, 104);"
    " os.dup2(103, 3); os.dup2(104, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """One page of it, in a profile of its own. Raises TimeoutError where it does not answer."""

    def __init__(self, program: str, profile: Path) -> None:
        its_in, self._to = os.pipe()
        self._from, its_out = os.pipe()
        arguments = [
            "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
            "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(its_in), str(its_out), program, *arguments],
            pass_fds=(its_in, its_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        self._rest = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[Mapping[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **parameters: object) -> Any:
        """A command's result. Events that come meanwhile are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, *, width: int = 1280, height: int = 800, dark: bool = False) -> float:
        """Show a page; returns the seconds until its script has drawn it and the next frame is painted."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.value("window.isOfBefore = true")
        began = time.monotonic()
        self.call("Page.navigate", url=page.as_uri())
        is_drawn = "!window.isOfBefore && document.documentElement?.dataset.drawn === 'true'"
        while not self.value(is_drawn):
            assert time.monotonic() - began < _ANSWER_S, "the page is not drawn"
            time.sleep(0.01)
        self.value("new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(1))))")
        return time.monotonic() - began

    def value(self, expression: str) -> Any:
        """Of JavaScript in the page; a promise's own. Raises AssertionError for an exception."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text
            )

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def messages(self) -> list[str]:
        """What the page told the console since it was opened: exceptions and refusals too."""
        self.value("1")  # what came before the answer is here
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"]))
            elif event.get("method") == "Log.entryAdded":
                found.append(str(parameters["entry"]["text"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        self.value("1")
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def _message(self) -> Mapping[str, Any]:
        end = time.monotonic() + _ANSWER_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(end - time.monotonic(), 0))
            data = os.read(self._from, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("the browser does not answer")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: Mapping[str, Any] = json.loads(line)
        return message
