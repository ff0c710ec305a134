"""One token's step on CUDA: the weights on the device, what a step writes to, and the kernels that it launches.

Knows neither caches nor graphs.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from studio.base.pointers import CUDA, address, optional
from studio.quantization.packing import PackedTensor
from studio.runtime.decoder.interface import MOST_TOKENS
from studio.runtime.decoder.shape import DecoderShape, LayerShape
from studio.runtime.native.fragments import ROWS, Fragments, Kind, WeightPointers, can_join, fragments_of, steps_of
from studio.runtime.native.nvrtc import Dim, Launch, Module, shared_memory
from studio.runtime.native.structures import assertions

SOURCE = Path(__file__).parents[1] / "native" / "cuda" / "step.cu"
STORED, ADDED, GATED = range(3)
"""What becomes of a product, in the order of ``matmul.cuh``."""
WIDEST, PAST, TURNS = 128, 80, 4
"""Of ``matmul.cuh``: inputs are filled up to a multiple; bytes between arrays; tiles whose sums are under way."""
HEADS_AT_ONCE = 4
"""Query heads that a block of threads attends with, so that they share the keys they read."""
MOST_DIMENSIONS = 256
"""Of a head: eight to a lane of a warp."""
OLDEST = (8, 0)
"""The first GPUs that copy behind the threads' backs and multiply bf16."""

ReadWeight = Callable[[str], tuple[PackedTensor | Tensor, Tensor | None]]
"""A weight's name -> the weight [N, K] and its bias [N]."""
_Int, _Float, _Pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p


@dataclass(frozen=True)
class Tuning:
    """How products are spread over the device; ``tests/bench/DECODE_CUDA.md`` has what else was tried."""

    warps: int = 16
    """Of a block of threads that multiply; every multiprocessor has one block."""
    batch: int = 4
    """Blocks of codes that a warp asks for at once."""
    depth: int = 2
    """Batches that it has under way, fewer where shared memory ends."""
    float_depth: int = 3
    """The same of 16-bit weights."""

    def depth_of(self, weight: Fragments, limit: int) -> int:
        """Return how many batches of a weight are under way in ``limit`` bytes of shared memory; 0: none fits."""
        most = self.float_depth if weight.kind <= Kind.BF16 else self.depth
        return next((depth for depth in range(most, 0, -1) if shared_bytes(weight, self, depth) <= limit), 0)


class _Input(ctypes.Structure):
    _fields_ = [("x", _Pointer), ("norm", _Pointer), ("epsilon", _Float), ("width", _Int)]


class _Attention(ctypes.Structure):
    _fields_ = [
        *(
            (name, _Pointer)
            for name in ("state", "qkv", "query_norm", "key_norm", "rotation", "out", "parts", "arrived")
        ),
        *((name, _Int) for name in ("layer", "heads", "kv_heads", "rotary", "window")),
        *((name, _Float) for name in ("epsilon", "scale", "cap")),
    ]


GIVEN: dict[str, type[ctypes.Structure]] = {"Weight": WeightPointers, "Input": _Input, "Attention": _Attention}
"""What kernels are given by value, by its name in the sources: it does not compile where it is laid out differently."""


@dataclass(frozen=True)
class LayerWeights:
    """A layer's weights: fused where their schemes allow, else their outputs concatenated."""

    qkv: list[Fragments]
    output: Fragments
    gate_up: list[Fragments]
    """One in pairs, or two."""
    down: Fragments


@dataclass(frozen=True)
class _Call:
    """A launch before there is a module."""

    name: str
    grid: Dim
    threads: int
    args: tuple[object, ...]
    shared: int = 0


class CudaStep:
    """The weights on the device, what a step writes to, and the step's launches in their order."""

    def __init__(
        self, shape: DecoderShape, read: ReadWeight, norms: Mapping[str, Tensor], device: torch.device
    ) -> None:
        """Raises RuntimeError where the kernels do not compile or the device has too little memory."""
        self.shape, self.device = shape, device
        self._processors: int = torch.cuda.get_device_properties(device).multi_processor_count
        self._shared = shared_memory()
        self.norms = {name: norm.to(device).float() + shape.norm_plus for name, norm in norms.items()}
        self.embedding = self._weights(read, [shape.embedding])[0]
        is_tied = shape.head == shape.embedding
        self.head = self.embedding if is_tied else self._weights(read, [shape.head])[0]
        self.layers = [self._layer(read, layer) for layer in shape.layers]
        self._buffers()
        self.record(Tuning())

    def record(self, tuning: Tuning) -> None:
        """Compile what the step needs and make its launches.

        Raises RuntimeError where a weight needs more shared memory than there is even for one block of codes at a time.
        """
        while any(tuning.depth_of(weight, self._shared) == 0 for weight in self.fragments()):
            if tuning.batch == 1:
                raise RuntimeError(f"a step needs more than the {self._shared} bytes of shared memory there are")
            tuning = replace(tuning, batch=tuning.batch // 2)
        self.tuning = tuning
        calls = self._calls()
        slabs = [f"dequantize<{weight.sort}>" for weight in self.fragments()]
        names = dict.fromkeys([*(call.name for call in calls), self._attend_name(False), self._append_name, *slabs])
        numbers = {"WARPS": tuning.warps, "BATCH": tuning.batch, "ACTIVATION": self.shape.activation}
        defines = [f"{name}={number}" for name, number in numbers.items()]
        self._module = Module(SOURCE, list(names), defines, assertions(GIVEN))
        self.launches = [self._launch(call, overlaps=index > 0) for index, call in enumerate(calls)]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(each.nbytes for each in self.fragments()) + sum(norm.nbytes for norm in self.norms.values())

    def fragments(self) -> list[Fragments]:
        """Return every weight once."""
        every = [self.embedding, self.head]
        for layer in self.layers:
            every += [*layer.qkv, layer.output, *layer.gate_up, layer.down]
        return list({id(each): each for each in every}.values())

    # ---- weights ----

    def _layer(self, read: ReadWeight, layer: LayerShape) -> LayerWeights:
        return LayerWeights(
            qkv=self._weights(read, layer.qkv),
            output=self._weights(read, [layer.output])[0],
            gate_up=self._weights(read, layer.gate_up, is_paired=True),
            down=self._weights(read, [layer.down])[0],
        )

    def _weights(self, read: ReadWeight, names: Sequence[str], is_paired: bool = False) -> list[Fragments]:
        """Return weights one below the other, as few as can be."""
        runs: list[list[tuple[PackedTensor | Tensor, Tensor | None]]] = []
        for each in map(read, names):
            if runs and can_join(runs[-1][-1][0], each[0]):
                runs[-1].append(each)
            else:
                runs.append([each])
        paired = is_paired and len(runs) == 1
        return [fragments_of([w for w, _ in run], [b for _, b in run], self.device, paired) for run in runs]

    # ---- what a step writes to ----

    def _buffers(self) -> None:
        shape = self.shape
        self._half = len(shape.rotations[0].frequencies) if shape.rotations else 0
        self._tables = len(shape.rotations)
        self._at_once = heads_at_once(shape.heads // shape.kv_heads, shape.head_dim)
        self._units = shape.heads // self._at_once
        """Blocks of threads that a token's attention has at least."""

        def numbers(*size: int) -> Tensor:
            return torch.zeros(*size, dtype=torch.float32, device=self.device)

        self.state = torch.zeros(4 + MOST_TOKENS, dtype=torch.int64, device=self.device)
        self.x = numbers(MOST_TOKENS, shape.hidden)
        self._qkv = numbers((shape.heads + 2 * shape.kv_heads) * shape.head_dim)
        self._heads = numbers(shape.heads * shape.head_dim)
        self._gated, self._gate, self._up = (numbers(shape.intermediate_size) for _ in range(3))
        self._branch = numbers(shape.hidden)
        self.logits = numbers(shape.vocabulary)
        self._rotation = numbers(max(self._tables * self._half, 1) * MOST_TOKENS * 2)
        frequencies = [rotation.frequencies.float().cpu() for rotation in shape.rotations]
        self._frequencies = torch.cat([torch.zeros(0, dtype=torch.float32, device="cpu"), *frequencies]).to(self.device)
        most = max(self._units * MOST_TOKENS, self._splits(1) * self._units)
        self._parts = numbers(most * self._at_once * (shape.head_dim + 2))
        self._arrived = torch.zeros(self._units * MOST_TOKENS, dtype=torch.int32, device=self.device)

    def _splits(self, count: int) -> int:
        """Return how many blocks of threads share the positions of a token's heads, of ``count`` tokens."""
        return max(1, self._processors // (self._units * count))

    # ---- the step ----

    def _calls(self) -> list[_Call]:
        shape, calls = self.shape, [self._embedding(1)]
        for index, (layer, weights) in enumerate(zip(shape.layers, self.layers, strict=True)):
            start = 0
            for part in weights.qkv:
                calls.append(self._product(part, self.x, self._qkv[start:], STORED, layer.attention_norm))
                start += part.rows
            calls.append(self._attention(index, 1, self._qkv, self._heads))
            calls += self._joined(weights.output, self._heads, layer.attention_after)
            if len(weights.gate_up) == 1:
                calls.append(self._product(weights.gate_up[0], self.x, self._gated, GATED, layer.mlp_norm))
            else:
                places = (self._gate, self._up)
                for part, place in zip(weights.gate_up, places, strict=True):
                    calls.append(self._product(part, self.x, place, STORED, layer.mlp_norm))
                pointers = tuple(_address(place, shape.intermediate_size) for place in (*places, self._gated))
                calls.append(
                    _Call(
                        "gate",
                        (-(-shape.intermediate_size // 256), 1, 1),
                        256,
                        (*pointers, _Int(shape.intermediate_size)),
                    )
                )
            calls += self._joined(weights.down, self._gated, layer.mlp_after)
        return [*calls, self._product(self.head, self.x, self.logits, STORED, shape.final_norm, shape.logit_cap)]

    def _joined(self, weight: Fragments, x: Tensor, norm: str | None) -> list[_Call]:
        """Return what adds a product to the residual, through the norm behind it where there is one."""
        if norm is None:
            return [self._product(weight, x, self.x, ADDED)]
        hidden = self.shape.hidden
        pointers = tuple(_address(array, hidden) for array in (self.x, self._branch, self.norms[norm]))
        args = (*pointers, _Int(hidden), _Float(self.shape.epsilon))
        join = _Call("join", (1, 1, 1), min(1024, -(-hidden // 32) * 32), args)
        return [self._product(weight, x, self._branch, STORED), join]

    def _product(
        self, weight: Fragments, x: Tensor, out: Tensor, output: int, norm: str | None = None, cap: float = 0.0
    ) -> _Call:
        tuning, tiles = self.tuning, weight.codes.shape[0]
        rounds = -(-_filled(weight) // (8 * 32 * tuning.warps))
        depth = tuning.depth_of(weight, self._shared)
        flags = f"{str(norm is not None).lower()}, {rounds}, {output}, {depth}"
        rows = weight.rows // 2 if output == GATED else weight.rows
        scale = optional(None if norm is None else self.norms[norm], torch.float32, weight.width, CUDA)
        source = _Input(address(x, torch.float32, weight.width, CUDA), scale, self.shape.epsilon, weight.width)
        args = (weight.pointers, source, _address(out, rows), _Float(cap))
        grid = (min(tiles, self._processors), 1, 1)
        shared = shared_bytes(weight, tuning, depth)
        return _Call(f"product<{weight.sort}, {flags}>", grid, 32 * (tuning.warps + 1), args, shared)

    def _embedding(self, count: int) -> _Call:
        shape = self.shape
        scales = [rotation.scale for rotation in shape.rotations] + [1.0, 1.0]
        args = (
            self.embedding.pointers, _address(self.state, 4 + count, torch.int64),
            _address(self.x, count * shape.hidden), _Int(shape.hidden), _Float(shape.embedding_scale),
            _address(self._rotation, self._tables * count * 2 * self._half),
            _address(self._frequencies, self._tables * self._half), _Int(self._half), _Int(self._tables),
            _Float(scales[0]), _Float(scales[1]),
        )  # fmt: skip
        return _Call(f"embed<{self.embedding.sort}>", (count, 1, 1), 256, args)

    def _attention(self, index: int, count: int, qkv: Tensor, out: Tensor) -> _Call:
        shape, layer = self.shape, self.shape.layers[index]
        rotates = layer.rotation >= 0 and self._half > 0
        norms = [None if name is None else self.norms[name] for name in (layer.query_norm, layer.key_norm)]
        angles = count * 2 * self._half  # numbers of one table
        floats, D = torch.float32, shape.head_dim  # noqa: N806
        parts = count * self._units * self._splits(count) * self._at_once * (D + 2)
        attention = _Attention(
            state=address(self.state, torch.int64, 4 + count, CUDA),
            qkv=address(qkv, floats, count * (shape.heads + 2 * shape.kv_heads) * D, CUDA),
            query_norm=optional(norms[0], floats, D, CUDA),
            key_norm=optional(norms[1], floats, D, CUDA),
            rotation=address(self._rotation[angles * layer.rotation :], floats, angles, CUDA) if rotates else None,
            out=address(out, floats, count * shape.heads * D, CUDA),
            parts=address(self._parts, floats, parts, CUDA),
            arrived=address(self._arrived, torch.int32, count * self._units, CUDA),
            layer=index,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            rotary=2 * self._half,
            window=layer.window,
            epsilon=shape.epsilon,
            scale=shape.attention_scale,
            cap=shape.attention_cap,
        )
        return _Call(self._attend_name(count == 1), (self._units, self._splits(count), count), 256, (attention,))

    def _attend_name(self, is_single: bool) -> str:
        return f"attend<{self.shape.head_dim}, {self._at_once}, {str(is_single).lower()}>"

    @property
    def _append_name(self) -> str:
        return f"append<{self.shape.head_dim}>"

    def _launch(self, call: _Call, overlaps: bool = False) -> Launch:
        return self._module.launch(
            call.name, call.grid, call.threads, *call.args, shared=call.shared, overlaps=overlaps
        )

    # ---- the same for several tokens ----

    def embed(self, count: int) -> Tensor:
        """Fill the rotations for the tokens that the state names, and return their embeddings, fp32 [T, hidden]."""
        self._launch(self._embedding(count))()
        return self.x[:count]

    def attend(self, index: int, qkv: Tensor) -> Tensor:
        """Let keys and values of tokens [T, rows] join the cache; return what their heads found, fp32 [T, rows]."""
        count, shape = len(qkv), self.shape
        out = torch.empty(count, shape.heads * shape.head_dim, dtype=torch.float32, device=self.device)
        attention = self._attention(index, count, qkv, out)
        self._launch(_Call(self._append_name, (shape.kv_heads, count, 1), 32, attention.args))()
        self._launch(attention)()
        return out

    def last(self) -> None:
        """Compute the logits of what ``x`` holds first."""
        self.launches[-1]()

    def dequantizing(self, weight: Fragments, start: int, tiles: int, out: Tensor) -> Launch:
        """Return the launch that writes some tiles of a weight, bf16 [tiles * 16, K], into ``out``.

        Raises ValueError for tiles that the weight does not have.
        """
        across = max(1, min(weight.codes.shape[1] // 4, 8 * self._processors // tiles))
        if not 0 <= start < start + tiles <= weight.codes.shape[0]:
            raise ValueError(f"a weight has no tiles from {start} to {start + tiles}")
        place = _address(out, tiles * ROWS * weight.width, torch.bfloat16)
        args = (weight.pointers, _Int(start), _Int(weight.width), place)
        return self._launch(_Call(f"dequantize<{weight.sort}>", (tiles, across, 1), 128, args))


def takes(shape: DecoderShape) -> bool:
    """Return whether the kernels know this shape on the current device."""
    widths = (shape.hidden, shape.intermediate_size, shape.heads * shape.head_dim)
    fits = shape.head_dim <= MOST_DIMENSIONS and all(width % 8 == 0 for width in widths)
    return fits and torch.cuda.get_device_capability() >= OLDEST


def heads_at_once(group: int, head_dim: int) -> int:
    """Return how many of the ``group`` heads that share a kv head one block of threads takes."""
    largest = max(size for size in range(1, HEADS_AT_ONCE + 1) if group % size == 0)
    return group if largest == 1 and group <= 8 and group * head_dim <= 1024 else largest


def shared_bytes(weight: Fragments, tuning: Tuning, depth: int) -> int:
    """Return the shared memory of a product: rings of batches, then ``Shared`` as ``matmul.cuh`` lays it out."""
    steps = steps_of(weight.kind)
    records = 0 if weight.is_whole else steps // weight.per * 8 * (8 if weight.has_zero else 4)
    rings = tuning.warps * depth * tuning.batch * (512 + records)
    filled = _filled(weight)
    numbers = 2 * filled // (16 * weight.per) + TURNS * tuning.warps * ROWS + 2 * tuning.warps
    return rings + 4 * filled + 2 * PAST + 4 * numbers


def _filled(weight: Fragments) -> int:
    return -(-weight.width // WIDEST) * WIDEST


def _address(array: Tensor, room: int, dtype: torch.dtype = torch.float32) -> ctypes.c_void_p:
    return _Pointer(address(array, dtype, room, CUDA))
