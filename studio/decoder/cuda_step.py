"""One token's step as a list of kernel launches, and a prompt's products slab by slab. Knows no caches, no graphs."""

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import studio.native
from studio.decoder.interface import MOST_TOKENS
from studio.decoder.shape import DecoderShape, LayerShape
from studio.native.fragments import ROWS, Fragments, can_join, fragments_of, steps_of
from studio.native.nvrtc import Dim, Launch, Module
from studio.packing import PackedTensor

SOURCE = Path(studio.native.__file__).parent / "decode_cuda" / "step.cu"
STORED, ADDED, GATED = range(3)
"""What a product's results do, in the order of ``product.cuh``."""
WIDEST, PAST = 128, 80
"""Of ``product.cuh``: inputs are filled up to a multiple; bytes between arrays."""
SLAB_BYTES = 32 << 20
"""Of bf16 weights at once: they stay in the second-level cache until they are multiplied with."""
HEADS_AT_ONCE = 4
"""Query heads that a block of threads attends with, so that they share the keys they read."""

_Int, _Float, _Pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p


@dataclass(frozen=True)
class Tuning:
    """How products are spread over the device."""

    warps: int = 16
    """Of a block of threads."""
    resident: int = 2
    """Blocks of threads that one multiprocessor has room for: the next kernel's move in while one is at work."""
    per_processor: int = 1
    """Blocks of threads a multiprocessor is given."""
    batch: int = 4
    """Blocks of codes that a warp asks for at once."""
    depth: int = 2
    """Batches that it has under way."""


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


@dataclass(frozen=True)
class LayerWeights:
    """A layer's weights: fused where their schemes allow, else one behind the other."""

    qkv: list[Fragments]
    output: Fragments
    gate_up: list[Fragments]
    """One in pairs, or two."""
    down: Fragments


@dataclass
class _Call:
    name: str
    grid: Dim
    threads: int
    args: tuple[object, ...]
    shared: int = 0


@dataclass
class _Calls:
    """Launches before there is a module."""

    made: list[_Call] = field(default_factory=list)

    def add(self, name: str, grid: Dim, threads: int, *args: object, shared: int = 0) -> None:
        self.made.append(_Call(name, grid, threads, args, shared))


class Recorder:
    """The weights on the device, what a step writes to, and the step's launches in their order."""

    def __init__(
        self,
        shape: DecoderShape,
        read: Callable[[str], tuple[PackedTensor | Tensor, Tensor | None]],
        norms: Mapping[str, Tensor],
        device: torch.device,
    ) -> None:
        self.shape, self.device = shape, device
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self.norms = {name: norm.to(device).float() + shape.norm_plus for name, norm in norms.items()}
        self.embedding = self._weights(read, [shape.embedding])[0]
        is_tied = shape.head == shape.embedding
        self.head = self.embedding if is_tied else self._weights(read, [shape.head])[0]
        self.layers = [self._layer(read, layer) for layer in shape.layers]
        self._buffers()
        self.record(Tuning())

    def record(self, tuning: Tuning) -> None:
        """Compile what the step needs and make its launches."""
        self.tuning = tuning
        calls = self._calls()
        extra = [*self._prompt_names(), *(self._dequantize_name(each) for each in self.fragments())]
        names = dict.fromkeys([*(call.name for call in calls.made), *extra])
        numbers = {"WARPS": tuning.warps, "RESIDENT": tuning.resident, "BATCH": tuning.batch, "DEPTH": tuning.depth}
        defines = [f"{name}={number}" for name, number in (numbers | {"ACTIVATION": self.shape.activation}).items()]
        self.module = Module(SOURCE, list(names), defines)
        self.launches = [
            self.module.launch(call.name, call.grid, call.threads, *call.args, shared=call.shared, overlaps=index > 0)
            for index, call in enumerate(calls.made)
        ]

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

    def _layer(
        self, read: Callable[[str], tuple[PackedTensor | Tensor, Tensor | None]], layer: LayerShape
    ) -> LayerWeights:
        return LayerWeights(
            qkv=self._weights(read, layer.qkv),
            output=self._weights(read, [layer.output])[0],
            gate_up=self._weights(read, layer.gate_up, is_paired=True),
            down=self._weights(read, [layer.down])[0],
        )

    def _weights(
        self,
        read: Callable[[str], tuple[PackedTensor | Tensor, Tensor | None]],
        names: Sequence[str],
        is_paired: bool = False,
    ) -> list[Fragments]:
        """Return weights one below the other, as few as can be."""
        found = [read(name) for name in names]
        runs: list[list[tuple[PackedTensor | Tensor, Tensor | None]]] = []
        for each in found:
            if runs and can_join(runs[-1][-1][0], each[0]):
                runs[-1].append(each)
            else:
                runs.append([each])
        paired = is_paired and len(runs) == 1
        return [fragments_of([w for w, _ in run], [b for _, b in run], self.device, paired) for run in runs]

    # ---- what a step writes to ----

    def _buffers(self) -> None:
        shape = self.shape
        half = len(shape.rotations[0].frequencies) if shape.rotations else 0
        tables = len(shape.rotations)
        self._half, self._tables = half, tables
        group = shape.heads // shape.kv_heads
        self._at_once = heads_at_once(group, shape.dimensions)
        self._units = shape.kv_heads * (group // self._at_once)
        """Blocks of threads that a token's attention has at least."""

        def numbers(*size: int) -> Tensor:
            return torch.zeros(*size, dtype=torch.float32, device=self.device)

        self.state = torch.zeros(4 + MOST_TOKENS, dtype=torch.int64, device=self.device)
        self.x = numbers(MOST_TOKENS, shape.hidden)
        self._qkv = numbers((shape.heads + 2 * shape.kv_heads) * shape.dimensions)
        self._heads = numbers(shape.heads * shape.dimensions)
        self._inner, self._gate_up = numbers(shape.inner), numbers(2 * shape.inner)
        self._branch = numbers(shape.hidden)
        self.logits = numbers(shape.vocabulary)
        self._rotation = numbers(max(tables, 1) * MOST_TOKENS * max(half, 1) * 2)
        self._frequencies = torch.cat(
            [torch.zeros(0), *(rotation.frequencies.float().cpu() for rotation in shape.rotations)]
        ).to(self.device)
        most = max(self._units * MOST_TOKENS, self._splits(1) * self._units)
        self._parts = numbers(most * self._at_once * (shape.dimensions + 2))
        self._arrived = torch.zeros(self._units * MOST_TOKENS, dtype=torch.int32, device=self.device)

    def _splits(self, tokens: int) -> int:
        return max(1, self._processors // (self._units * tokens))

    # ---- the step ----

    def _calls(self) -> _Calls:
        calls, shape = _Calls(), self.shape
        calls.add(*self._embed_call(1))
        for index, (layer, weights) in enumerate(zip(shape.layers, self.layers, strict=True)):
            start = 0
            for part in weights.qkv:
                self._product(calls, part, self.x, layer.attention_norm, self._qkv[start:], STORED)
                start += part.rows
            calls.add(*self._attend_call(index, 1, self._qkv, self._heads))
            self._branch_product(calls, weights.output, self._heads, layer.attention_after)
            if len(weights.gate_up) == 1:
                self._product(calls, weights.gate_up[0], self.x, layer.mlp_norm, self._inner, GATED)
            else:
                for part, place in zip(weights.gate_up, torch.split(self._gate_up, shape.inner), strict=True):
                    self._product(calls, part, self.x, layer.mlp_norm, place, STORED)
                pointers = (_address(place) for place in (*torch.split(self._gate_up, shape.inner), self._inner))
                calls.add("gate", (-(-shape.inner // 256), 1, 1), 256, *pointers, _Int(shape.inner))
            self._branch_product(calls, weights.down, self._inner, layer.mlp_after)
        self._product(calls, self.head, self.x, shape.final_norm, self.logits, STORED, shape.logit_cap)
        return calls

    def _branch_product(self, calls: _Calls, weight: Fragments, x: Tensor, norm: str | None) -> None:
        """Add a product to the residual, through the norm behind it where there is one."""
        if norm is None:
            self._product(calls, weight, x, None, self.x, ADDED)
            return
        self._product(calls, weight, x, None, self._branch, STORED)
        hidden = self.shape.hidden
        args = (
            _address(self.x),
            _address(self._branch),
            _address(self.norms[norm]),
            _Int(hidden),
            _Float(self.shape.epsilon),
        )
        calls.add("join", (1, 1, 1), min(1024, -(-hidden // 32) * 32), *args)

    def _product(
        self, calls: _Calls, weight: Fragments, x: Tensor, norm: str | None, out: Tensor, output: int, cap: float = 0.0
    ) -> None:
        tiles = weight.codes.shape[0]
        rounds = -(-_filled(weight) // (8 * 32 * self.tuning.warps))
        name = f"product<{weight.template}, {str(norm is not None).lower()}, {rounds}, {output}>"
        source = _Input(
            _pointer(x), None if norm is None else _pointer(self.norms[norm]), self.shape.epsilon, weight.width
        )
        grid = (min(tiles, self._processors * self.tuning.per_processor), 1, 1)
        shared = shared_bytes(weight, self.tuning)
        calls.add(
            name, grid, 32 * self.tuning.warps, weight.pointers, source, _address(out), _Float(cap), shared=shared
        )

    # ---- the same for several tokens ----

    def embed(self, count: int) -> None:
        """Fill ``x`` and the rotations for the tokens that the state names."""
        name, grid, threads, *args = self._embed_call(count)
        self.module.launch(name, grid, threads, *args, overlaps=False)()

    def attend(self, index: int, qkv: Tensor) -> Tensor:
        """Let keys and values of tokens [T, rows] join the cache; return what their heads found, fp32 [T, rows]."""
        count, shape = len(qkv), self.shape
        out = torch.empty(count, shape.heads * shape.dimensions, dtype=torch.float32, device=self.device)
        name, grid, threads, attention = self._attend_call(index, count, qkv, out)
        append = self.module.launch(
            f"append<{shape.dimensions}>", (shape.kv_heads, count, 1), 32, attention, overlaps=False
        )
        append()
        self.module.launch(name, grid, threads, attention, overlaps=False)()
        return out

    def _embed_call(self, count: int) -> tuple[str, Dim, int, *tuple[object, ...]]:
        shape = self.shape
        scales = [rotation.scale for rotation in shape.rotations] + [1.0, 1.0]
        return (
            f"embed<{self.embedding.template}>", (count, 1, 1), 256, self.embedding.pointers, _address(self.state),
            _address(self.x), _Int(shape.hidden), _Float(shape.embedding_scale), _address(self._rotation),
            _address(self._frequencies), _Int(self._half), _Int(self._tables), _Float(scales[0]), _Float(scales[1]),
        )  # fmt: skip

    def _attend_call(self, index: int, count: int, qkv: Tensor, out: Tensor) -> tuple[str, Dim, int, _Attention]:
        shape, layer = self.shape, self.shape.layers[index]
        rotation = None
        if layer.rotation >= 0 and self._half:
            rotation = _pointer(self._rotation) + 4 * 2 * self._half * count * layer.rotation
        attention = _Attention(
            state=_pointer(self.state),
            qkv=_pointer(qkv),
            query_norm=None if layer.query_norm is None else _pointer(self.norms[layer.query_norm]),
            key_norm=None if layer.key_norm is None else _pointer(self.norms[layer.key_norm]),
            rotation=rotation,
            out=_pointer(out),
            parts=_pointer(self._parts),
            arrived=_pointer(self._arrived),
            layer=index,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            rotary=2 * self._half,
            window=layer.window,
            epsilon=shape.epsilon,
            scale=shape.attention_scale,
            cap=shape.attention_cap,
        )
        return self._attend_name(count == 1), (self._units, self._splits(count), count), 256, attention

    def _attend_name(self, is_single: bool) -> str:
        return f"attend<{self.shape.dimensions}, {self._at_once}, {str(is_single).lower()}>"

    def _prompt_names(self) -> list[str]:
        return [self._attend_name(False), f"append<{self.shape.dimensions}>"]

    def _dequantize_name(self, weight: Fragments) -> str:
        return f"dequantize<{weight.template}>"

    def dequantizing(self, weight: Fragments, start: int, tiles: int, out: Tensor) -> Launch:
        """Return the launch that writes some tiles of a weight, bf16 [tiles * 16, K], into ``out``."""
        across = max(1, min(weight.codes.shape[1] // 4, 4 * self._processors // tiles))
        args = (weight.pointers, _Int(start), _Int(weight.width), _address(out))
        return self.module.launch(self._dequantize_name(weight), (tiles, across, 1), 128, *args, overlaps=False)


class Slabs:
    """Products of several vectors at once, on weights dequantized a slab at a time."""

    def __init__(self, step: Recorder) -> None:
        self._step = step
        widest = max(ROWS * weight.width for weight in step.fragments())
        self._slab = torch.empty(max(SLAB_BYTES // 2, widest), dtype=torch.bfloat16, device=step.device)
        self._launches = {id(weight): self._of(weight) for weight in step.fragments()}

    def product(self, weights: Sequence[Fragments], x: Tensor) -> Tensor:
        """Return x [T, K] bf16 times weights one below the other, fp32 [T, N]."""
        return (
            torch.cat([self._product(weight, x) for weight in weights], 1)
            if len(weights) > 1
            else self._product(weights[0], x)
        )

    def _product(self, weight: Fragments, x: Tensor) -> Tensor:
        rows = weight.codes.shape[0] * ROWS
        out = torch.empty(len(x), rows, dtype=torch.float32, device=x.device)
        for launch, start, stop in self._launches[id(weight)]:
            launch()
            slab = self._slab[: (stop - start) * weight.width].view(stop - start, weight.width)
            out[:, start:stop] = torch.mm(x, slab.T, out_dtype=torch.float32)
        if weight.bias is not None:
            out += weight.bias
        if not weight.is_paired:
            return out[:, : weight.rows].contiguous()
        half = out.view(len(x), -1, 2, ROWS // 2).transpose(1, 2).reshape(len(x), 2, -1)
        return half[..., : weight.rows // 2].reshape(len(x), -1)

    def _of(self, weight: Fragments) -> list[tuple[Launch, int, int]]:
        tiles = weight.codes.shape[0]
        at_once = max(1, self._slab.numel() // (ROWS * weight.width))
        starts = range(0, tiles, at_once)
        counts = [min(at_once, tiles - start) for start in starts]
        return [
            (self._step.dequantizing(weight, start, count, self._slab), start * ROWS, (start + count) * ROWS)
            for start, count in zip(starts, counts, strict=True)
        ]


def heads_at_once(group: int, dimensions: int) -> int:
    """Return how many of the ``group`` heads that share a kv head one block of threads takes."""
    largest = max(size for size in range(1, HEADS_AT_ONCE + 1) if group % size == 0)
    return group if largest == 1 and group <= 8 and group * dimensions <= 1024 else largest


def shared_bytes(weight: Fragments, tuning: Tuning) -> int:
    """Return the shared memory of a product: rings of batches, then ``Shared`` as ``product.cuh`` lays it out."""
    steps = steps_of(weight.kind)
    records = 0 if weight.is_whole else steps // weight.per * 8 * (8 if weight.has_zero else 4)
    rings = tuning.warps * tuning.depth * tuning.batch * (512 + records)
    filled = _filled(weight)
    numbers = 2 * filled // (16 * weight.per) + 2 * tuning.warps * ROWS + 2 * tuning.warps
    return rings + 4 * filled + 2 * PAST + tuning.batch * 32 * steps + 4 * numbers


def _filled(weight: Fragments) -> int:
    return math.ceil(weight.width / WIDEST) * WIDEST


def _pointer(array: Tensor) -> int:
    return array.data_ptr()


def _address(array: Tensor) -> ctypes.c_void_p:
    return _Pointer(array.data_ptr())
