"""``make bench-workers``: what it costs a token that models answer, and tokens are written, in processes of their own.

The built-in model at int4_asym 64 answers the same prompt by turns: with everything in one process, with the tokenizer
in its own, and as the page has it, the model in a worker and the tokenizer beside it, as one of two columns (which step
by turns) and alone (a step ahead of the reader). Times are of the whole way to the
reader, from the first token to the last; the least and the middle of the rounds are printed, for machines are noisy.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from studio.base.workers import ProcessWorker
from studio.chat.answer import LoadedModel, Reply, answer
from studio.chat.columns import compressed_column
from studio.chat.worker_model import Prefix, WorkerModel, replies
from studio.checkpoint import open_model
from studio.compression.compress import compress
from studio.export import write_folder
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.runtime.sampling import Sampling
from tests.steps import finish

TOKENS, ROUNDS = 128, 12
MESSAGES = [{"role": "user", "content": "Tell me a long story about a river and the people who live beside it."}]
SAMPLING = Sampling(max_new_tokens=TOKENS)


class InProcess:
    """A tokenizer whose answers are written here, for comparison: what files of strangers are never read with."""

    def __init__(self, guarded: Any, file: Path) -> None:
        self._guarded, self._fast = guarded, Tokenizer.from_file(str(file))
        self._streams: dict[int, DecodeStream] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guarded, name)

    def __len__(self) -> int:
        return len(self._guarded)

    def next_text(self, stream: int, ids: list[int], text: str) -> str:
        if len(ids) == 1:
            self._streams[stream] = DecodeStream(skip_special_tokens=True)
        return text + (self._streams[stream].step(self._fast, ids[-1]) or "")


def seconds_a_token(steps: Iterator[Reply]) -> float:
    """Return the time between the first token and the last as a reader sees it, a token."""
    first = last = 0.0
    tokens = 0
    for reply in steps:
        last = time.perf_counter()
        if not first and reply.tokens:
            first = last
        tokens = reply.tokens
    return (last - first) / max(1, tokens - 1)


def main() -> int:
    checkpoint = finish(open_model.open_model(open_model.BUILTIN, paths=False))
    with tempfile.TemporaryDirectory() as place:
        plan = make_plan(checkpoint.layers, Choice.of("int4_asym", 64, 1.0, "int8_asym"))
        done = finish(compress(checkpoint, plan, Path(place) / "packed"))
        folder = write_folder(checkpoint, done, Path(place) / "exported")
        column = compressed_column(folder)
        guarded: LoadedModel = column.open()
        in_process: Any = InProcess(guarded.tokenizer, folder / "tokenizer.json")
        alone = replace(guarded, tokenizer=in_process)
        loaded = WorkerModel.opened(ProcessWorker(), column.open)
        ways: dict[str, Callable[[], Iterator[Reply]]] = {
            "one process": lambda: answer(alone, MESSAGES, SAMPLING),
            "tokenizer apart": lambda: answer(guarded, MESSAGES, SAMPLING),
            "side by side, by turns": lambda: replies(loaded, MESSAGES, SAMPLING, 16, Prefix()),
            "alone, a step ahead": lambda: replies(loaded, MESSAGES, SAMPLING, 16, Prefix(), is_only_column=True),
        }
        texts = {[reply.text for reply in begin()][-1] for begin in ways.values()}
        if len(texts) != 1:
            raise ValueError("the ways differ in what they say")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, begin in ways.items():
                times[name].append(seconds_a_token(begin()))
        loaded.close()
    base = times["one process"]
    for name, found in times.items():
        pairs = statistics.median(a / b for a, b in zip(found, base, strict=True))
        print(
            f"{name:26} {1e3 * min(found):.3f} ms a token at best, {1e3 * statistics.median(found):.3f} in the middle;"
            f" {min(found) / min(base):.3f} x and {pairs:.3f} x one process"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
