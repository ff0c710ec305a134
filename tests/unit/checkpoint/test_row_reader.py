"""A weight in pieces of rows: together the whole, each small, and of even length, which packing asks for."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.checkpoint import row_reader
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Kind, Layer


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 300), (1000, 1000), (5, 10_000)])
def test_the_pieces_are_the_whole_in_turn(rows: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 1000)
    pieces = row_reader.chunks(Layer("a", ("a",), Kind.LINEAR, (rows, width)))
    assert [row for start, stop in pieces for row in range(start, stop)] == list(range(rows))
    assert all((stop - start) % 2 == 0 for start, stop in pieces[:-1])
    assert all((stop - start) * width <= max(1000, 2 * width) for start, stop in pieces)


def test_experts_are_rows_like_any_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 16)
    assert row_reader.chunks(Layer("a", ("a",), Kind.LINEAR, (2, 3, 8))) == [(0, 2), (2, 4), (4, 6)]


def test_what_is_read_is_the_weight(tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_reader, "CHUNK_WEIGHTS", 300)
    checkpoint = of_folder(tiny_model("llama"))
    for layer in checkpoint.layers:
        if layer.is_weight:
            assert torch.equal(torch.cat(list(row_reader.rows_of(checkpoint, layer))), checkpoint.read(layer))
