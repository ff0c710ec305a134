"""GGUF -> a folder with safetensors, in a process of its own. Knows nothing of where the folder is kept.

transformers changes things of the whole process while it builds a model, and a stranger's file may need any memory.
Started by :mod:`studio.checkpoint.gguf.source`, it says where it stands, and is killed when nobody waits any more.
"""

import json
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import GenerationConfig

from studio.base.errors import CheckpointError, ResourceError, UserError, disk_error, is_out_of_memory
from studio.checkpoint.architecture import empty_model
from studio.checkpoint.file_names import STORED, WEIGHTS
from studio.checkpoint.gguf.config import cause, config_of, end_tokens, factor_names, of_file
from studio.checkpoint.gguf.header import shown
from studio.checkpoint.gguf.model import TOKENS, GgufModel, read_gguf_model
from studio.checkpoint.gguf.tensors import (
    check_rope,
    dequantized,
    in_16_bits,
    is_loaded_whole,
    loaded_whole,
    parameters,
    stored_types,
)
from studio.checkpoint.tokenizer.files import SETTINGS, TOKENIZER

BASE_MEMORY = 1_000_000_000
"""Bytes that may be taken beyond what the process begins with, where tensors and vocabulary are tiny."""
BYTES_PER_TOKEN = 8192
"""Ten times what a vocabulary of 100,000 takes in Python's objects, the library's tables and the file's text."""
BYTES_PER_WEIGHT = 24
"""Of the largest tensor: in fp32 as it is read, rearranged and put together, and both ways in 16 bits."""
TOKENIZER_KEYS = ("tokenizer.ggml.model", TOKENS)
"""Metadata without which there is no tokenizer."""
NAMES = {torch.float16: "F16", torch.bfloat16: "BF16"}


class SixteenBitFile:
    """A safetensors file of 16-bit tensors, written one by one; which 16 bits is known when each is written."""

    def __init__(self, file: BinaryIO, shapes: dict[str, tuple[int, ...]]) -> None:
        self._file, self._shapes = file, shapes
        self._dtypes = dict.fromkeys(shapes, "BF16")
        self._begin = -(-len(self._header()) // 64) * 64
        self._starts: dict[str, int] = {}
        position = self._begin
        for name, shape in shapes.items():
            self._starts[name] = position
            position += 2 * torch.Size(shape).numel()

    def write(self, name: str, values: Tensor) -> None:
        """Write one tensor."""
        self._dtypes[name] = NAMES[values.dtype]
        self._file.seek(self._starts[name])
        self._file.write(values.contiguous().flatten().view(torch.uint8).numpy().data)

    def finish(self) -> None:
        """Write the header; without it the file is none."""
        header = self._header().ljust(self._begin)
        self._file.seek(0)
        self._file.write((len(header) - 8).to_bytes(8, "little") + header[8:])

    def _header(self) -> bytes:
        """Return eight bytes for the length and the header."""
        claims: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, shape in self._shapes.items():
            end = position + 2 * torch.Size(shape).numel()
            claims[name] = {"dtype": self._dtypes[name], "shape": list(shape), "data_offsets": [position, end]}
            position = end
        return b" " * 8 + json.dumps(claims).encode()


@dataclass(frozen=True)
class Built:
    """transformers' model for a file, still empty, and its values on their way."""

    model: GgufModel
    module: Any
    values: Iterator[tuple[str, Tensor, str]]
    """Parameter, values, and the type they were stored in."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """All parameters but those tied to another."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.module.state_dict().items()}
        return {name: shape for name, shape in shapes.items() if name not in self.module.all_tied_weights_keys}


def convert(file: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Write config, tokenizer and weights into ``folder``, which is there, within limits. Raises what the file is at
    fault for."""
    model = read_gguf_model(file, keep=(TOKENS,))
    _limit_memory(model)
    built = build(model)
    say("tokenizer")
    with _processor_time(model.tokenizer_seconds):
        save_tokenizer(built, folder)
    say("saving")
    save_weights(built, folder)


def build(model: GgufModel) -> Built:
    """Return the empty model, once every tensor has its place and every parameter its tensor, and it turns positions as
    the file says. Raises CheckpointError otherwise."""
    factors = {name: dequantized(*model.tensors[name]).astype("float64") for name in factor_names(model)}
    config, rope = config_of(model, factors)
    if is_loaded_whole(model):
        module, values = loaded_whole(model, config)
    else:
        module = _empty(model, config)
        values = parameters(model, module)
    if rope is not None:
        check_rope(model, module, rope)
    return Built(model, module, values)


def _empty(model: GgufModel, config: Any) -> Any:
    try:
        return empty_model(config)
    except UserError as error:
        raise of_file(error, model.file) from error


def save_tokenizer(built: Built, folder: Path) -> None:
    """Write the tokenizer's files. Raises CheckpointError for a vocabulary that makes none."""
    from transformers import AutoTokenizer
    from transformers import modeling_gguf_pytorch_utils as reader

    file, config = built.model.file, built.module.config
    for key in TOKENIZER_KEYS:
        if key not in built.model.metadata:
            raise CheckpointError("gguf_tokenizer", file=file.name, reason=key)
    try:
        # It would read the whole vocabulary, which takes seconds, for the config that is known.
        with patch.object(reader, "load_gguf_checkpoint", lambda *_, **__: {"config": config.to_dict()}):
            tokenizer = AutoTokenizer.from_pretrained(
                file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
            )
    except (MemoryError, OSError):
        raise
    except Exception as error:  # the library's own words say which token or merge is at fault
        raise CheckpointError("gguf_tokenizer", file=file.name, reason=cause(error)) from error
    tokenizer.save_pretrained(folder)
    _drop_others(folder, built.model.tokens)


def _drop_others(folder: Path, count: int) -> None:
    """Take out the tokens that the file does not have: transformers gives GPT-2's own end of a text to any vocabulary
    of that kind, where the model has no row for it and no other file has room."""
    file = folder / TOKENIZER
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    others = {each["content"] for each in said.get("added_tokens", []) if each["id"] >= count}
    if not others:
        return
    said["added_tokens"] = [each for each in said["added_tokens"] if each["content"] not in others]
    file.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    kept = {key: value for key, value in settings.items() if not (isinstance(value, str) and value in others)}
    (folder / SETTINGS).write_text(json.dumps(kept, indent=2), encoding="utf-8")


def save_weights(built: Built, folder: Path) -> None:
    """Write weights, config and what ends an answer."""
    dtypes = set()
    with (folder / WEIGHTS).open("wb") as place:
        weights = SixteenBitFile(place, built.shapes)
        for name, values, source in built.values:
            stored = in_16_bits(values, source)
            dtypes.add(stored.dtype)
            weights.write(name, stored)
        weights.finish()
    config = built.module.config
    config.dtype = torch.float16 if dtypes == {torch.float16} else torch.bfloat16
    config.architectures = [type(built.module).__name__]
    config.save_pretrained(folder)
    types = stored_types(built.model, built.module)
    (folder / STORED).write_text(json.dumps({name: [t.type, list(t.shape), t.nbytes] for name, t in types.items()}))
    settings = GenerationConfig.from_model_config(config)
    ends = end_tokens(built.model)
    if ends:
        settings.eos_token_id = ends if len(ends) > 1 else ends[0]
    settings.save_pretrained(folder)


@contextmanager
def _processor_time(seconds: int) -> Iterator[None]:
    """Let this process be ended when it takes longer."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, before)


def _limit_memory(model: GgufModel) -> None:
    largest = max(tensor.numel for _, tensor in model.tensors.values())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    weights = model.weights if is_loaded_whole(model) else largest
    limit = _data_bytes() + BASE_MEMORY + BYTES_PER_TOKEN * model.tokens + BYTES_PER_WEIGHT * weights
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _data_bytes() -> int:
    """Return what of this process counts against the limit on data."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def serve(place: socket.socket, file: str, folder: str) -> None:
    """Convert, and say each step and how it ended in a line of JSON: the life of the process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries talk; the server's own output is not theirs
        os.dup2(nowhere, stream)

    def say(**words: Any) -> None:
        place.sendall(json.dumps(words).encode() + b"\n")

    try:
        convert(Path(file), Path(folder), lambda step: say(step=step))
        say(done=True)
    except Exception as error:
        reason = _user_error(error, Path(file), Path(folder))
        values = {name: str(value) for name, value in reason.values.items()}
        say(error=type(reason).__name__, key=reason.key, values=values)


def _user_error(error: Exception, file: Path, folder: Path) -> UserError:
    """Return the sentence for an error: transformers' reader raises many kinds, of which a user can do one thing."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return ResourceError("gguf_memory", file=file.name)
    if isinstance(error, OSError):
        return disk_error(error, folder)
    return CheckpointError("gguf_unreadable", file=file.name, reason=shown(str(error)) or type(error).__name__)
