"""Whether a GGUF file is what its folder would be written as: every byte of a tensor, and every word about the model.

Knows no engine. What a file says of itself (its name, its license) may be anything.
"""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

from studio.base.errors import CheckpointError, ModelError
from studio.base.progress import Progress
from studio.base.units import format_bytes
from studio.checkpoint.gguf.model import GgufModel, read_gguf_model
from studio.export.compressed_model import CompressedModel
from studio.export.gguf.families import write_numbers
from studio.export.gguf.target import Layout, laid_out
from studio.export.gguf.vocabulary import Vocabulary, read_vocabulary

OF_TOKENS = "tokenizer."
"""What a tokenizer's keys begin with."""
PRE = "tokenizer.ggml.pre"


def compared(file: Path, model: CompressedModel) -> Generator[Progress, None, int]:
    """Yield bytes read and return how many tensors a file and a folder have, all the same.

    Raises CheckpointError, with the first difference in a sentence; for a file that is cut short or none, its reader's.
    """
    found = read_gguf_model(file)  # whatever else reads it does so after every length in it was checked
    layout = laid_out(model)
    _check_kind(found, layout, file)
    words = {key: field.contents() for key, field in gguf.GGUFReader(file).fields.items()}
    expected = _words(layout, _vocabulary(model, layout, words))
    for key, value in expected.items():
        if not _is_same(words.get(key), value):
            kind = "verify_tokenizer" if key.startswith(OF_TOKENS) else "verify_setting"
            raise CheckpointError(kind, file=file.name, key=key)
    return (yield from _compare_tensors(file, found, layout))


def _check_kind(found: GgufModel, layout: Layout, file: Path) -> None:
    """Raise CheckpointError for another model's file: by family, names, shapes and types."""
    if found.architecture != layout.family.name:
        raise CheckpointError(
            "verify_family", file=file.name, found=found.architecture[:60], expected=layout.family.name
        )
    for name in (*layout.slots, *found.tensors):
        slot, place = layout.slots.get(name), found.tensors.get(name)
        said = None if slot is None else (slot.kind.name, slot.shape)
        if place is None or said != (place[1].type, place[1].shape):
            raise CheckpointError("verify_layout", file=file.name, tensor=name[:120])


def _vocabulary(model: CompressedModel, layout: Layout, words: Mapping[str, Any]) -> Vocabulary:
    """Return the folder's vocabulary; where a way of splitting had to be named for it, the one that the file names."""
    try:
        return read_vocabulary(model.folder, layout.config)
    except ModelError as error:
        if error.key != "to_gguf_pre_tokenizer":
            raise
        return read_vocabulary(model.folder, layout.config, str(words.get(PRE)))


def _words(layout: Layout, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what a file says of a model's numbers and tokens."""
    writer = gguf.GGUFWriter(None, layout.family.name)
    write_numbers(writer, layout.family, layout.config)
    vocabulary.write(writer)
    return {key: each.value for key, each in writer.kv_data[0].items()}


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return bool(_numbers(found) == _numbers(expected))  # a file has 32 bits of it
    if isinstance(expected, list) and expected and isinstance(expected[0], float):
        return bool(torch.equal(_numbers(found or []), _numbers(expected)))
    return bool(found == expected)


def _compare_tensors(file: Path, found: GgufModel, layout: Layout) -> Generator[Progress, None, int]:
    total = sum(slot.nbytes for slot in layout.slots.values())
    done = 0
    places = {name: tensor.start for name, (_, tensor) in found.tensors.items()}
    for name, piece in layout.pieces():
        with found.tensors[name][0].path.open("rb") as source:
            source.seek(places[name])
            if source.read(piece.numel()) != piece.contiguous().numpy().tobytes():
                raise CheckpointError("verify_tensor", file=file.name, tensor=name[:120])
        places[name] += piece.numel()
        done += piece.numel()
        yield Progress("verify", done, total, f"{format_bytes(done)} / {format_bytes(total)}")
    return len(layout.slots)


def _numbers(given: Any) -> torch.Tensor:
    return torch.tensor(given, dtype=torch.float32)
