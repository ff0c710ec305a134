"""Checkpoints of a few weights that a test makes up, and jobs run to their end."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from studio.checkpoint.byte_ranges import ByteRanges, FolderRanges
from studio.checkpoint.checkpoint import Checkpoint, fingerprint
from studio.checkpoint.headers import read_header
from studio.checkpoint.layers import Kind, Layer
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode, Scheme


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return weights of bf16 that are as large as those of models."""
    return (0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


def widened(weight: Tensor, scheme: Scheme) -> Tensor:
    """Return a weight [N, K] as wide as whole blocks of a scheme are: its columns again, or itself where it fits."""
    if scheme.mode.stored_as.block is None or scheme.fits(weight.shape[1]):
        return weight
    block, _ = scheme.mode.stored_as.block
    width = -(-weight.shape[1] // block) * block
    return weight.repeat(1, -(-width // weight.shape[1]))[:, :width].contiguous()


def a_few_weights() -> dict[str, Tensor]:
    """Return an embedding, two linear weights, a stack of three experts, a norm and a head."""
    return {
        "embed.weight": random(50, 64, seed=1),
        "b.0.up.weight": random(96, 64, seed=2),
        "b.0.down.weight": random(64, 128, seed=3),
        "b.0.experts": random(3, 20, 64, seed=4),
        "b.0.norm.weight": random(64, seed=5),
        "head.weight": random(50, 64, seed=6),
    }


def kind_of(name: str) -> Kind:
    for word, kind in {"embed": Kind.EMBEDDING, "head": Kind.HEAD, "norm": Kind.OTHER}.items():
        if word in name:
            return kind
    return Kind.LINEAR


def saved(
    folder: Path, weights: Mapping[str, Tensor], revision: str | None = None, transposed: bool = False
) -> Checkpoint:
    """Return a checkpoint with these weights, whose names say their kind; ``transposed`` ones are [K, N] there."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    save_file(dict(weights), file)
    layers = tuple(
        Layer(name, (name,), kind_of(name), tuple((weight.mT if transposed else weight).shape), transposed)
        for name, weight in weights.items()
    )
    size = file.stat().st_size
    return Checkpoint(
        str(folder), revision or fingerprint([file]), "none", "BF16", size, read_header(file), layers, folder
    )


def choice_of(mode: Mode, ratio: float = 1.0) -> Choice:
    """Return a choice of ``mode`` whose groups fit a width of 64."""
    return Choice(mode, 32, ratio, mode.default_backup)


def plan_of(checkpoint: Checkpoint, mode: Mode) -> Any:
    """Return a plan that gives the linear weights ``mode`` and the others its backup."""
    return make_plan(checkpoint.layers, choice_of(mode))


class CountedRanges:
    """A folder's files as another machine gives them: a few bytes at a time, to several threads, and counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[int] = []
        """The length of each range."""

    def read(self, file: str, start: int, length: int) -> Tensor:
        self.asked.append(length)
        with FolderRanges(self._folder) as ranges:
            return ranges.read(file, start, length)


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int | None]]:
    """Return a list that will hold every read of a checkpoint: layer, first row, last row."""
    reads: list[tuple[str, int, int | None]] = []
    read: Callable[..., Tensor] = Checkpoint.read

    def counted(
        self: Checkpoint, layer: Layer, start: int = 0, stop: int | None = None, ranges: ByteRanges | None = None
    ) -> Tensor:
        reads.append((layer.name, start, stop))
        return read(self, layer, start, stop, ranges)

    monkeypatch.setattr(Checkpoint, "read", counted)
    return reads
