"""A plan carried out: weights read in pieces, rounded, packed and written. Knows nothing of chats or exports."""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from studio import __version__
from studio.architecture import Layer
from studio.checkpoint import Checkpoint
from studio.errors import CheckpointError
from studio.packing import pack
from studio.plan import Assignment, Plan
from studio.rounding import round_to_nearest
from studio.scheme import Scheme
from studio.survey import chunks
from studio.tensor_file import DTYPE_NAMES, Slot, TensorFile


@dataclass(frozen=True)
class Progress:
    """Where a compression stands."""

    layer: str
    done: int
    total: int
    """Weights."""


@dataclass(frozen=True)
class Compressed:
    """A plan carried out."""

    plan: Plan
    file: Path
    """The safetensors file with the packed weights."""
    relative_error: dict[str, float]
    """‖W - Ŵ‖ / ‖W‖ of every compressed weight, by tensor name; Ŵ is what the stored numbers stand for."""
    seconds: float

    @property
    def mean_error(self) -> float:
        """The mean of ``relative_error``, 0 where every weight was kept."""
        return sum(self.relative_error.values()) / max(1, len(self.relative_error))


def compress(checkpoint: Checkpoint, plan: Plan, file: Path) -> Generator[Progress, None, Compressed]:
    """Write ``plan`` to ``file``, yielding at least after every 4 million weights.

    Closing the generator stops the work; the unfinished file is then removed, as it is on any error. Raises
    CheckpointError for a damaged source or weights that are not numbers, ResourceError for a full disk.
    """
    began = time.perf_counter()
    errors: dict[str, float] = {}
    total = sum(a.layer.numel for a in plan.assignments)
    done = 0
    try:
        with TensorFile(file, slots(checkpoint, plan), {"format": "pt", "quantization-studio": __version__}) as out:
            for a in plan.assignments:
                if a.scheme is None:
                    _copy(checkpoint, a.layer, out)
                else:
                    steps = _compress_one(checkpoint, a.layer, a.scheme, out, errors)
                    for weights in steps:
                        yield Progress(a.layer.name, done + weights, total)
                done += a.layer.numel
                yield Progress(a.layer.name, done, total)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return Compressed(plan, file, errors, time.perf_counter() - began)


def slots(checkpoint: Checkpoint, plan: Plan) -> dict[str, Slot]:
    """Return every tensor of the packed file; their bytes add up to ``plan.compressed_bytes``."""
    return {name: slot for a in plan.assignments for name, slot in _slots_of(checkpoint, a)}


def _slots_of(checkpoint: Checkpoint, a: Assignment) -> list[tuple[str, Slot]]:
    if a.scheme is None:
        shape = tuple(reversed(a.layer.shape)) if a.layer.transposed else a.layer.shape
        return [(a.layer.name, Slot(DTYPE_NAMES[checkpoint.saved_dtype(a.layer)], shape))]
    parts = a.scheme.parts(a.layer.matrix)
    return [(f"{a.layer.name}.{part.name}", Slot(part.dtype, part.shape)) for part in parts]


def _copy(checkpoint: Checkpoint, layer: Layer, out: TensorFile) -> None:
    """Write a tensor that is kept, as the checkpoint lays it out."""
    tensor = checkpoint.read(layer).to(checkpoint.saved_dtype(layer))
    if not bool(tensor.isfinite().all()):
        raise CheckpointError("not_finite", tensor=layer.source)
    out.write(layer.name, tensor.T if layer.transposed else tensor)


def _compress_one(
    checkpoint: Checkpoint, layer: Layer, scheme: Scheme, out: TensorFile, errors: dict[str, float]
) -> Generator[int, None, None]:
    """Write one weight in chunks of rows, yielding the weights done; put its error into ``errors``."""
    width = layer.matrix[1]
    squares = difference = 0.0
    written = dict.fromkeys((part.name for part in scheme.parts(layer.matrix)), 0)
    for start, stop in chunks(layer):
        weight = checkpoint.read(layer, start, stop).float()
        packed = pack(round_to_nearest(weight, scheme), scheme)
        for name, array in packed.arrays().items():
            out.write(f"{layer.name}.{name}", array, written[name])
            written[name] += array.numel()
        squares += float(weight.square().sum())
        difference += float((packed.dequantize() - weight).square_().sum())
        if not math.isfinite(squares + difference):
            raise CheckpointError("not_finite", tensor=layer.source)
        yield stop * width
    errors[layer.name] = math.sqrt(difference / squares) if squares else 0.0
