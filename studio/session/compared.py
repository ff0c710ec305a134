"""Two models by name -> how far the weights of one are from the other's, and how each of them came. Brings torch.
Knows no terminal and no page."""

from collections.abc import Generator

import torch
from torch import Tensor

from studio.base.progress import Progress
from studio.base.typed_paths import typed_path
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer
from studio.checkpoint.open_model import fetch, open_model
from studio.checkpoint.recipe import check_files, is_compressed
from studio.checkpoint.stored_as import StoredAs
from studio.evaluation.weight_errors import WeightError, weight_errors
from studio.export.compressed_model import CompressedModel, opened
from studio.quantization.packing import PackedTensor

Compared = tuple[list[StoredAs], dict[str, WeightError]]
"""How each tensor of the model came, under its parameter's name, and the weight errors of those that are compared."""


def compared(name: str, against: str) -> Generator[Progress, None, Compared]:
    """Compare a model, or a folder that the studio compressed, with the original ``against``.

    Raises ModelError, HubError, ResourceError, or CheckpointError for files that are damaged or of two models.
    """
    folder = typed_path(name)
    if is_compressed(folder):
        model = opened(folder)
        check_files(model.recipe, folder)
        original = yield from _fetched(against)
        errors = yield from weight_errors(model.checkpoint.layers, _Rows(model), original)
        tensors = [
            StoredAs(a.layer.name, "F16/BF16" if a.scheme is None else str(a.scheme), a.layer.shape, a.nbytes)
            for a in model.plan.assignments
        ]
        return tensors, errors
    checkpoint = yield from _fetched(name)
    original = yield from _fetched(against)
    errors = yield from weight_errors(checkpoint.layers, checkpoint.read, original)
    return [checkpoint.stored_as(layer) for layer in checkpoint.layers], errors


def _fetched(name: str) -> Generator[Progress, None, Checkpoint]:
    return (yield from fetch((yield from open_model(name, paths=True))))


class _Rows:
    """The weights of a compressed folder, one at a time in the model's order, a few rows of it at each call."""

    def __init__(self, model: CompressedModel) -> None:
        self._tensors = model.tensors()
        self._now: tuple[str, PackedTensor | Tensor] = ("", torch.empty(0, dtype=torch.float32))

    def __call__(self, layer: Layer, start: int, stop: int) -> Tensor:
        while self._now[0] != layer.name:
            assignment, tensor = next(self._tensors)
            self._now = (assignment.layer.name, tensor)
        held = self._now[1]
        if isinstance(held, PackedTensor):
            return held.dequantize(start, stop)
        rows = held.transpose(-1, -2) if layer.transposed else held
        return rows.reshape(layer.matrix)[start:stop]
