"""A port of the owner's, on which counters are read. Knows not what they count."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from studio.ui.door.names import Names, name_of
from studio.ui.watching.exposition import CONTENT_TYPE

READ_SECONDS = 10
"""That a reader may take to ask."""


class Port(ThreadingHTTPServer):
    """Serves ``/metrics`` from a thread of its own, to those who call it by a name that it has."""

    daemon_threads = True

    def __init__(self, host: str, port: int, text: Callable[[], str], names: Names) -> None:
        """Begin to serve what ``text`` returns. Raises OSError where the port cannot be had."""
        super().__init__((host, port), _Answer)
        self.text, self.names = text, names
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Port
    timeout = READ_SECONDS

    def do_GET(self) -> None:
        if not self.server.names.is_known(name_of(self.headers.get("host", ""))):
            self.send_error(421)
        elif self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
        else:
            said = self.server.text().encode()
            self.send_response(200)
            self.send_header("content-type", CONTENT_TYPE)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Keep it to itself."""
