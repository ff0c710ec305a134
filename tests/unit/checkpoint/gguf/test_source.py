"""What one conversion may take: seconds by the size of the vocabulary, memory by that of the file."""

from pathlib import Path

import pytest

from studio.checkpoint.gguf import convert
from studio.checkpoint.gguf.model import TOKENS, read_gguf_model
from tests.gguf_models import TOKENIZER, Written


def test_a_tiny_vocabulary_gets_seconds_and_a_large_one_more(tmp_path: Path) -> None:
    """A small file that lies is ended soon, whatever its tokens make of the library."""
    from dataclasses import replace

    from studio.checkpoint.gguf.header import Array

    model = read_gguf_model(Written("llama", "llama", tmp_path).file())
    assert model.tokens == len(TOKENIZER)
    assert model.tokenizer_seconds == 5
    first = replace(model.parts[0], metadata=model.metadata | {TOKENS: Array(TOKENS, 262_144)})
    assert replace(model, parts=(first,)).tokenizer_seconds >= 60


def test_a_tiny_files_memory_ends_within_a_gigabyte(tmp_path: Path) -> None:
    import resource

    file = Written("llama", "llama", tmp_path).file()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        convert._limit_memory(read_gguf_model(file))
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        assert 900e6 < limit - convert._data_bytes() < 1.1e9
        with pytest.raises(MemoryError):
            bytearray(8_000_000_000)  # far more: what other tests held may be given back meanwhile
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
