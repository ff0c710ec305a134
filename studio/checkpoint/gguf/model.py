"""A model as its GGUF files hold it: all parts of a split one, checked against each other. Knows no transformers.

What can be told to be wrong from headers alone is refused here, before any library sees the files.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from studio.base.errors import CheckpointError
from studio.checkpoint.config_values import MAX_LAYERS, MAX_SIZE
from studio.checkpoint.gguf.header import Array, GgufHeader, GgufTensor, Value, read_gguf_header, shown

PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""What llama.cpp calls a part of a split file."""
MAX_PARTS = 1000
MAX_TOKENS = 1 << 19
"""Twice the largest vocabulary there is; a tokenizer of more is seconds in the making."""
READABLE = frozenset(
    {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
    | {"IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS"}
    | {"TQ1_0", "TQ2_0", "MXFP4", "NVFP4"}
)
"""Types whose values gguf's own code knows."""
EMBEDDING = "token_embd.weight"
TOKENS = "tokenizer.ggml.tokens"
TOKENIZER_SECONDS = 5
"""Of processor time that making a tokenizer of hardly any tokens may take."""
TOKENS_PER_SECOND = 4096
"""More seconds for more tokens, twenty times the 10 µs that transformers takes for each of 100,000."""
LANGUAGES = "general.languages"
OF_TOKENS = ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")
"""Arrays with an entry for each token."""
TEXTS = ("tokenizer.ggml.model", "tokenizer.chat_template")


@dataclass(frozen=True)
class GgufModel:
    """One or several files that make a model; the first has the metadata."""

    parts: tuple[GgufHeader, ...]

    @property
    def file(self) -> Path:
        """The first file, whose name goes into messages."""
        return self.parts[0].path

    @property
    def metadata(self) -> dict[str, Value]:
        return self.parts[0].metadata

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    @cached_property
    def tensors(self) -> dict[str, tuple[GgufHeader, GgufTensor]]:
        """All parts' tensors by name, in order, each with the part that holds it."""
        return {tensor.name: (part, tensor) for part in self.parts for tensor in part.tensors}

    @property
    def nbytes(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def weights(self) -> int:
        return sum(tensor.numel for _, tensor in self.tensors.values())

    @property
    def card(self) -> dict[str, object]:
        """What the file says as a model's card would; of its languages only where ``keep`` has :data:`LANGUAGES`."""
        keys = {"license": "general.license", "license_name": "general.license.name", "language": LANGUAGES}
        return {word: self.metadata.get(key) for word, key in keys.items()}

    @property
    def format(self) -> str:
        """The types of the weights, those of most bytes first: ``"Q4_1/Q8_0"``."""
        sums: dict[str, int] = {}
        for _, tensor in self.tensors.values():
            if len(tensor.shape) > 1:
                sums[tensor.type] = sums.get(tensor.type, 0) + tensor.nbytes
        return "/".join(sorted(sums, key=lambda name: -sums[name]))

    @property
    def tokens(self) -> int:
        """How many entries the vocabulary has."""
        return _length(self.metadata.get(TOKENS, [])) or 0

    @property
    def tokenizer_seconds(self) -> int:
        """Of processor time that making the tokenizer may take: a small file gets no more than it can need."""
        return TOKENIZER_SECONDS + self.tokens // TOKENS_PER_SECOND

    def setting(self, name: str) -> Value | None:
        """Return the architecture's own metadata: ``setting("rope.freq_base")``."""
        return self.metadata.get(f"{self.architecture}.{name}")

    def number(self, name: str) -> float | None:
        """Return such metadata that is a number, None where there is none."""
        value = self.setting(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(f"{self.architecture}.{name}", value)
        return value

    def refuse(self, key: str, value: object) -> NoReturn:
        """Raise CheckpointError for metadata that cannot be."""
        raise CheckpointError("gguf_bad_value", file=self.file.name, key=shown(key), value=shown(str(value)))


def read_gguf_model(file: Path, keep: Collection[str] = ()) -> GgufModel:
    """Return the model that ``file`` is, or is a part of; ``keep`` as :func:`read_gguf_header` has it.

    Raises CheckpointError where a part is missing or of another model, or the headers cannot be a language model's.
    """
    header = read_gguf_header(file, keep)
    count = header.metadata.get("split.count", 1)
    if type(count) is not int or not 0 <= count <= MAX_PARTS:
        raise _wrong(header, "split.count", count)
    parts = _parts(header, count, keep) if count > 1 else (header,)
    model = GgufModel(parts)
    _check_tensors(model)
    _check_metadata(model)
    _check_vocabulary(model)
    return model


def parts_beside(file: Path) -> list[Path]:
    """Return the files of a split model that are there, in order, by their names alone; of another, ``file``."""
    named = PART.fullmatch(file.name)
    if named is None:
        return [file]
    return [path for path in _names(file, int(named["count"])) if path.is_file()]


def _names(file: Path, count: int) -> list[Path]:
    """Return what the parts of a split file are called."""
    named = PART.fullmatch(file.name)
    name = "" if named is None else named["name"]
    return [
        file.with_name(f"{name}-{number:05d}-of-{count:05d}.gguf") for number in range(1, min(count, MAX_PARTS) + 1)
    ]


def _parts(header: GgufHeader, count: int, keep: Collection[str]) -> tuple[GgufHeader, ...]:
    """Return all parts, in order."""
    own = header.metadata.get("split.no", 0)
    if type(own) is not int or not 0 <= own < count:
        raise _wrong(header, "split.no", own)
    named = PART.fullmatch(header.path.name)
    if named is None or int(named["count"]) != count or int(named["number"]) != own + 1:
        raise CheckpointError(
            "gguf_part_renamed", file=header.path.name, number=own + 1, count=count, total=f"{count:05d}"
        )
    paths = _names(header.path, count)
    for path in paths:
        if not path.is_file():
            raise CheckpointError(
                "gguf_part_missing", file=header.path.name, number=own + 1, count=count, missing=path.name
            )
    parts = tuple(header if path == header.path else read_gguf_header(path, keep) for path in paths)
    for number, part in enumerate(parts):
        for key, wanted in (("split.no", number), ("split.count", count)):
            if part.metadata.get(key) != wanted:
                raise _other(parts, part, f"{key} {part.metadata.get(key)}")
    names = [tensor.name for part in parts for tensor in part.tensors]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError("gguf_twice", file=header.path.name, name=shown(twice))
    for part in parts:
        promised = part.metadata.get("split.tensors.count", len(names))
        if promised != len(names):
            raise _other(parts, part, f"split.tensors.count {promised}, {len(names)}")
        kind = part.metadata.get("general.architecture")
        if kind is not None and kind != parts[0].metadata.get("general.architecture"):
            raise _other(parts, part, f"general.architecture {shown(str(kind))}")
    return parts


def _check_tensors(model: GgufModel) -> None:
    for part, tensor in model.tensors.values():
        if tensor.type not in READABLE:
            raise CheckpointError("unknown_dtype", file=part.path.name, dtype=tensor.type)
    if EMBEDDING not in model.tensors:
        raise CheckpointError("gguf_tensor_missing", file=model.file.name, tensor=EMBEDDING, parameter="embedding")


def _check_metadata(model: GgufModel) -> None:
    """Raise CheckpointError for sizes that cannot be: what is built by them would take forever, or all memory."""
    kind = model.metadata.get("general.architecture")
    if kind is None:
        raise CheckpointError("gguf_key_missing", file=model.file.name, key="general.architecture")
    if not isinstance(kind, str) or not re.fullmatch(r"[\w.-]{1,64}", kind):
        model.refuse("general.architecture", kind)
    for key, value in model.metadata.items():
        if key.startswith(f"{kind}."):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, float) and not math.isfinite(each):
                    model.refuse(key, value)
                if type(each) is int and not -1 <= each <= MAX_SIZE:
                    model.refuse(key, value)
    for key in TEXTS:
        if not isinstance(model.metadata.get(key, ""), str):
            model.refuse(key, model.metadata[key])
    if (model.number("rope.dimension_count") or 0) % 2:
        model.refuse(f"{kind}.rope.dimension_count", model.number("rope.dimension_count"))
    layers = model.number("block_count")
    if layers is None:
        raise CheckpointError("gguf_key_missing", file=model.file.name, key=f"{kind}.block_count")
    if not 0 < layers <= min(MAX_LAYERS, len(model.tensors)):
        model.refuse(f"{kind}.block_count", layers)


def _check_vocabulary(model: GgufModel) -> None:
    """Raise CheckpointError where embedding, tokens and special tokens do not fit each other."""
    embedding = model.tensors[EMBEDDING][1]
    said = model.number("vocab_size")
    if len(embedding.shape) != 2:
        raise CheckpointError(
            "gguf_tensor_shape", file=model.file.name, tensor=EMBEDDING, shape=embedding.shape, wanted="2 dimensions"
        )
    if said is not None and said != embedding.shape[0]:
        model.refuse(f"{model.architecture}.vocab_size", said)
    tokens = model.metadata.get(TOKENS)
    if tokens is None:
        return
    count = _length(tokens)
    if count is None:
        model.refuse(TOKENS, tokens)
    if count > MAX_TOKENS:
        raise CheckpointError("gguf_too_many", file=model.file.name, key=TOKENS, count=count, limit=MAX_TOKENS)
    if count != embedding.shape[0]:
        raise CheckpointError("gguf_vocabulary", file=model.file.name, tokens=count, rows=embedding.shape[0])
    for key in OF_TOKENS:
        if key in model.metadata and _length(model.metadata[key]) != count:
            model.refuse(key, f"{_length(model.metadata[key])} / {count}")
    for key, value in model.metadata.items():
        if re.fullmatch(r"tokenizer\.ggml\.\w+_token_id", key) and (type(value) is not int or not 0 <= value < count):
            model.refuse(key, value)


def _length(value: Value) -> int | None:
    """Return how many entries an array has, None for another value."""
    if isinstance(value, Array):
        return value.length
    return len(value) if isinstance(value, list) else None


def _wrong(header: GgufHeader, key: str, value: object) -> CheckpointError:
    return CheckpointError("gguf_bad_value", file=header.path.name, key=key, value=shown(str(value)))


def _other(parts: tuple[GgufHeader, ...], part: GgufHeader, reason: str) -> CheckpointError:
    first = next(each for each in parts if each is not part)
    return CheckpointError("gguf_part_other", file=part.path.name, other=first.path.name, reason=reason)
