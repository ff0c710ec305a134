"""How long the survey of an 8B model takes whose weights lie on the GPU: ``python -m tests.bench.survey_cuda``.

Prints a Markdown table; ``CUDA.md`` beside this file holds the last one, with the device it was measured on.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from studio.quantization.quantize import base_schemes, measure, measure_in_torch
from studio.quantization.scheme import GROUP_SIZES

HIDDEN, INTERMEDIATE, LAYERS, KEYS, VOCABULARY = 4096, 14336, 32, 1024, 128256
CHUNK_WEIGHTS = 1 << 22
"""As in ``studio.planning.survey``, which needs more than a GPU machine may have."""
SHAPES = [
    (VOCABULARY, HIDDEN),
    *LAYERS * [*2 * [(HIDDEN, HIDDEN)], *2 * [(KEYS, HIDDEN)], *2 * [(INTERMEDIATE, HIDDEN)], (HIDDEN, INTERMEDIATE)],
    (VOCABULARY, HIDDEN),
]
"""The 226 matrices of a Llama-3-8B."""


def weights() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, device="cuda", dtype=torch.bfloat16).mul_(0.02) for shape in SHAPES]


def pieces(matrices: list[Tensor]) -> Iterator[Tensor]:
    """Yield the same as the studio's survey reads it."""
    for matrix in matrices:
        yield from matrix.split(max(2, CHUNK_WEIGHTS // matrix.shape[1] & ~1))


def seconds(work: Callable[[], object], times: int = 5) -> float:
    """Return the median of ``times`` runs after one to warm up."""
    taken = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def bandwidth() -> float:
    """Return the bytes that this GPU reads in a second."""
    block = torch.ones(1 << 30, device="cuda")
    return block.nbytes / seconds(lambda: block.sum(), 20)


def main() -> None:
    os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()  # nothing compiled before
    rate = bandwidth()
    matrices = weights()
    size = sum(matrix.nbytes for matrix in matrices)

    def survey(these: Iterator[Tensor] | list[Tensor]) -> None:
        for matrix in these:
            measure(matrix, base_schemes(matrix.shape[1], GROUP_SIZES))

    def reference() -> None:
        for matrix in matrices:
            measure_in_torch(matrix.float(), base_schemes(matrix.shape[1], GROUP_SIZES))

    start = time.perf_counter()
    for width in (HIDDEN, INTERMEDIATE):
        survey([matrix for matrix in matrices if matrix.shape[1] == width][:1])
    first = time.perf_counter() - start
    lines = [
        ("Triton, whole matrices", seconds(lambda: survey(matrices))),
        (f"Triton, in pieces of {CHUNK_WEIGHTS >> 20} M weights", seconds(lambda: survey(pieces(matrices)))),
        ("torch on the same GPU", seconds(reference, 3)),
        (f"reading the weights once, at {rate / 1e12:.2f} TB/s", size / rate),
    ]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {len(matrices)} matrices,", end=" ")
    print(f"{sum(matrix.numel() for matrix in matrices) / 1e9:.2f} G weights, {size / 1e9:.1f} GB of bf16.\n")
    print("| survey | seconds |\n| --- | --- |")
    for name, taken in lines:
        print(f"| {name} | {taken:.3f} |")
    print(f"\nCompiling, at the first call of a machine: {first:.1f} s.")


if __name__ == "__main__":
    main()
