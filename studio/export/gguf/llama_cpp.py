"""A real llama.cpp, where one is found, asked what it makes of a GGUF file. Knows nothing of how the file was written.

It is the npm package node-llama-cpp with its prebuilt library, which runs in a process of its own: node, given a
request in a file and nothing of this process's environment. Nothing is installed or fetched here.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.base.errors import ProcessError
from studio.base.settings import settings

SCRIPT = Path(__file__).with_suffix(".mjs")
PATIENCE = 600
"""Seconds that node may take."""


@dataclass(frozen=True)
class Question:
    """What llama.cpp is asked of a file."""

    file: Path
    ids: Sequence[int]
    """A text's tokens, after each of which it says what follows; without any, weights are not read."""
    texts: Sequence[str] = ()
    """What it tokenizes, names of special tokens among it."""
    conversations: Sequence[Sequence[Mapping[str, str]]] = ()
    """Messages, each ``{"role": …, "content": …}``, that the file's chat template makes a prompt of."""
    answer: int = 0
    """How many tokens of an answer it gives."""


@dataclass(frozen=True)
class Reply:
    """What llama.cpp says of a file."""

    probabilities: Tensor
    """Of every token after each of those given, fp32 [tokens, vocabulary]."""
    tokens: list[list[int]]
    """Of each text, with no token put before or after."""
    prompts: list[str]
    """Of each conversation, as node-llama-cpp's reader of templates writes it."""
    ends: list[int]
    """Every token that ends an answer."""
    answer: list[int]
    """The likeliest tokens that follow those given, one after the other, to the first that ends an answer."""


@dataclass(frozen=True)
class LlamaCpp:
    """One that is here: the program node, and the folder ``node_modules`` with the package."""

    node: str
    modules: Path

    def ask(self, *questions: Question, patience: float = PATIENCE) -> list[Reply]:
        """Return what llama.cpp says, in one run. Raises ProcessError for a file it does not load, or is slow at."""
        with tempfile.TemporaryDirectory(prefix="studio-llama-cpp-") as place:
            request = Path(place) / "request.json"
            asked = [asdict(each) | {"file": str(each.file.resolve())} for each in questions]
            shared = {"modules": str(self.modules), "threads": torch.get_num_threads()}
            request.write_text(json.dumps(shared | {"questions": asked}), encoding="utf-8")
            self._run(request, questions[0].file, patience)
            try:
                results = json.loads((request.parent / "result.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ProcessError("llama_cpp_ended", file=questions[0].file.name) from error
            return [_reply(request.parent / f"{i}.f32", questions[i], each) for i, each in enumerate(results)]

    def _run(self, request: Path, file: Path, patience: float) -> None:
        """Let node work a request off. It and all that it starts end with it, and when this process ends."""
        quiet = subprocess.DEVNULL
        environment = {"PATH": os.defpath, "HOME": str(request.parent), "TMPDIR": str(request.parent)}
        with subprocess.Popen(
            [self.node, str(SCRIPT), str(request)], cwd=request.parent, env=environment, process_group=0,
            stdin=subprocess.PIPE, stdout=quiet, stderr=quiet,
        ) as node:  # fmt: skip
            try:
                node.wait(patience)  # its standard input stays open: once it is not, nobody waits
            except BaseException as error:
                os.killpg(node.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise ProcessError("llama_cpp_slow", file=file.name, seconds=round(patience)) from error
                raise


def found() -> LlamaCpp | None:
    """Return the llama.cpp that is here: below the folder of ``STUDIO_NODE_LLAMA``, else below the cache folder."""
    modules = (settings().node_llama or settings().cache_dir).absolute() / "node_modules"
    node = shutil.which("node")
    return LlamaCpp(node, modules) if node and (modules / "node-llama-cpp").is_dir() else None


def _reply(probabilities: Path, question: Question, result: Mapping[str, Any]) -> Reply:
    if "error" in result:
        raise ProcessError("llama_cpp_refused", file=question.file.name, reason=result["error"])
    count = len(question.ids)
    values = np.fromfile(probabilities, np.float32) if count else np.empty(0, np.float32)
    by_token = torch.from_numpy(values).view(count, values.size // max(1, count))
    return Reply(by_token, result["tokens"], result["prompts"], result["ends"], result["answer"])
