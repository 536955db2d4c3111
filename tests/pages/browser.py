"""A headless Chromium, spoken to in the DevTools protocol through two pipes: no package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_SECONDS = 60.0
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe --no-first-run "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage --disable-extensions"
)


def find_browser() -> str | None:
    """Return where Chromium is; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page in the browser, with what it logged and what it asked for."""

    def __init__(self, out: int, into: int) -> None:
        self._out, self._into, self._number, self._rest = out, into, 0, b""
        self._session: str | None = None
        self.console: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """Call a method of the browser, and return its answer."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._read(lambda found: found.get("id") == number)["result"]

    def _read(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + WAIT_SECONDS
        while True:
            while b"\0" in self._rest:
                raw, _, self._rest = self._rest.partition(b"\0")
                found: dict[str, Any] = json.loads(raw)
                self._note(found)
                if is_wanted(found):
                    assert "error" not in found, found["error"]
                    return found
            ready, _, _ = select.select([self._into], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._into, 1 << 20) if ready else b""
            assert chunk, "the browser does not answer"
            self._rest += chunk

    def _note(self, found: dict[str, Any]) -> None:
        method, params = found.get("method"), found.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(each.get("value")) for each in params["args"]))
        elif method == "Page.loadEventFired":
            self._loaded = True

    def set_screen(self, width: int = 1280, height: int = 900, dark: bool = False, paper: bool = False) -> None:
        """Set the screen's size in pixels, its colours, and whether it is paper."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", media="print" if paper else "screen", features=features)

    def open(self, address: str) -> None:
        """Open an address, wait until it is loaded, and forget what earlier pages logged and asked for."""
        self.console, self.requests, self._loaded = [], [], False
        self.send("Page.navigate", url=address)
        if not self._loaded:
            self._read(lambda _: self._loaded)
        time.sleep(0.2)  # the page's observers come after the first frame

    def run(self, code: str) -> Any:
        """Return the value of JavaScript, awaited where it is a promise."""
        found = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def move_mouse(self, x: float, y: float, kind: str = "mouseMoved") -> None:
        """Move the mouse, or press or release its left button, at a place of the screen."""
        button = "none" if kind == "mouseMoved" else "left"
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def take_picture(self, path: Path, whole: bool = True) -> None:
        """Write a picture of the page, or of what is on the screen, as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {**size, "scale": 1}} if whole else {}
        data = self.send("Page.captureScreenshot", captureBeyondViewport=whole, **clip)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def open_browser(profile: Path) -> Iterator[Tab]:
    """Start a browser with an empty profile, and end it afterwards.

    Args:
        profile: an empty folder, for what the browser writes.
    """
    program = find_browser()
    assert program is not None, "there is no Chromium"
    (reads, out), (into, writes) = os.pipe(), os.pipe()

    def take_pipes() -> None:  # the browser reads from file 3 and writes to file 4
        os.dup2(reads, 20)
        os.dup2(writes, 21)
        os.dup2(20, 3)
        os.dup2(21, 4)

    process = subprocess.Popen(
        [program, *_FLAGS.split(), f"--user-data-dir={profile}"],
        preexec_fn=take_pipes,
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads)
    os.close(writes)
    try:
        yield Tab(out, into)
    finally:
        os.close(out)
        os.close(into)
        process.terminate()
        process.wait(WAIT_SECONDS)
