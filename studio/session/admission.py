"""What jobs that read a model block by block take of memory, told before they begin. Knows no processes.

Shapes are known from headers, so it is asked before anything is downloaded. Each figure is what has to be held at once
by the arithmetic; what passes through in pieces is counted as ``PIECES``.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from studio.base.errors import ResourceError
from studio.base.units import format_bytes
from studio.calibration.activations import MAX_TOKENS
from studio.calibration.output_moments import MOMENTS_BYTES
from studio.chat.judge import largest_part
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.compression.distillation import ROUNDED_ON
from studio.compression.sequential import WINDOW
from studio.evaluation import evaluate
from studio.planning.choice import Choice
from studio.quantization.methods import BEST, Method
from studio.runtime.decoder import MOST_TOKENS
from studio.runtime.machine import fast_dtype

PROGRAM = ("python", "-m", "studio")
"""What the terminal is told first."""
PIECES = 128 << 20
"""Bytes of a process of our own, and of what is read and written in pieces."""
NUMBER = 4
"""Bytes of one in fp32, which text and statistics are held in."""
SQUARES = 3
"""Matrices of a layer's inputs that are held while it is rounded: their moments, the inverse's factor, and one more."""
STATES = 3
"""Times that the text's states are held: what a block is given, its output, and the widest between."""
SAVED = 12
"""Tensors as wide as the widest layer that a block keeps of a text for its gradients."""
TRAINED = 8
"""Bytes of a weight while its scale is trained: its value in fp32 and what the gradient asks for, and in 16 bits."""
LOGITS = 4
"""Tables of logits that a comparison holds: two models', and the logarithms of both."""


@dataclass(frozen=True)
class Need:
    """Bytes of a job, by what they are for."""

    block: int
    """The largest block, or the head where that is larger, as it runs."""
    states: int
    """What the text becomes in it."""
    statistics: int
    """What is known of the inputs of a block's layers, or the logits that are compared."""

    @property
    def nbytes(self) -> int:
        return PIECES + self.block + self.states + self.statistics


def calibration_need(checkpoint: Checkpoint, method: Method = BEST) -> Need:
    """Return what rounding by a method that reads a text takes."""
    widths: dict[object, set[int]] = {}
    for layer in _linear(checkpoint):
        widths.setdefault(layer.block, set()).add(layer.matrix[1])
    squares = max((sum(width * width for width in each) for each in widths.values()), default=0)
    count, is_distilled = method.rounding.windows, method.rounding.is_distilled
    states = STATES * (min(count, ROUNDED_ON) if is_distilled else count) * WINDOW * _widest(checkpoint) * NUMBER
    statistics = SQUARES * squares * NUMBER
    if method.rounding.is_two_sided:
        statistics += min(MOMENTS_BYTES, sum(NUMBER * layer.matrix[0] ** 2 for layer in _linear(checkpoint)))
    if is_distilled:  # a byte a code, and as many again for what is packed and Adam's numbers
        statistics += 2 * sum(layer.numel for layer in checkpoint.layers if layer.is_weight)
        states += count * WINDOW * _narrowest(checkpoint) * fast_dtype().itemsize
    of_weight = TRAINED if is_distilled else fast_dtype().itemsize
    return Need(of_weight * largest_part(checkpoint), states, statistics)


def drift_need(checkpoint: Checkpoint) -> Need:
    """Return what running the original takes while the copy is compared with it, beside the copy itself."""
    tables = [layer for layer in checkpoint.layers if layer.kind in (Kind.EMBEDDING, Kind.HEAD)]
    vocabulary = max((layer.matrix[0] for layer in tables), default=0)
    states = STATES * evaluate.WINDOW * _widest(checkpoint) * NUMBER
    return Need(NUMBER * largest_part(checkpoint), states, LOGITS * MOST_TOKENS * vocabulary * NUMBER)


def measuring_need(checkpoint: Checkpoint) -> Need:
    """Return what finding the damage, or the output error, of each layer takes: one window goes through the blocks, and
    back; what every block was given is held meanwhile."""
    tables = [layer.matrix for layer in checkpoint.layers if layer.kind in (Kind.EMBEDDING, Kind.HEAD)]
    vocabulary, width = (max((each[axis] for each in tables), default=0) for axis in (0, 1))
    blocks = len({layer.block for layer in checkpoint.layers})
    given = blocks * width * fast_dtype().itemsize
    states = MAX_TOKENS * (given + SAVED * _widest(checkpoint) * NUMBER)
    return Need(fast_dtype().itemsize * largest_part(checkpoint), states, LOGITS * MAX_TOKENS * vocabulary * NUMBER)


@contextmanager
def admitted(pool: Pool, need: Need | None, refusal: Callable[[Need, int], ResourceError]) -> Iterator[None]:
    """Keep the memory of a job for it, where it takes any. Raises ``refusal(need, bytes that are free)``."""
    with ExitStack() as held:
        if need is not None:
            try:
                held.enter_context(pool.reserved(need.nbytes))
            except ResourceError as error:
                raise refusal(need, pool.free()) from error
        yield


def calibrating(pool: Pool, checkpoint: Checkpoint, choice: Choice) -> AbstractContextManager[None]:
    """Keep the memory that a choice's method takes where it reads a text. Raises ResourceError as it is entered."""
    need = calibration_need(checkpoint, choice.method) if choice.method.needs_inputs else None
    fits = [method.value for method in Method if not method.needs_inputs][-1]
    options = [*choice.arguments(repeated=False), *choice.arguments(repeated=True)]
    command = shlex.join([*PROGRAM, "compress", checkpoint.name, *options, "--out", "DIR"])
    return admitted(pool, need, partial(no_calibration, fits=fits, command=command))


def comparing(pool: Pool, checkpoint: Checkpoint) -> AbstractContextManager[None]:
    """Keep the memory that a comparison with the original takes. Raises ResourceError as it is entered."""
    command = shlex.join([*PROGRAM, "evaluate", "DIR", "--against", checkpoint.name])
    return admitted(pool, drift_need(checkpoint), partial(no_drift, command=command))


def surveying(pool: Pool, checkpoint: Checkpoint) -> AbstractContextManager[None]:
    """Keep the memory that measuring weights piece by piece takes. Raises ResourceError as it is entered."""
    return admitted(pool, Need(0, 0, 0), partial(no_measuring, command=_measured_by(checkpoint)))


def measuring(pool: Pool, checkpoint: Checkpoint) -> AbstractContextManager[None]:
    """Keep the memory that a figure of each layer takes for which a text is read. Raises ResourceError as it is
    entered."""
    return admitted(pool, measuring_need(checkpoint), partial(no_measuring, command=_measured_by(checkpoint)))


def check_memory(pool: Pool, checkpoint: Checkpoint, choice: Choice, is_measured: bool) -> None:
    """Raise ResourceError where there is no memory for measuring damage, if ``is_measured``, or then for carrying a
    choice out: one at a time, neither kept."""
    with measuring(pool, checkpoint) if is_measured else nullcontext():
        pass
    with calibrating(pool, checkpoint, choice):
        pass


def _measured_by(checkpoint: Checkpoint) -> str:
    return shlex.join([*PROGRAM, "compress", checkpoint.name, "--sensitivity", "damage"])


def no_calibration(need: Need, free: int, fits: str, command: str) -> ResourceError:
    """Return why a method that reads a text is not begun; ``fits``: the method that would do, ``command``: the same
    work from a terminal."""
    return ResourceError(
        "calibration_memory",
        need=format_bytes(need.nbytes),
        block=format_bytes(need.block),
        states=format_bytes(need.states),
        statistics=format_bytes(need.statistics),
        pieces=format_bytes(PIECES),
        free=format_bytes(free),
        fits=fits,
        command=command,
    )


def no_drift(need: Need, free: int, command: str) -> ResourceError:
    """Return why nothing is compared with the original; ``command``: the same work from a terminal."""
    return ResourceError(
        "drift_memory",
        need=format_bytes(need.nbytes),
        block=format_bytes(need.block),
        states=format_bytes(need.states),
        statistics=format_bytes(need.statistics),
        pieces=format_bytes(PIECES),
        free=format_bytes(free),
        command=command,
    )


def no_measuring(need: Need, free: int, command: str) -> ResourceError:
    """Return why no layer is measured; ``command``: what can be measured from a terminal."""
    return ResourceError(
        "measuring_memory",
        need=format_bytes(need.nbytes),
        block=format_bytes(need.block),
        states=format_bytes(need.states),
        statistics=format_bytes(need.statistics),
        pieces=format_bytes(PIECES),
        free=format_bytes(free),
        command=command,
    )


def _linear(checkpoint: Checkpoint) -> list[Layer]:
    return [layer for layer in checkpoint.layers if layer.kind is Kind.LINEAR]


def _narrowest(checkpoint: Checkpoint) -> int:
    return min((min(layer.matrix) for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING), default=0)


def _widest(checkpoint: Checkpoint) -> int:
    return max((max(layer.matrix) for layer in _linear(checkpoint)), default=0)
