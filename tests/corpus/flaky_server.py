"""A web server on this machine that can be told to misbehave."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FlakyServer:
    """What the server holds, how it misbehaves, and what it was asked.

    Args:
        files: contents by path.
        ranges: answers requests for a range with that range.
        lengths: says how long an answer is.
        break_after: closes each connection after so many bytes of a body.
        busy: answers so many requests with `status` first.
        etags: versions by path.
        statuses: a final answer by path.
        content_range: said in place of the range that is sent; empty says nothing.
        asked: path and range of every request.
        headers: sent with every answer.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    break_after: int | None = None
    busy: int = 0
    status: int = 503
    etags: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    content_range: str | None = None
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return self.address + path


@contextlib.contextmanager
def flaky_server() -> Iterator[FlakyServer]:
    state = FlakyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
            path = self.path.partition("?")[0]
            if state.busy:
                state.busy -= 1
                self.send_error(state.status)
            elif path in state.statuses:
                self.send_error(state.statuses[path])
            elif path not in state.files:
                self.send_error(404)
            else:
                self._answer(state.files[path], state.etags.get(path))

        def _answer(self, data, etag):
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            body = data
            if match and state.ranges:
                first, last = int(match[1]), min(int(match[2]), len(data) - 1)
                body = data[first : last + 1]
                if first >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                else:
                    self.send_response(206)
                    said = f"bytes {first}-{last}/{len(data)}"
                    self.send_header(
                        "Content-Range", said if state.content_range is None else state.content_range
                    )
            else:
                self.send_response(200)
            if etag:
                self.send_header("ETag", f'"{etag}"')
            for name, value in state.headers.items():
                self.send_header(name, value)
            if state.lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # The first byte alone is asked for to learn about the file; breaking there gains nothing.
            limit = None if len(body) <= 1 else state.break_after
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[:limit])

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
