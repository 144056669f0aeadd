"""A real browser for tests: headless Chromium, spoken to over its own debugging protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE
from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "--hide-scrollbars",
)  # fmt: skip
_REMEMBER = """
window.said = [];
new MutationObserver(changes => changes.forEach(change => change.addedNodes.forEach(
    node => node.innerText && said.push(node.innerText)
))).observe(document, {childList: true, subtree: true});
"""
_MOVING = "document.querySelector('[class*=-enter-active], [class*=-leave-active]')"  # as Vue names what it animates


def chromium() -> str | None:
    """The browser on PATH, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Tab:
    """One tab. What the page complained about is in `errors`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._last = socket, 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")
        self._send("Page.addScriptToEvaluateOnNewDocument", source=_REMEMBER)

    def open(self, url: str, *, headers: dict[str, str] | None = None) -> None:
        self._send("Network.setExtraHTTPHeaders", headers=headers or {})
        self._send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str, *, seconds: float = PATIENCE) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.evaluate(f"Boolean({condition})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"Never true within {seconds:g} s: {condition}. The page says: {self.text()[:2_000]}")

    def text(self) -> str:
        return self.evaluate("document.body.innerText")

    def click(self, label: str) -> None:
        """Press the visible button with this label, once nothing appears or vanishes any more: nobody hits a button of
        a dialog that is on its way."""
        named = _button(label)
        self.until(f"({named} && !{_MOVING}) ? ({named}.click(), true) : false")

    def until_said(self, text: str) -> None:
        """Wait until the page has shown this text, though it may be gone again: a notice stays for a few seconds."""
        self.until(f"window.said.some(shown => shown.includes({text!r}))")

    def until_gone(self, label: str) -> None:
        """Wait until no button with this label is left, as after a dialog has closed."""
        self.until(f"!{_button(label)} && !{_MOVING}")

    def fill(self, name: str, value: str) -> None:
        """Type into the field of this name, as a person's keys would."""
        self.evaluate(f"document.querySelector('input[name={name}]').focus()")
        self._send("Input.insertText", text=value)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path) -> None:
        """The whole page as a PNG, however long it is."""
        taken = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._last:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        if message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Tab]:
    """A browser with an empty profile and one tab; gone at the end."""
    process = subprocess.Popen(
        [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_address(process, profile), max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def _button(label: str) -> str:
    """The visible button with a label, as an expression in the page."""
    return f"[...document.querySelectorAll('button')].find(b => b.offsetParent && b.innerText.trim() === {label!r})"


def _address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Where the first tab listens, once the browser has written its port down."""
    import httpx

    file, end = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
    while not file.exists() or len(file.read_text().splitlines()) < 2:
        assert process.poll() is None, "The browser ended by itself."
        assert time.monotonic() < end, "The browser did not start."
        time.sleep(0.05)
    port = file.read_text().splitlines()[0]
    while True:
        tabs = [
            tab
            for tab in httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE).json()
            if tab["type"] == "page"
        ]
        if tabs:
            return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
