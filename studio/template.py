"""Chat templates, rendered in a process of their own. Knows nothing of models.

A template is a program from a stranger. Jinja's sandbox keeps it from the machine, but not from looping for ever or
filling the memory; a separate process with limits on both can be ended.
"""

import json
import math
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from studio.errors import PromptError

TIMEOUT = 5.0
"""Seconds a template may take."""
MAX_TEMPLATE = 200_000
MAX_RESULT = 2_000_000
"""Characters."""
MEMORY = 2 << 30
"""Bytes of address space of the rendering process."""

Message = Mapping[str, str]
"""``{"role": "user", "content": "…"}``"""


class TemplateRenderer:
    """One rendering process, started when first needed and again after it had to be ended. Threads may share it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._endless: dict[int, float] = {}
        """When a template, by its hash, was last stopped: another column need not wait for it again."""

    def start(self) -> None:
        """Start the process ahead of need: it takes a second to import."""
        with self._lock:
            self._running()

    def render(self, template: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> str:
        """Return the prompt that ``template`` makes of the messages, ending where the answer begins.

        ``tokens``: the special tokens a template may name (``bos_token``, …). Raises PromptError for a template that
        fails, never ends, or is absurdly long.
        """
        if len(template) > MAX_TEMPLATE:
            raise PromptError("template_failed", reason=f"{len(template):,} characters")
        request = json.dumps({"template": template, "messages": [dict(m) for m in messages], "tokens": dict(tokens)})
        with self._lock:
            if time.monotonic() - self._endless.get(hash(template), -math.inf) < 2 * TIMEOUT:
                raise PromptError("template_endless", seconds=f"{TIMEOUT:.0f}")
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(request + "\n")
                process.stdin.flush()
                ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
                line = process.stdout.readline() if ready else ""
            except OSError:
                line = ""
            if not line:
                self._end()
                self._endless = {hash(template): time.monotonic()}
                raise PromptError("template_endless", seconds=f"{TIMEOUT:.0f}")
        answer = json.loads(line)
        if "error" in answer:
            raise PromptError("template_failed", reason=str(answer["error"])[:160])
        return str(answer["text"])

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studio.template"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it says when it is ready
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _serve() -> None:
    """Read a request a line from standard input and answer each with a line: the life of the process."""
    from transformers.utils.chat_template_utils import render_jinja_template

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(render_jinja_template, json.loads(line))), flush=True)


def _answer(render: Any, request: dict[str, Any]) -> dict[str, str]:
    try:
        rendered, _ = render(
            [request["messages"]], chat_template=request["template"], add_generation_prompt=True, **request["tokens"]
        )
        if len(rendered[0]) > MAX_RESULT:
            return {"error": f"{len(rendered[0]):,} characters"}
        return {"text": rendered[0]}
    except Exception as error:  # a stranger's program may raise anything; its words are the user's clue
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    _serve()
