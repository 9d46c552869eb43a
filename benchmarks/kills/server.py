"""A server on this machine for the downloads: it resumes, as the hosts of data sets do."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

PIECE = 16_384


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a process of its own that gives the files, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files[self.path]
            start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
            if start and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client was killed
                for place in range(start, len(content), PIECE):
                    self.wfile.write(content[place : place + PIECE])

        def log_message(self, *_arguments) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if not (pid := os.fork()):
        server.serve_forever()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        server.server_close()
