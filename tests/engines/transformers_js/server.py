"""Folders as a browser fetches them: transformers.js, models, a page. Knows nothing of what is in them."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path

TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm"}


@contextmanager
def served(places: Mapping[str, Path]) -> Iterator[str]:
    """Serve each folder under its name, and give the address."""

    class Handler(SimpleHTTPRequestHandler):
        def guess_type(self, path: str | PathLike[str]) -> str:
            return TYPES.get(Path(path).suffix) or super().guess_type(path)

        def translate_path(self, path: str) -> str:
            name, _, rest = path.partition("?")[0].lstrip("/").partition("/")
            return str(places[name] / rest) if name in places else ""

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
