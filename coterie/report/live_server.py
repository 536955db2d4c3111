"""Serve live pages to browsers on this machine: read-only, on the loopback address, from folders known beforehand.

/                        the live page of the folder          /runs/NAME/      that of a run of a sweep
/state                   how it stands, as JSON               /stages/NAME/    that of a stage of a chain
/page, /report.html      its report as of now
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from coterie.core.errors import Mistake
from coterie.report.live_page import LIVE_POLICY, live_page
from coterie.report.live_state import LiveState

LOOPBACK = "127.0.0.1"
_LOCAL_NAMES = (LOOPBACK, "localhost", "[::1]")
_HEADERS = {
    "Content-Security-Policy": LIVE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LiveSource(Protocol):
    """What a live page shows."""

    name: str
    pause_seconds: float

    def state(self) -> LiveState:
        """Return how it stands."""

    def page(self) -> str:
        """Return its report as of now, as HTML.

        Raises:
            Mistake: a file is damaged.
        """


class _Page(NamedTuple):
    stamp: str
    html: str


class LiveServer(ThreadingHTTPServer):
    """A server of live pages; `serve_forever` serves them, and `address` says where.

    Args:
        sources: returns what there is to see, by its place: "" or "runs/NAME". It is called for each request.
        port: 0 chooses a free one.

    Raises:
        Mistake: the port cannot be used.
    """

    daemon_threads = True

    def __init__(self, sources: Callable[[], Mapping[str, LiveSource]], port: int = 0) -> None:
        self.sources = sources
        self._pages: dict[str, _Page] = {}
        self._making = threading.Lock()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise Mistake(f"--port {port}: cannot be used ({why}); leave it out for a free one") from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"http://{LOOPBACK}:{self.port}/"

    def page(self, place: str, source: LiveSource) -> str:
        """Return a source's report, made once for each state that it is in, by one thread at a time."""
        with self._making:
            stamp = source.state().stamp
            kept = self._pages.get(place)
            if kept is None or kept.stamp != stamp:
                kept = self._pages[place] = _Page(stamp, source.page())
            return kept.html


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout: ClassVar[float] = 30.0  # of a connection that says nothing
    server_version, sys_version = "coterie", ""

    def do_GET(self) -> None:
        """Answer with a page or a state."""
        if not self._is_local():
            return self._answer(HTTPStatus.FORBIDDEN, "text/plain", "open this page by its own address\n")
        place, _, leaf = unquote(urlsplit(self.path).path).removeprefix("/").rpartition("/")
        source = self.server.sources().get(place)  # a name that is known or none: no path is made of it
        if source is None:
            return self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n")
        if leaf in ("", "report.html"):
            return self._answer(HTTPStatus.OK, "text/html", live_page(source.name))
        if leaf == "state":
            found: dict[str, Any] = {**source.state()._asdict(), "pause": source.pause_seconds}
            return self._answer(HTTPStatus.OK, "application/json", json.dumps(found))
        if leaf == "page":
            return self._answer(HTTPStatus.OK, "text/html", self.server.page(place, source))
        return self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n")

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._answer(
            HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "this page can only be read\n", {"Allow": "GET, HEAD"}
        )

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _is_local(self) -> bool:
        """Return whether the request names this machine.

        A page of a stranger may let its own name lead to this machine, and would then be allowed to read the answers.
        The port may be another one, that of an ssh tunnel.
        """
        host = self.headers.get("Host", "")
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        return name.lower() in _LOCAL_NAMES and (not port or port.isdecimal())

    def _answer(self, status: HTTPStatus, kind: str, text: str, more: Mapping[str, str] | None = None) -> None:
        body = text.encode()
        try:
            self.send_response(status)
            for name, value in {**_HEADERS, **(more or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the browser has gone

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: each open page asks once a second."""
