"""How fast an 8B Llama of random weights answers on a CUDA device: ``python -m tests.bench.decode_cuda``.

The table goes into ``DECODE_CUDA.md``, with the device it was measured on.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.decoder.cuda import CudaDecoder
from studio.runtime.decoder.cuda_step import ReadWeight
from studio.runtime.decoder.shape import DecoderShape, LayerShape, Rotation
from studio.runtime.sampling import Picker, Sampling

FILE = Path(__file__).with_name("DECODE_CUDA.md")
TOKENS, RUNS = 128, 5
HIDDEN, INNER, LAYERS, HEADS, KEYS, SIZE, VOCABULARY = 4096, 14336, 32, 32, 8, 128, 128256
INT4, INT8 = Scheme(Mode.INT4_ASYM, 64), Scheme(Mode.INT8_ASYM)
GROUP = 64


def shape() -> DecoderShape:
    """Return Llama-3.1-8B's."""

    def layer(index: int) -> LayerShape:
        names = ("norm1", "q", "k", "v", "o", "norm2", "gate", "up", "down")
        norm1, q, k, v, o, norm2, gate, up, down = (f"layers.{index}.{name}" for name in names)
        return LayerShape(norm1, (q, k, v), o, norm2, (gate, up), down)

    frequencies = 500000.0 ** (-torch.arange(0, SIZE, 2) / SIZE)
    return DecoderShape(
        hidden=HIDDEN, heads=HEADS, kv_heads=KEYS, head_dim=SIZE, intermediate_size=INNER, vocabulary=VOCABULARY,
        activation=0, epsilon=1e-5, norm_plus=0, embedding_scale=1, attention_scale=SIZE**-0.5,
        attention_cap=0, logit_cap=0,
        rotations=(Rotation(frequencies, 1.0),), layers=tuple(map(layer, range(LAYERS))), embedding="embed",
        head="head", final_norm="norm",
    )  # fmt: skip


def size_of(name: str) -> tuple[int, int]:
    """Return a weight's [N, K]."""
    rows = {"q": HEADS * SIZE, "k": KEYS * SIZE, "v": KEYS * SIZE, "gate": INNER, "up": INNER, "o": HIDDEN}
    last = name.rpartition(".")[2]
    if last == "down":
        return HIDDEN, INNER
    return rows.get(last, VOCABULARY), HIDDEN


def random_floats(name: str) -> tuple[PackedTensor | Tensor, None]:
    rows, width = size_of(name)
    return torch.randn(rows, width, device="cuda", dtype=torch.bfloat16).mul_(width**-0.5), None


def random_packed(name: str, blocks: Scheme = INT4) -> tuple[PackedTensor | Tensor, None]:
    """Return random codes whose weights are as large as those of models."""
    scheme = INT8 if name in ("embed", "head") else blocks
    rows, width = size_of(name)
    arrays = {}
    for part in scheme.parts((rows, width)):
        if part.name == "scale":
            spread = width**-0.5 * 4 / 2**scheme.mode.bits
            arrays[part.name] = (torch.rand(part.shape, device="cuda") + 0.5).mul_(spread).half()
        else:
            arrays[part.name] = torch.randint(256, part.shape, device="cuda", dtype=torch.uint8)
    return PackedTensor.of(scheme, (rows, width), arrays), None


def decoder(read: ReadWeight) -> CudaDecoder:
    torch.manual_seed(0)
    norms = {name: torch.ones(HIDDEN) for layer in shape().layers for name in (layer.attention_norm, layer.mlp_norm)}
    return CudaDecoder(shape(), read, norms | {"norm": torch.ones(HIDDEN)}, 131072)


def answering(loaded: CudaDecoder, context: int) -> float:
    """Return the median seconds of a token of an answer, its choice included, after a text of ``context`` tokens."""
    cache, pick = loaded.begin(context + TOKENS), Picker(Sampling(), [])
    logits = torch.empty(0)
    text = torch.randint(VOCABULARY, (context,)).tolist()
    for start in range(0, context, 128):
        logits = loaded.step(cache, text[start : start + 128])
    taken = []
    for _ in range(RUNS + 1):
        cache.rewind(context)
        begun = time.perf_counter()
        for _ in range(TOKENS):
            logits = loaded.step(cache, [pick(logits)])
        taken.append((time.perf_counter() - begun) / TOKENS)
    return statistics.median(taken[1:])


def reading(loaded: CudaDecoder, count: int) -> float:
    """Return the median seconds to the logits after a prompt of ``count`` tokens."""

    def read() -> None:
        loaded.step(loaded.begin(count), text)

    text = torch.randint(VOCABULARY, (count,)).tolist()
    return seconds(read)


def seconds(work: Callable[[], object], times: int = RUNS) -> float:
    """Return the median of ``times`` runs after one to warm up."""
    taken = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def bandwidth() -> float:
    """Return the bytes that this GPU reads in a second."""
    block = torch.ones(1 << 30, device="cuda")
    return block.nbytes / seconds(lambda: block.sum(), 20)


def products_alone(is_packed: bool) -> float:
    """Return the seconds of torch's products of a token and nothing else, in one graph: more than any engine on them
    does.

    Packed: tinygemm's ``_weight_int4pack_mm`` in groups of 64, the head too.
    """
    sizes = [(HIDDEN + 2 * KEYS * SIZE, HIDDEN), (HIDDEN, HIDDEN), (2 * INNER, HIDDEN), (HIDDEN, INNER)]
    every = [size for _ in range(LAYERS) for size in sizes] + [(VOCABULARY, HIDDEN)]
    inputs = {width: torch.randn(1, width, device="cuda", dtype=torch.bfloat16) for width in (HIDDEN, INNER)}
    weights: list[tuple[Tensor, Tensor | None]] = []
    for rows, width in every:
        if is_packed:
            codes = torch.randint(256, (rows, width // 2), device="cuda", dtype=torch.uint8)
            scales = torch.rand(width // GROUP, rows, 2, device="cuda", dtype=torch.bfloat16)
            weights.append((torch.ops.aten._convert_weight_to_int4pack(codes, 8), scales))
        else:
            weights.append((torch.randn(rows, width, device="cuda", dtype=torch.bfloat16), None))

    def token() -> None:
        for (_, width), (weight, scales) in zip(every, weights, strict=True):
            x = inputs[width]
            if scales is None:
                torch.nn.functional.linear(x, weight)
            else:
                torch.ops.aten._weight_int4pack_mm(x, weight, GROUP, scales)

    token()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        token()
    return seconds(graph.replay, 20)


def row(name: str, read: ReadWeight, rate: float) -> tuple[str, float]:
    """Return a line of the table, and its tokens a second."""
    begun = time.perf_counter()
    loaded = decoder(read)
    torch.cuda.synchronize()
    ready = time.perf_counter() - begun
    short, long, prompt = answering(loaded, 64), answering(loaded, 8000), reading(loaded, 65)
    floor = loaded.step_bytes / rate
    cells = (
        f"{1 / short:.0f}", f"{1 / long:.0f}", f"{1e3 * prompt:.1f} ms", f"{1 / floor:.0f}", f"{floor / short:.0%}",
        f"{loaded.weight_bytes / 1e9:.2f} GB", f"{ready:.1f} s",
    )  # fmt: skip
    return f"| {name} | {' | '.join(cells)} |", 1 / short


HEAD = f"""# Decoding on a CUDA device, measured

Made by `python -m tests.bench.decode_cuda`, which `make bench-decode` runs too where there is a CUDA device:
Llama-3.1-8B's shapes, random weights, batch 1; medians of {RUNS} answers of {TOKENS} tokens, picking each included,
after a text of 64 and of 8,000 tokens; a prompt of 65 tokens to its first logits. The limit is what reading all weights
once a token allows at the bandwidth measured in the same run. "Made in" is the time from weights on the device to the
first step, with kernels compiled before. "Products alone" are torch's of one token in one CUDA graph and nothing else:
no attention, no norms, no picking.

Asked for, on an H100: INT4 64 at 300 tokens/s and 1.7x our bf16, goal 380.
"""
COLUMNS = (
    "8B Llama, random weights", "tokens/s", "after 8,000", "65-token prompt", "limit, tokens/s", "of the limit",
    "weights", "made in",
)  # fmt: skip
CASES: dict[str, ReadWeight] = {
    "INT4_ASYM 64, INT8 head and embedding": random_packed,
    "NF4 64, the same": partial(random_packed, blocks=Scheme(Mode.NF4, 64)),
    "INT8_ASYM": partial(random_packed, blocks=INT8),
    "bf16": random_floats,
}


@torch.inference_mode()
def main() -> None:
    rate = bandwidth()
    found = []
    for name, read in CASES.items():
        found.append(row(name, read, rate))
        torch.cuda.empty_cache()
    peers = []
    for name, is_packed in (("torch's tinygemm INT4 64, the head too", True), ("torch bf16", False)):
        peers.append(f"| {name}: products alone | {1 / products_alone(is_packed):.0f} |{' |' * 6}")
        torch.cuda.empty_cache()
    lines = [
        f"\nOn one {torch.cuda.get_device_name()}, torch {torch.__version__}; it reads {rate / 1e12:.2f} TB/s.\n",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(line for line, _ in found),
        *peers,
        f"\nINT4 against our bf16: {found[0][1] / found[-1][1]:.2f}x.\n",
    ]
    print("\n".join(lines))
    tried = FILE.read_text(encoding="utf-8").partition("\n## Tried")[1:] if FILE.exists() else ()
    FILE.write_text(HEAD + "\n".join(lines) + "".join(tried), encoding="utf-8")


if __name__ == "__main__":
    main()
