"""``python -m tests.bench.decode_engine ENGINE PATH [TOKENS]``: one engine with one model, waiting to answer.

Each line on standard input is a run: a prompt of 65 tokens that no run had before, then 128 tokens. The answer is a
line of JSON: seconds to the first token, tokens a second after it. All engines have two threads and take the likeliest.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PROMPT = 65
THREADS = 2
Run = Callable[[Sequence[int], int], tuple[float, float]]
"""Prompt, tokens -> seconds to the first token, tokens a second after it."""


def studio(path: str) -> Run:
    """The studio's own, as its chat runs it: ``builtin``, a folder of a model, or one that was exported."""
    import torch

    from studio.checkpoint.open_model import open_model
    from studio.checkpoint.recipe import is_compressed
    from studio.runtime.decoder import open_compressed, open_original
    from studio.runtime.sampling import Picker, Sampling
    from tests.steps import finish

    torch.set_num_threads(THREADS)
    is_small = path != "builtin" and is_compressed(Path(path))
    decoder = open_compressed(Path(path)) if is_small else open_original(finish(open_model(path, True)))

    def run(prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        pick, cache = Picker(Sampling(), prompt), decoder.begin(len(prompt) + tokens)
        began = time.perf_counter()
        token = pick(decoder.step(cache, prompt))
        first = time.perf_counter()
        for _ in range(tokens - 1):
            token = pick(decoder.step(cache, [token]))
        return first - began, (tokens - 1) / (time.perf_counter() - first)

    return run


def llama(path: str) -> Run:
    """llama.cpp; only its own evaluation is timed, which leaves out its Python and its sampling."""
    import llama_cpp

    model = llama_cpp.Llama(path, n_ctx=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)

    def run(prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        model.reset()
        began = time.perf_counter()
        model.eval(prompt)
        first = time.perf_counter()
        for index in range(tokens - 1):
            model.eval([1000 + index])
        return first - began, (tokens - 1) / (time.perf_counter() - first)

    return run


def openvino(path: str) -> Run:
    """OpenVINO GenAI, by its own metrics."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    options = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    pipeline = genai.LLMPipeline(path, "CPU", **options)
    how = genai.GenerationConfig()
    how.ignore_eos, how.do_sample, how.apply_chat_template = True, False, False

    def run(prompt: Sequence[int], tokens: int) -> tuple[float, float]:
        how.max_new_tokens = tokens
        ids, mask = np.array([prompt], dtype=np.int64), np.ones((1, len(prompt)), dtype=np.int64)
        found: Any = pipeline.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(mask)), how).perf_metrics
        return found.get_ttft().mean / 1e3, 1e3 / found.get_tpot().mean

    return run


def main() -> None:
    engine, path, *rest = sys.argv[1:]
    run = {"studio": studio, "llama": llama, "openvino": openvino}[engine](path)
    tokens = int(rest[0]) if rest else 128
    for number, _ in enumerate(sys.stdin):
        prompt = [(1000 + 97 * number + 31 * i) % 40000 + 100 for i in range(PROMPT)]  # none begins as another did
        first, speed = run(prompt, tokens)
        print(json.dumps({"first": first, "speed": speed}), flush=True)


if __name__ == "__main__":
    main()
