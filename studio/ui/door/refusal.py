"""What is said to whoever is turned away: a status and one sentence in their language. Knows not why."""

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

from studio.base.text import preferred, text
from studio.ui.door.asked import Asked

Send = Callable[[Any], Awaitable[None]]
CALLS = ("queue/", "run/", "api/", "call/", "cancel")
"""Whose answers the page reads as JSON, and shows what it finds there."""


class Refused(Exception):  # noqa: N818 - an outcome
    """A request that is not answered, by a key of the catalogues under ``door.``."""

    def __init__(self, status: int, key: str, wait: float = 0.0, **values: object) -> None:
        super().__init__(key)
        self.status, self.key, self.wait, self.values = status, key, wait, values

    def sentence(self, language: str) -> str:
        values = {name: str(value)[:100] for name, value in self.values.items()}
        return text(f"door.{self.key}", language, **values, seconds=math.ceil(self.wait))

    async def answer(self, asked: Asked, send: Send) -> None:
        """Send it; the connection ends with it, so that nothing more of a long body comes."""
        sentence = self.sentence(preferred(asked.header("accept-language")))
        is_call = (asked.api or "").startswith(CALLS)
        said = {"detail": sentence, "error": sentence}
        body = (json.dumps(said, ensure_ascii=False) if is_call else sentence + "\n").encode()
        kind = "application/json" if is_call else "text/plain; charset=utf-8"
        headers = {
            "content-type": kind,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "connection": "close",
        }
        if self.status == 429:
            headers["retry-after"] = str(max(1, math.ceil(self.wait)))
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": pairs})
        await send({"type": "http.response.body", "body": b"" if asked.method == "HEAD" else body})
