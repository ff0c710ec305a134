"""A plan carried out: weights read in pieces, rounded, packed and written. Knows nothing of chats or exports.

The next pieces are read while one is rounded and those before it are written; no more than these few are in memory.
What is finished is noted in a journal beside the file, so that work that was interrupted goes on where it stopped.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from studio import __version__
from studio.base.errors import CheckpointError
from studio.base.prefetch import Behind, ahead
from studio.checkpoint.architecture import Kind, Layer
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tensor_writer import DTYPE_NAMES, Slot, TensorFile
from studio.compression.sequential import Changed, guided
from studio.planning.plan import Assignment, Plan
from studio.planning.survey import rows_of
from studio.quantization.quantize import quantize, relative
from studio.quantization.rounding import shared_of
from studio.quantization.scheme import Method, Scheme
from studio.runtime.block_model import Step

SYNC_BYTES = 256 << 20
"""Written between two entries of the journal, which waits for the disk."""
READ_AHEAD = 3
"""Pieces, the ends of tensors counted."""
WRITE_BEHIND = 3
"""Pieces."""

Place = tuple[str, Tensor, int]
"""A slot's name, numbers for it, and the place of the first of them."""
Write = Callable[[list[Place]], None]


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
    unreached: tuple[str, ...] = ()
    """Weights that the calibration gave nothing, in a method that wanted it: they were rounded without."""
    stacks: tuple[str, ...] = ()
    """Experts held in one tensor, which no method can calibrate: each is given tokens of its own."""

    @property
    def mean_error(self) -> float:
        """The mean of ``relative_error``, 0 where every weight was kept."""
        return sum(self.relative_error.values()) / max(1, len(self.relative_error))


def compress(
    checkpoint: Checkpoint, plan: Plan, file: Path, tokens: Tensor | None = None
) -> Generator[Progress, None, Compressed]:
    """Write ``plan`` to ``file``, yielding at least after every 4 million weights.

    ``tokens`` int64 [W, T] calibrate a method that needs inputs; without them it rounds as its free part does.
    Closing the generator stops the work and keeps what is done: called again with the same file, model and plan, it
    goes on from there, but for a calibrated method, which begins anew (a block is rounded on what those before it
    say). On an error the file is removed. Raises CheckpointError for a damaged source or weights that are
    not numbers, ResourceError for a full disk.
    """
    began = time.perf_counter()
    journal = Journal(file, job_digest(checkpoint, plan))
    schemes = _calibrated(plan) if tokens is not None else {}
    if schemes:
        journal.forget()
    metadata = {"format": "pt", "quantization-studio": __version__}
    errors = journal.read(plan, TensorFile(file, slots(checkpoint, plan), metadata).size)
    resumed = len(errors)
    total = sum(a.layer.numel for a in plan.assignments)
    try:
        kept = [slot for a in plan.assignments if a.layer.name in errors for slot, _ in _slots_of(checkpoint, a)]
        with (
            TensorFile(file, slots(checkpoint, plan), metadata, kept) as out,
            journal.kept(out, errors),
            Behind(WRITE_BEHIND) as writer,
        ):
            write = partial(writer.do, partial(_put, out))
            done = sum(a.layer.numel for a in plan.assignments if a.layer.name in errors)
            if schemes and tokens is not None:
                for weights, name in _guide(checkpoint, schemes, plan.choice.method, tokens, write, errors):
                    done += weights
                    yield Progress(name, done, total)
            missed = [a.layer for a in plan.assignments if a.layer.name in schemes and a.layer.name not in errors]
            unreached, stacks = (tuple(x.name for x in missed if (len(x.shape) > 2) is many) for many in (False, True))
            rest = [a for a in plan.assignments if a.layer.name not in errors]
            with ahead(_pieces(checkpoint, rest), READ_AHEAD) as pieces:
                for a in rest:
                    passes = 2 if a.scheme is not None and a.scheme.mode.needs_whole else 1
                    read = iter(pieces.__next__, None)
                    for seen in _write(checkpoint, a, plan.choice.method, read, write, errors):
                        yield Progress(a.layer.name, done + seen // passes, total)
                    writer.do(journal.note, a.layer.name, errors[a.layer.name])
                    done += a.layer.numel
                    yield Progress(a.layer.name, done, total)
    except BaseException as error:
        if schemes or isinstance(error, Exception):  # what a calibration rounded is of no use to the next
            file.unlink(missing_ok=True)
            journal.forget()
        raise
    journal.forget()
    found = {a.layer.name: errors[a.layer.name] or 0.0 for a in plan.assignments if a.scheme is not None}
    return Compressed(plan, file, found, time.perf_counter() - began, resumed, unreached, stacks)


class Journal:
    """The tensors of an unfinished file that are safe on the disk, each with its error (None where it was kept)."""

    def __init__(self, file: Path, digest: str) -> None:
        self.path = file.with_name(f"{file.name}.journal")
        self._file = file
        self._head = json.dumps({"digest": digest})
        self._waiting: list[str] = []
        self._syncing: Future[None] | None = None

    def read(self, plan: Plan, size: int) -> dict[str, float | None]:
        """Return what an interrupted run finished of a file of ``size`` bytes: nothing when there was none, or it had
        another plan; the journal is then gone, lest it speak of the file that is begun."""
        schemes = {a.layer.name: a.scheme for a in plan.assignments}
        try:
            head, *lines = self.path.read_text(encoding="utf-8").splitlines()
            found = dict(_whole(lines))
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
        with ThreadPoolExecutor(1) as self._thread:
            try:
                yield
            finally:
                self.flush()

    def note(self, name: str, error: float | None) -> None:
        """Note that a tensor is whole; it counts once the disk has it, which a thread waits for."""
        self._waiting.append(json.dumps([name, error]))
        if self._out.written - self._seen >= SYNC_BYTES:
            self._settle()
            self._syncing = self._thread.submit(self._flush, self._taken())

    def flush(self) -> None:
        """Wait for the disk, then write what waits."""
        self._settle()
        self._flush(self._taken())

    def _taken(self) -> list[str]:
        """Return what waits: tensors that are written as far as the system, before anything else is."""
        noted, self._waiting, self._seen = self._waiting, [], self._out.written
        return noted

    def _flush(self, noted: list[str]) -> None:
        self._out.sync()
        if noted:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write("\n".join(noted) + "\n")

    def _settle(self) -> None:
        """Wait for the flush that is under way. Raises what it did."""
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()

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


def _whole(lines: Iterable[str]) -> Iterator[tuple[str, float | None]]:
    """Yield the entries of a journal up to one that is cut short: the power may go while it is written."""
    for line in lines:
        try:
            name, error = json.loads(line)
        except ValueError:
            return
        yield name, error


def job_digest(checkpoint: Checkpoint, plan: Plan) -> str:
    """Return a name for this plan of this model: the same work has the same one, on any day."""
    schemes = [(a.layer.name, None if a.scheme is None else str(a.scheme)) for a in plan.assignments]
    facts = (__version__, checkpoint.name, checkpoint.revision, schemes, str(plan.choice.method))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def slots(checkpoint: Checkpoint, plan: Plan) -> dict[str, Slot]:
    """Return every tensor of the packed file; their bytes add up to ``plan.compressed_bytes``."""
    return {name: slot for a in plan.assignments for name, slot in _slots_of(checkpoint, a)}


def _slots_of(checkpoint: Checkpoint, a: Assignment) -> list[tuple[str, Slot]]:
    if a.scheme is None:
        return [(a.layer.name, Slot(DTYPE_NAMES[checkpoint.saved_dtype(a.layer)], a.layer.stored_shape))]
    parts = a.scheme.parts(a.layer.matrix)
    return [(f"{a.layer.name}.{part.name}", Slot(part.dtype, part.shape)) for part in parts]


def _pieces(checkpoint: Checkpoint, assignments: Sequence[Assignment]) -> Iterator[Tensor | None]:
    """Yield each tensor in pieces, rows [n, K] or, of one that is kept, flat ones; None after the last of each."""
    for a in assignments:
        yield from checkpoint.stored(a.layer) if a.scheme is None else rows_of(checkpoint, a.layer)
        yield None


def _calibrated(plan: Plan) -> dict[str, Scheme]:
    """Return the weights that the plan's method rounds by what they are given, with their schemes; often none."""
    if not plan.choice.method.needs_inputs:
        return {}
    return {
        a.layer.name: a.scheme
        for a in plan.assignments
        if a.scheme is not None and a.scheme.mode.bits < 8 and a.layer.kind is Kind.LINEAR
    }


def _guide(
    checkpoint: Checkpoint,
    schemes: dict[str, Scheme],
    method: Method,
    tokens: Tensor,
    write: Write,
    errors: dict[str, float | None],
) -> Iterator[tuple[int, str]]:
    """Write the weights that a calibration reaches, yielding what is done of each and its name, or 0 and a block's."""
    with closing(guided(checkpoint, schemes, method, tokens)) as events:
        for event in events:
            if isinstance(event, Step):
                yield 0, event.part
                continue
            name = event.layer.name
            if isinstance(event, Changed):
                write([(name, event.tensor, 0)])
                errors[name] = None
                yield event.layer.numel, name
                continue
            write([(f"{name}.{part}", array, 0) for part, array in event.packed.arrays().items()])
            errors[name] = relative(event.difference, event.square)
            yield event.layer.numel, name


def _write(
    checkpoint: Checkpoint,
    a: Assignment,
    method: Method,
    pieces: Iterable[Tensor],
    write: Write,
    errors: dict[str, float | None],
) -> Generator[int, None, None]:
    """Write one tensor, yielding the weights seen, twice where it is read twice; put its error into ``errors``."""
    if a.scheme is None:
        yield from _copy(checkpoint, a.layer, pieces, write)
        errors[a.layer.name] = None
        return
    layer, scheme = a.layer, a.scheme
    square = difference = 0.0
    written = dict.fromkeys((part.name for part in scheme.parts(layer.matrix)), 0)
    shared = yield from shared_of(rows_of(checkpoint, layer), [scheme])
    seen = layer.numel if shared else 0
    how = method if scheme.mode.bits < 8 else Method.NEAREST
    for weight in pieces:
        found = quantize(weight, scheme, shared.get(scheme), how)
        places = []
        for name, array in found.packed.arrays().items():
            if array is not found.packed.shared or not written[name]:  # what the tensor shares is written once
                places.append((f"{layer.name}.{name}", array, written[name]))
                written[name] += array.numel()
        write(places)
        square += found.square
        difference += found.difference
        if not math.isfinite(square + difference):
            raise CheckpointError("not_finite", tensor=layer.source)
        seen += weight.numel()
        yield seen
    errors[layer.name] = relative(difference, square)


def _put(out: TensorFile, places: list[Place]) -> None:
    for name, array, start in places:
        out.write(name, array, start)


def _copy(checkpoint: Checkpoint, layer: Layer, pieces: Iterable[Tensor], write: Write) -> Iterator[int]:
    """Write a tensor that is kept, as the checkpoint lays it out, yielding the weights done."""
    written = 0
    for piece in pieces:
        tensor = piece.to(checkpoint.saved_dtype(layer))
        if not bool(tensor.isfinite().all()):
            raise CheckpointError("not_finite", tensor=layer.source)
        write([(layer.name, tensor, written)])
        written += tensor.numel()
        yield written
