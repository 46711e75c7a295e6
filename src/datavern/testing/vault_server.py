"""A local server of a vault's HTTP API: in a thread of its own, and out of order in the ways that a vault may be."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

__all__ = ["VaultServer"]


class VaultServer:
    """A server in a thread of its own.

    Attributes:
        down: while it is true, every connection is cut without an answer.
        down_after: so many more requests are answered, and then it is down; None for ever.
        garbage: what it answers everything with in place of its own answers; None: it does not.
        throttled: so many more requests are told to come back in a moment (429).
        held: method and the end of a path: such a request is answered when `go` is set, and not before.
        requests: how many were answered.
    """

    def __init__(self) -> None:
        self.down = False
        self.down_after: int | None = None
        self.garbage: bytes | None = None
        self.throttled = 0
        self.held: tuple[str, str] | None = None
        self.go = threading.Event()
        self.requests = 0
        self.lock = threading.RLock()
        self._http: ThreadingHTTPServer

    def __enter__(self) -> Self:
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urlsplit(self.path).path
                if served.held is not None and self.command == served.held[0] and path.endswith(served.held[1]):
                    served.held = None
                    served.go.wait(60)
                with served.lock:
                    if served.down_after is not None:
                        served.down_after -= 1
                        served.down = served.down or served.down_after < 0
                    if served.down:
                        self.close_connection = True
                        return
                    served.requests += 1
                    data = json.loads(body) if body else {}
                    status, answer, headers = 429, {"error": {"code": "Throttled"}}, {"Retry-After": "0"}
                    if served.throttled:
                        served.throttled -= 1
                    else:
                        status, answer, headers = served.reply(self.command, path, data, self.headers)
                raw = b"" if answer is None else json.dumps(answer).encode()
                raw = raw if served.garbage is None else served.garbage
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_LIST = answer  # noqa: N815  (http.server's names)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.secure(self._http)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    def secure(self, server: ThreadingHTTPServer) -> None:
        """Put TLS in front of it."""

    def reply(self, method: str, path: str, data: Any, headers: Any) -> tuple[int, Any, dict[str, str]]:
        """Status, body and headers."""
        raise NotImplementedError
