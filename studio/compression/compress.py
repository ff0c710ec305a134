"""A plan carried out: weights read in pieces, rounded, packed and written. Knows nothing of chats or exports.

The next pieces are read while one is rounded and those before it are written; no more than these few are in memory.
What is finished is noted in a journal beside the file, so that work that was interrupted goes on where it stopped.
"""

import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from studio import __version__
from studio.base.errors import CheckpointError
from studio.base.prefetch import BackgroundWriter, ahead
from studio.base.progress import Progress
from studio.base.torch_threads import torch_threads
from studio.checkpoint.carried import carried
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.row_reader import rows_of
from studio.checkpoint.tensor_writer import DTYPE_NAMES, Slot, TensorFile
from studio.compression.distillation import distilled
from studio.compression.journal import Journal
from studio.compression.sequential import LayerReplaced, round_sequentially
from studio.planning.plan import Assignment, Plan
from studio.quantization.methods import Method
from studio.quantization.quantize import quantize, relative
from studio.quantization.rounding import tensor_params_of
from studio.quantization.scheme import Scheme

STAGE = "compress"
"""Of progress here: the detail is the tensor; weights are counted."""
READ_AHEAD = 3
"""Pieces, the ends of tensors counted."""
WRITE_BEHIND = 3
"""Pieces."""

Place = tuple[str, Tensor, int]
"""A slot's name, numbers for it, and the place of the first of them."""
Write = Callable[[list[Place]], None]


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
    left_out: Path | None = None
    """Beside ``file``: what the model's files hold that is no part of it, as it came; None where there is nothing."""
    threads: int = 1
    """On how many threads sums were made: a calibrated method rounds by them, down to the last bit."""

    @property
    def mean_error(self) -> float:
        """The mean of ``relative_error``, 0 where every weight was kept."""
        return sum(self.relative_error.values()) / max(1, len(self.relative_error))


def compress(
    checkpoint: Checkpoint, plan: Plan, file: Path, tokens: Tensor | None = None, threads: int | None = None
) -> Generator[Progress, None, Compressed]:
    """Write ``plan`` to ``file``, yielding at least after every 4 million weights.

    ``tokens`` int64 [W, T] calibrate a method that needs inputs; without them it rounds as its free part does.
    ``threads``: on how many it computes, as many as torch has by default.
    Closing the generator stops the work and keeps what is done: called again with the same file, model and plan, it
    goes on from there, but for a calibrated method, which begins anew (a block is rounded on what those before it
    say). On an error the file is removed. Raises CheckpointError for a damaged source or weights that are
    not numbers, ResourceError for a full disk.
    """
    with torch_threads(threads) as count:
        return (yield from _compress(checkpoint, plan, file, tokens, count))


def _compress(
    checkpoint: Checkpoint, plan: Plan, file: Path, tokens: Tensor | None, threads: int
) -> Generator[Progress, None, Compressed]:
    began = time.perf_counter()
    journal = Journal(file, job_digest(checkpoint, plan))
    schemes = _calibrated(plan) if tokens is not None else {}
    if schemes:
        journal.forget()
    metadata = {"format": "pt", "quantization-studio": __version__}
    errors = journal.read(plan, TensorFile(file, slots(checkpoint, plan), metadata).size)
    resumed = len(errors)
    total = sum(a.layer.numel for a in plan.assignments)
    left_out: Path | None = None
    try:
        # First, so that a disk that is too full for it spoils no finished work.
        left_out = yield from carried(checkpoint, file.with_name(f"{file.name}.left-out"))
        kept = [slot for a in plan.assignments if a.layer.name in errors for slot, _ in _slots_of(checkpoint, a)]
        with (
            TensorFile(file, slots(checkpoint, plan), metadata, kept) as out,
            journal.kept(out, errors),
            BackgroundWriter(WRITE_BEHIND) as writer,
        ):
            write = partial(writer.do, partial(_put, out))
            done = sum(a.layer.numel for a in plan.assignments if a.layer.name in errors)
            if schemes and tokens is not None:
                guided = sum(a.layer.numel for a in plan.assignments if a.layer.name in schemes)
                for weights, name, share in _guide(checkpoint, plan, schemes, tokens, write, errors):
                    done += weights
                    yield Progress(STAGE, max(done, int(share * guided)), total, name)
            missed = [a.layer for a in plan.assignments if a.layer.name in schemes and a.layer.name not in errors]
            unreached, stacks = (tuple(x.name for x in missed if (len(x.shape) > 2) is many) for many in (False, True))
            rest = [a for a in plan.assignments if a.layer.name not in errors]
            with ahead(_pieces(checkpoint, rest), READ_AHEAD) as pieces:
                for a in rest:
                    passes = 2 if a.scheme is not None and a.scheme.mode.needs_whole else 1
                    read = iter(pieces.__next__, None)
                    for seen in _write(checkpoint, a, plan.choice.method, read, write, errors):
                        yield Progress(STAGE, done + seen // passes, total, a.layer.name)
                    writer.do(journal.note, a.layer.name, errors[a.layer.name])
                    done += a.layer.numel
                    yield Progress(STAGE, done, total, a.layer.name)
    except BaseException as error:
        if left_out is not None:  # it is copied anew
            left_out.unlink(missing_ok=True)
        if schemes or isinstance(error, Exception):  # what a calibration rounded is of no use to the next
            file.unlink(missing_ok=True)
            journal.forget()
        raise
    journal.forget()
    relative_error = {a.layer.name: errors[a.layer.name] or 0.0 for a in plan.assignments if a.scheme is not None}
    return Compressed(
        plan, file, relative_error, time.perf_counter() - began, resumed, unreached, stacks, left_out, threads
    )


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
    plan: Plan,
    schemes: dict[str, Scheme],
    tokens: Tensor,
    write: Write,
    errors: dict[str, float | None],
) -> Iterator[tuple[int, str, float]]:
    """Write the weights that a calibration reaches, yielding what is done of each and its name, or 0 and a block's; and
    which share of the work is done where a method gives nothing before its end, else 0."""
    method, share = plan.choice.method, 0.0
    planned = {a.layer.name: a.scheme for a in plan.assignments if a.scheme is not None}
    rounded = partial(distilled, planned=planned) if method.rounding.is_distilled else round_sequentially
    with closing(rounded(checkpoint, schemes, method, tokens)) as events:
        for event in events:
            if isinstance(event, Progress):
                share = event.fraction or 0.0 if method.rounding.is_distilled else 0.0
                yield 0, event.detail, share
                continue
            name = event.layer.name
            if isinstance(event, LayerReplaced):
                write([(name, event.tensor, 0)])
                errors[name] = None
                yield event.layer.numel, name, share
                continue
            write([(f"{name}.{part}", array, 0) for part, array in event.packed.arrays().items()])
            errors[name] = relative(event.squared_error, event.squared_norm)
            yield event.layer.numel, name, share


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
    tensor_params = yield from tensor_params_of(rows_of(checkpoint, layer), [scheme])
    seen = layer.numel if tensor_params else 0
    how = method if scheme.mode.bits < 8 else Method.NEAREST
    for weight in pieces:
        rounded = quantize(weight, scheme, tensor_params.get(scheme), how)
        places = []
        for name, array in rounded.packed.arrays().items():
            if array is not rounded.packed.tensor_params or not written[name]:  # what the tensor shares is written once
                places.append((f"{layer.name}.{name}", array, written[name]))
                written[name] += array.numel()
        write(places)
        square += rounded.square
        difference += rounded.difference
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
