"""What is fuzzed: by name, the sound input, how it is spoiled, and what reads it as the studio does.

Reading returns, or raises a UserError; anything else is a find. Knows no limits.
"""

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import COMPILED, TEMPLATE, save_tiny_model, served
from tests.fuzz.spoiling import Step, spoiled_bytes, spoiled_json
from tests.soak import BUG, new_cookie

HEAD = 6000
"""Bytes at the beginning of a GGUF file that are spoiled: its keys and tensors, hardly its vocabulary."""
ANSWER = 100.0
"""Seconds of the clock, on a machine that does other things: ten of a quiet one."""
UNLIMITED = ("CALLS_PER_MINUTE", "ADDRESS_CALLS_PER_MINUTE", "VISITOR_TABS", "ADDRESS_TABS", "VISITOR_JOBS_PER_HOUR")


class Wrong(Exception):  # noqa: N818 - a find
    """The page did what it should not."""


@dataclass(frozen=True)
class Target:
    """One of them, ready."""

    sound: bytes
    spoil: Callable[[bytes, list[Step]], bytes]
    read: Callable[[bytes], object]


@contextmanager
def safetensors() -> Iterator[Target]:
    """The header of a weight file."""
    from studio.checkpoint.headers import read_header

    with _model() as folder:
        file = folder / "model.safetensors"
        raw = file.read_bytes()
        end = 8 + int.from_bytes(raw[:8], "little")

        def read(header: bytes) -> None:
            file.write_bytes(header + raw[end:])
            read_header(file)

        def spoil(sound: bytes, steps: list[Step]) -> bytes:
            if steps[0][1] % 2:
                return spoiled_bytes(sound, steps)
            changed = spoiled_json(sound[8:], steps)
            return len(changed).to_bytes(8, "little") + changed

        yield Target(raw[:end], spoil, read)


@contextmanager
def gguf() -> Iterator[Target]:
    """A GGUF file's keys and tensors."""
    from studio.checkpoint.gguf.model import read_gguf_model
    from tests.gguf_models import Written

    with tempfile.TemporaryDirectory() as place:
        file = Written("llama", "llama", Path(place)).file()
        raw = file.read_bytes()

        def read(content: bytes) -> None:
            file.write_bytes(content)
            read_gguf_model(file)

        yield Target(raw, lambda sound, steps: spoiled_bytes(sound[:HEAD], steps) + sound[HEAD:], read)


@contextmanager
def config() -> Iterator[Target]:
    """A model's config, as choosing the model reads it."""
    from studio.checkpoint.checkpoint import of_folder

    with _model() as folder:
        file = folder / "config.json"

        def read(content: bytes) -> None:
            file.write_bytes(content)
            of_folder(folder)

        yield Target(file.read_bytes(), spoiled_json, read)


@contextmanager
def tokenizer() -> Iterator[Target]:
    """A tokenizer, as a chat uses it."""
    from tests.tokenizer_folders import use

    with _model() as folder:
        file = folder / "tokenizer.json"

        def read(content: bytes) -> None:
            file.write_bytes(content)
            use(folder)

        yield Target(file.read_bytes(), spoiled_json, read)


@contextmanager
def recipe() -> Iterator[Target]:
    """A recipe, as the page and ``apply`` read it."""
    from studio import compress
    from studio.checkpoint.recipe import recipe_of
    from studio.planning.recipe_plan import choice_of

    with _model() as folder:
        compress(str(folder), folder / "packed")
        file = folder / "packed" / "recipe.json"

        def read(content: bytes) -> None:
            file.write_bytes(content)
            choice_of(recipe_of(file))

        yield Target(file.read_bytes(), spoiled_json, read)


@contextmanager
def api() -> Iterator[Target]:
    """A call of the page, with one function's inputs at a time."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "cache").mkdir()
        COMPILED.mkdir(parents=True, exist_ok=True)
        (folder / "cache" / "native").symlink_to(COMPILED)
        limits = {f"STUDIO_LIMIT_{name}": "1000000" for name in UNLIMITED}
        own = {
            "STUDIO_CACHE_DIR": str(folder / "cache"),
            "STUDIO_ACCESS": "public",
            "HF_ENDPOINT": "http://127.0.0.1:9",
        }
        with served(folder, **own, **limits) as address:
            page = json.loads(urllib.request.urlopen(f"{address}config", timeout=600).read())
            sound = [
                {"path": f"run/{each['api_name']}", "fn_index": each["id"], "session_hash": "fuzzed",
                 "data": [None, "en", *[0] * max(0, len(each["inputs"]) - 2)], "trigger_id": None, "event_data": None}
                for each in page["dependencies"] if each["api_name"] and each["backend_fn"]
            ]  # fmt: skip
            calls = _Calls(address, folder / "server.log")

            def spoil(all_of_them: bytes, steps: list[Step]) -> bytes:
                every = json.loads(all_of_them)
                one = every[steps[0][2] % len(every)]
                if steps[0][1] % 3:
                    one["path"] = "queue/join"
                return spoiled_json(json.dumps(one).encode(), steps)

            yield Target(json.dumps(sound).encode(), spoil, calls.read)


class _Calls:
    """Sends what was spoiled, and looks at what the page makes of it."""

    def __init__(self, address: str, log: Path) -> None:
        self._address, self._log, self._seen, self._cookie = address, log, 0, new_cookie()

    def read(self, content: bytes) -> None:
        """Raises Wrong where the page falls, hangs, says that it found a bug of ours, or lets a stranger in."""
        body: Any = json.loads(content)
        path = body.get("path") if isinstance(body, dict) else None
        where = path if isinstance(path, str) and path.isascii() and path.isprintable() and " " not in path else "run/x"
        said = self._sent(f"gradio_api/{where}", content)
        if BUG.search(said):
            raise Wrong(said[:500])
        if "root:" in said:
            raise Wrong("it gives files away")
        if '"version"' not in self._sent("health", None):
            raise Wrong("it is not well any more")
        written = self._log.read_text(errors="replace")
        news, self._seen = written[self._seen :], len(written)
        if " failed\n" in news or "studio/ui/" in news.rpartition("Traceback")[2]:
            raise Wrong(news[-3000:])

    def _sent(self, path: str, content: bytes | None) -> str:
        headers = {"Content-Type": "application/json", "Cookie": self._cookie}
        request = urllib.request.Request(self._address + path, content, headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                read: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                read = error.read()
        return read.decode(errors="replace")


@contextmanager
def _model() -> Iterator[Path]:
    """Give a folder with a tiny model, which goes in the end."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        save_tiny_model("llama", folder)
        (folder / "chat_template.jinja").write_text(TEMPLATE)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


TARGETS = {
    "safetensors": safetensors, "gguf": gguf, "config": config, "tokenizer": tokenizer, "recipe": recipe, "api": api,
}  # fmt: skip
