"""A plan carried out: weights read in pieces, rounded, packed and written. Knows nothing of chats or exports.

A piece is read while the one before it is rounded, and no more than these two are in memory. What is finished is
noted in a journal beside the file, so that work that was interrupted goes on where it stopped.
"""

import hashlib
import json
import math
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from studio import __version__
from studio.architecture import Layer
from studio.checkpoint import Checkpoint
from studio.errors import CheckpointError
from studio.plan import Assignment, Plan
from studio.quantize import quantize, relative
from studio.rounding import shared_of
from studio.scheme import Scheme
from studio.survey import chunks
from studio.tensor_file import DTYPE_NAMES, Slot, TensorFile

SYNC_BYTES = 256 << 20
"""Written between two entries of the journal, which waits for the disk."""


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
    resumed: int = 0
    """Tensors that an interrupted run before this one had finished."""

    @property
    def mean_error(self) -> float:
        """The mean of ``relative_error``, 0 where every weight was kept."""
        return sum(self.relative_error.values()) / max(1, len(self.relative_error))


def compress(checkpoint: Checkpoint, plan: Plan, file: Path) -> Generator[Progress, None, Compressed]:
    """Write ``plan`` to ``file``, yielding at least after every 4 million weights.

    Closing the generator stops the work and keeps what is done: called again with the same file, model and plan, it
    goes on from there. On an error the file is removed. Raises CheckpointError for a damaged source or weights that are
    not numbers, ResourceError for a full disk.
    """
    began = time.perf_counter()
    journal = Journal(file, job_digest(checkpoint, plan))
    metadata = {"format": "pt", "quantization-studio": __version__}
    errors = journal.read(plan, TensorFile(file, slots(checkpoint, plan), metadata).size)
    resumed = len(errors)
    total = sum(a.layer.numel for a in plan.assignments)
    done = 0
    try:
        kept = [slot for a in plan.assignments if a.layer.name in errors for slot, _ in _slots_of(checkpoint, a)]
        with TensorFile(file, slots(checkpoint, plan), metadata, kept) as out, journal.kept(out, errors):
            for a in plan.assignments:
                if a.layer.name not in errors:
                    for weights in _write(checkpoint, a, out, errors):
                        yield Progress(a.layer.name, done + weights, total)
                    journal.note(a.layer.name, errors[a.layer.name])
                done += a.layer.numel
                yield Progress(a.layer.name, done, total)
    except Exception:
        file.unlink(missing_ok=True)
        journal.forget()
        raise
    journal.forget()
    found = {a.layer.name: errors[a.layer.name] or 0.0 for a in plan.assignments if a.scheme is not None}
    return Compressed(plan, file, found, time.perf_counter() - began, resumed)


class Journal:
    """The tensors of an unfinished file that are safe on the disk, each with its error (None where it was kept)."""

    def __init__(self, file: Path, digest: str) -> None:
        self.path = file.with_name(f"{file.name}.journal")
        self._file = file
        self._head = json.dumps({"digest": digest})
        self._waiting: list[str] = []

    def read(self, plan: Plan, size: int) -> dict[str, float | None]:
        """Return what an interrupted run finished of a file of ``size`` bytes: nothing when there was none, or it had
        another plan; the journal is then gone, lest it speak of the file that is begun."""
        schemes = {a.layer.name: a.scheme for a in plan.assignments}
        try:
            head, *lines = self.path.read_text(encoding="utf-8").splitlines()
            found = {name: error for line in lines for name, error in [json.loads(line)]}
            if head == self._head and self._file.stat().st_size == size and _is_sound(found, schemes):
                return found
        except (OSError, ValueError, TypeError, KeyError, RecursionError):  # no journal, or one cut short
            pass
        self.forget()
        return {}

    @contextmanager
    def kept(self, out: TensorFile, known: dict[str, float | None]) -> Iterator[None]:
        """Keep the journal of ``out``, of which ``known`` is done, and bring it up to date at whatever end."""
        self._out, self._seen = out, out.written
        lines = [self._head, *(json.dumps([name, error]) for name, error in known.items())]
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            yield
        finally:
            self.flush()

    def note(self, name: str, error: float | None) -> None:
        """Note that a tensor is whole; it counts once the disk has it."""
        self._waiting.append(json.dumps([name, error]))
        if self._out.written - self._seen >= SYNC_BYTES:
            self.flush()

    def flush(self) -> None:
        """Wait for the disk, then write what waits."""
        self._out.sync()
        if self._waiting:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write("\n".join(self._waiting) + "\n")
            self._waiting, self._seen = [], self._out.written

    def forget(self) -> None:
        """Remove the journal."""
        self.path.unlink(missing_ok=True)


def _is_sound(found: Mapping[str, object], schemes: Mapping[str, Scheme | None]) -> bool:
    """Return whether a journal speaks of the plan's tensors: with an error those that are compressed, without it those
    that are kept. Raises KeyError for any other."""
    return all(
        error is None if schemes[name] is None else type(error) is float and 0 <= error < math.inf
        for name, error in found.items()
    )


def job_digest(checkpoint: Checkpoint, plan: Plan) -> str:
    """Return a name for this plan of this model: the same work has the same one, on any day."""
    schemes = [(a.layer.name, None if a.scheme is None else str(a.scheme)) for a in plan.assignments]
    facts = (__version__, checkpoint.name, checkpoint.revision, schemes)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def slots(checkpoint: Checkpoint, plan: Plan) -> dict[str, Slot]:
    """Return every tensor of the packed file; their bytes add up to ``plan.compressed_bytes``."""
    return {name: slot for a in plan.assignments for name, slot in _slots_of(checkpoint, a)}


def _slots_of(checkpoint: Checkpoint, a: Assignment) -> list[tuple[str, Slot]]:
    if a.scheme is None:
        return [(a.layer.name, Slot(DTYPE_NAMES[checkpoint.saved_dtype(a.layer)], a.layer.stored_shape))]
    parts = a.scheme.parts(a.layer.matrix)
    return [(f"{a.layer.name}.{part.name}", Slot(part.dtype, part.shape)) for part in parts]


def _write(checkpoint: Checkpoint, a: Assignment, out: TensorFile, errors: dict[str, float | None]) -> Iterator[int]:
    """Write one tensor, yielding the weights done; put its error into ``errors``."""
    if a.scheme is None:
        yield from _copy(checkpoint, a.layer, out)
        errors[a.layer.name] = None
        return
    layer, scheme = a.layer, a.scheme
    width = layer.matrix[1]
    square = difference = 0.0
    written = dict.fromkeys((part.name for part in scheme.parts(layer.matrix)), 0)
    shared = shared_of(lambda: (weight for _, weight in _pieces(checkpoint, layer)), scheme)
    for stop, weight in _pieces(checkpoint, layer):
        done = quantize(weight, scheme, shared)
        for name, array in done.packed.arrays().items():
            if array is not done.packed.shared or not written[name]:  # what the tensor shares is written once
                out.write(f"{layer.name}.{name}", array, written[name])
                written[name] += array.numel()
        square += done.square
        difference += done.difference
        if not math.isfinite(square + difference):
            raise CheckpointError("not_finite", tensor=layer.source)
        yield stop * width
    errors[layer.name] = relative(difference, square)


def _pieces(checkpoint: Checkpoint, layer: Layer) -> Iterator[tuple[int, Tensor]]:
    """Yield a weight's rows [n, K] in turn, each with the number of rows up to its end, reading one piece ahead."""
    ranges = chunks(layer)
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(checkpoint.read, layer, *ranges[0])] if ranges else []
        for index, (_, stop) in enumerate(ranges):
            piece = coming.pop().result()
            if index + 1 < len(ranges):
                coming.append(reader.submit(checkpoint.read, layer, *ranges[index + 1]))
            yield stop, piece


def _copy(checkpoint: Checkpoint, layer: Layer, out: TensorFile) -> Iterator[int]:
    """Write a tensor that is kept, as the checkpoint lays it out, yielding the weights done."""
    written = 0
    for piece in checkpoint.stored(layer):
        tensor = piece.to(checkpoint.saved_dtype(layer))
        if not bool(tensor.isfinite().all()):
            raise CheckpointError("not_finite", tensor=layer.source)
        out.write(layer.name, tensor, written)
        written += tensor.numel()
        yield written
