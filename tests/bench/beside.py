"""``python -m tests.bench.beside``: what is left of the speed of answering beside two processes that never rest.

Random weights of SmolLM2-135M's shape in int4_asym 64, two threads. Quiet and busy runs follow each other, so that a
machine that does other things too meets both; the middle of each counts.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import torch

from studio.base.workers import BACKGROUND
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.decoder.cpu import NativeDecoder
from studio.runtime.native.arena import Arena
from studio.runtime.native.tiling import tiles_of, tiles_of_floats
from tests.decoders import LLAMA, layer, rotation, small

SHAPE = replace(
    LLAMA, hidden=576, heads=9, kv_heads=3, head_dim=64, intermediate_size=1536, vocabulary=49152,
    attention_scale=0.125, rotations=(rotation(64),), layers=tuple(map(layer, range(30))), head="embed",
)  # fmt: skip
BUSY, ROUNDS, SECONDS = 2, 5, 1.5
GOAL = 0.4


def decoder() -> NativeDecoder:
    arena, model = Arena(), small(SHAPE, Scheme(Mode.INT4_ASYM, 64), {"embed": Scheme(Mode.INT8_ASYM)})
    tiles = {
        name: (tiles_of(w) if isinstance(w, PackedTensor) else tiles_of_floats(w)).within(arena)
        for name, w in model.weights.items()
    }
    return NativeDecoder(SHAPE, tiles, model.norms, 8192)


def speed(model: NativeDecoder, seconds: float = SECONDS) -> float:
    """Return tokens a second, a little work of Python's after each, as a chat has."""
    cache, count, token = model.begin(4096), 0, 1
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds and cache.room:
        token = int(model.step(cache, [token]).numpy().argmax())
        count += 1
    return count / spent


@contextmanager
def busy(count: int, niceness: int = 0) -> Iterator[None]:
    """Have processes that take all they can get, so far behind others."""
    program = f"import os; os.nice({niceness})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    try:
        time.sleep(0.2)  # until they have started
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def kept() -> tuple[float, float]:
    """Return the share of the quiet speed that is left beside others, and beside such as stand back as the studio's own
    long jobs do; print what it was found from."""
    torch.set_num_threads(2)
    model = decoder()
    speed(model)
    quiet, loaded, behind = list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        quiet.append(speed(model))
        with busy(BUSY):
            loaded.append(speed(model))
        with busy(BUSY, BACKGROUND):
            behind.append(speed(model))
    print("quiet  ", " ".join(f"{each:6.0f}" for each in quiet), "tok/s")
    print("loaded ", " ".join(f"{each:6.0f}" for each in loaded), "tok/s")
    print("behind ", " ".join(f"{each:6.0f}" for each in behind), f"tok/s, niceness {BACKGROUND}")
    shares = median(loaded) / median(quiet), median(behind) / median(quiet)
    print(f"{shares[0]:.2f} of the quiet speed is left beside {BUSY} busy processes, {GOAL} is asked", flush=True)
    print(f"{shares[1]:.2f} beside such as stand back", flush=True)
    return shares


if __name__ == "__main__":
    kept()
