"""``python -m tests.bench.guard``: 4-bit weights answer faster than 16-bit ones, or this ends with 1.

Both are the built-in model through our own compiled code, in one process, in turns, so that whatever else the machine
does meets both. The margin is wide: a token reads 85 MB instead of 269 MB, and beside ten busy processes it
took a quarter of the time.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from studio import export
from studio.checkpoint.open_model import BUILTIN, open_model
from studio.compression.compress import compress
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.runtime.decoder import Decoder, open_compressed, open_original
from studio.runtime.decoder.interface import Backend
from tests.steps import finish

ROUNDS = 7
TOKENS = 32
AT_LEAST = 1.2
"""Times as fast; below it, reading fewer bytes brings nothing, and the product of this studio is gone."""
PROMPT = [1000 + 31 * place for place in range(65)]


def tokens_per_second(decoder: Decoder[Any], prompt: Sequence[int]) -> float:
    """Return the speed of ``TOKENS`` steps after a prompt."""
    cache = decoder.begin(len(prompt) + TOKENS)
    logits = decoder.step(cache, prompt)
    began = time.perf_counter()
    for _ in range(TOKENS):
        logits = decoder.step(cache, [int(logits.argmax())])
    return TOKENS / (time.perf_counter() - began)


def main() -> int:
    torch.set_num_threads(2)
    checkpoint = finish(open_model(BUILTIN, paths=False))
    with tempfile.TemporaryDirectory() as place:
        plan = make_plan(checkpoint.layers, Choice.of("int4_sym", 64, 1.0))
        done = finish(compress(checkpoint, plan, Path(place) / "packed"))
        decoders = (
            open_compressed(export.write_folder(checkpoint, done, Path(place) / "out")),
            open_original(checkpoint),
        )
    if any(decoder.backend is not Backend.NATIVE for decoder in decoders):
        print("not compiled here: nothing to compare")
        return 1
    speeds = [[tokens_per_second(decoder, PROMPT) for decoder in decoders] for _ in range(ROUNDS + 1)][1:]
    ratio = median(fast / slow for fast, slow in speeds)
    small, large = (median(column) for column in zip(*speeds, strict=True))
    print(f"int4_sym-g64 {small:.1f} tokens/s, 16 bits {large:.1f}: {ratio:.2f} times as fast, at least {AT_LEAST}")
    return ratio < AT_LEAST


if __name__ == "__main__":
    sys.exit(main())
