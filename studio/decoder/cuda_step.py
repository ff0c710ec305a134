"""One token's step on CUDA: the weights on the device, what a step writes to, the tasks that one kernel does in turn.

Knows neither caches nor graphs.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import studio.native
from studio.decoder.interface import MOST_TOKENS
from studio.decoder.shape import DecoderShape, LayerShape
from studio.native.fragments import ROWS, Fragments, WeightPointers, can_join, fragments_of, steps_of
from studio.native.nvrtc import Dim, Launch, Module, shared_memory
from studio.packing import PackedTensor

SOURCE = Path(studio.native.__file__).parent / "decode_cuda" / "step.cu"
STORED, ADDED, GATED = range(3)
"""What becomes of a product, in the order of ``product.cuh``."""
ATTEND, JOIN = -1, -2
"""Tasks that are no products, as in ``step.cu``."""
WIDEST, PAST = 128, 80
"""Of ``product.cuh``: inputs are filled up to a multiple; bytes between arrays."""
HEADS_AT_ONCE = 4
"""Query heads that a block of threads attends with, so that they share the keys they read."""
MOST_DIMENSIONS = 256
"""Of a head: eight to a lane of a warp."""
STATIC_BYTES = 2048
"""Shared memory that the step takes beside what it is given."""

Read = Callable[[str], tuple[PackedTensor | Tensor, Tensor | None]]
"""A weight's name -> the weight [N, K] and its bias [N]."""
_Int, _Float, _Pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p


@dataclass(frozen=True)
class Tuning:
    """How the step is spread over a multiprocessor."""

    warps: int = 16
    batch: int = 4
    """Blocks of codes that a warp asks for at once."""
    depth: int = 3
    """Batches that it has under way, at most: as many as there is shared memory for."""


class _Product(ctypes.Structure):
    _fields_ = [
        ("weight", WeightPointers),
        *((name, _Pointer) for name in ("x", "up", "norm", "out")),
        *((name, _Float) for name in ("epsilon", "cap")),
        *((name, _Int) for name in ("width", "output")),
    ]


class _Attention(ctypes.Structure):
    _fields_ = [
        *(
            (name, _Pointer)
            for name in ("state", "qkv", "query_norm", "key_norm", "rotation", "out", "parts", "arrived")
        ),
        *((name, _Int) for name in ("layer", "heads", "kv_heads", "rotary", "window", "slices", "splits")),
        *((name, _Float) for name in ("epsilon", "scale", "cap")),
    ]


class _Join(ctypes.Structure):
    _fields_ = [*((name, _Pointer) for name in ("x", "branch", "norm")), ("width", _Int), ("epsilon", _Float)]


class _Parts(ctypes.Union):
    _fields_ = [("product", _Product), ("attention", _Attention), ("join", _Join)]


class _Task(ctypes.Structure):
    _fields_ = [("what", _Int), ("meets", _Int), ("parts", _Parts)]


@dataclass(frozen=True)
class LayerWeights:
    """A layer's weights: fused where their schemes allow, else one behind the other."""

    qkv: list[Fragments]
    output: Fragments
    gate_up: list[Fragments]
    """One in pairs, or two."""
    down: Fragments


class CudaStep:
    """The weights on the device, what a step writes to, and the kernels."""

    def __init__(self, shape: DecoderShape, read: Read, norms: Mapping[str, Tensor], device: torch.device) -> None:
        """Raises RuntimeError where a step of this shape does not fit the device."""
        self.shape, self.device = shape, device
        self.processors: int = torch.cuda.get_device_properties(device).multi_processor_count
        self._shared_limit = shared_memory() - STATIC_BYTES
        self.norms = {name: norm.to(device).float() + shape.norm_plus for name, norm in norms.items()}
        self.embedding = self._weights(read, [shape.embedding])[0]
        is_tied = shape.head == shape.embedding
        self.head = self.embedding if is_tied else self._weights(read, [shape.head])[0]
        self.layers = [self._layer(read, layer) for layer in shape.layers]
        self._buffers()
        self.record(Tuning())

    def record(self, tuning: Tuning) -> None:
        """Compile what the step needs and make its launches."""
        shape, products = (
            self.shape,
            [each for each in self.fragments() if each is not self.embedding or each is self.head],
        )
        self.tuning, self._sorts = tuning, list(dict.fromkeys(weight.sort for weight in products))
        self._record_bytes = max(weight.record_bytes for weight in products)
        behind = max(*(self._inputs_bytes(weight) for weight in products), self._scratch_bytes)
        ring = tuning.warps * tuning.batch * (512 + self._record_bytes)
        depth = min(tuning.depth, (self._shared_limit - behind) // ring)
        if depth < 1:
            raise RuntimeError(f"a step needs {behind + ring} bytes of shared memory, there are {self._shared_limit}")
        self._shared = depth * ring + behind
        rounds = max(-(-_filled(weight) // (8 * 32 * tuning.warps)) for weight in products)
        numbers = {
            "WARPS": tuning.warps,
            "BATCH": tuning.batch,
            "DEPTH": depth,
            "ROUNDS": rounds,
            "ACTIVATION": shape.activation,
        }
        heads = f"{shape.dimensions}, {self._at_once}"
        self._step_name = f"step<{heads}, {self._record_bytes}, {', '.join(self._sorts)}>"
        self._attend_name, self._append_name = f"attend<{heads}>", f"append<{shape.dimensions}>"
        self._embed_name = f"embed<{self.embedding.sort}>"
        slabs = dict.fromkeys(f"dequantize<{weight.sort}>" for weight in self.fragments())
        names = [self._step_name, self._attend_name, self._append_name, self._embed_name, *slabs]
        self._module = Module(SOURCE, names, [f"{name}={number}" for name, number in numbers.items()])
        tasks = self._tasks()
        self.embed_one, self.step, self.last = self._embedding(1), self._doing(tasks), self._doing(tasks[-1:])

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

    def _layer(self, read: Read, layer: LayerShape) -> LayerWeights:
        return LayerWeights(
            qkv=self._weights(read, layer.qkv),
            output=self._weights(read, [layer.output])[0],
            gate_up=self._weights(read, layer.gate_up, is_paired=True),
            down=self._weights(read, [layer.down])[0],
        )

    def _weights(self, read: Read, names: Sequence[str], is_paired: bool = False) -> list[Fragments]:
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
        group = shape.heads // shape.kv_heads
        self._at_once = heads_at_once(group, shape.dimensions)
        self._units = shape.heads // self._at_once

        def numbers(*size: int) -> Tensor:
            return torch.zeros(*size, dtype=torch.float32, device=self.device)

        self.state = torch.zeros(4 + MOST_TOKENS, dtype=torch.int64, device=self.device)
        self.x = numbers(MOST_TOKENS, shape.hidden)
        self._qkv = numbers((shape.heads + 2 * shape.kv_heads) * shape.dimensions)
        self._heads = numbers(shape.heads * shape.dimensions)
        self._gate, self._up = numbers(shape.inner), numbers(shape.inner)
        self._branch = numbers(shape.hidden)
        self.logits = numbers(shape.vocabulary)
        self._rotation = numbers(max(self._tables * self._half, 1) * MOST_TOKENS * 2)
        frequencies = [rotation.frequencies.float().cpu() for rotation in shape.rotations]
        self._frequencies = torch.cat([torch.zeros(0), *frequencies]).to(self.device)
        most = max(self._units * MOST_TOKENS, self.processors)
        self._parts = numbers(most * self._at_once * (shape.dimensions + 2))
        self._arrived = torch.zeros(self._units * MOST_TOKENS, dtype=torch.int32, device=self.device)
        self._meetings = torch.zeros(1, dtype=torch.int32, device=self.device)

    # ---- the step ----

    def _tasks(self) -> list[_Task]:
        shape, tasks = self.shape, list[_Task]()
        for index, (layer, weights) in enumerate(zip(shape.layers, self.layers, strict=True)):
            start = 0
            for part in weights.qkv:
                tasks.append(
                    self._product(part, self.x, self._qkv[start:], STORED, norm=layer.attention_norm, meets=False)
                )
                start += part.rows
            tasks[-1].meets = 1
            attention = self._attention(index, 1, self._qkv, self._heads)
            tasks.append(_Task(ATTEND, 1, _Parts(attention=attention)))
            tasks += self._branch_tasks(weights.output, self._heads, None, layer.attention_after)
            is_fused = len(weights.gate_up) == 1
            outs = [self._gate] if is_fused else [self._gate, self._up]
            for part, out in zip(weights.gate_up, outs, strict=True):
                tasks.append(
                    self._product(part, self.x, out, GATED if is_fused else STORED, norm=layer.mlp_norm, meets=False)
                )
            tasks[-1].meets = 1
            tasks += self._branch_tasks(weights.down, self._gate, None if is_fused else self._up, layer.mlp_after)
        head = self._product(
            self.head, self.x, self.logits, STORED, norm=shape.final_norm, cap=shape.logit_cap, meets=False
        )
        return [*tasks, head]

    def _branch_tasks(self, weight: Fragments, x: Tensor, up: Tensor | None, norm: str | None) -> list[_Task]:
        """Return what adds a product to the residual, through the norm behind it where there is one."""
        if norm is None:
            return [self._product(weight, x, self.x, ADDED, up=up)]
        args = (self.x.data_ptr(), self._branch.data_ptr(), self.norms[norm].data_ptr())
        join = _Join(*args, self.shape.hidden, self.shape.epsilon)
        return [self._product(weight, x, self._branch, STORED, up=up), _Task(JOIN, 1, _Parts(join=join))]

    def _product(
        self, weight: Fragments, x: Tensor, out: Tensor, output: int, up: Tensor | None = None, norm: str | None = None,
        cap: float = 0.0, meets: bool = True,
    ) -> _Task:  # fmt: skip
        product = _Product(
            weight=weight.pointers,
            x=x.data_ptr(),
            up=None if up is None else up.data_ptr(),
            norm=None if norm is None else self.norms[norm].data_ptr(),
            out=out.data_ptr(),
            epsilon=self.shape.epsilon,
            cap=cap,
            width=weight.width,
            output=output,
        )
        return _Task(self._sorts.index(weight.sort), int(meets), _Parts(product=product))

    def _attention(self, index: int, count: int, qkv: Tensor, out: Tensor) -> _Attention:
        shape, layer = self.shape, self.shape.layers[index]
        rotates = layer.rotation >= 0 and self._half > 0
        return _Attention(
            state=self.state.data_ptr(),
            qkv=qkv.data_ptr(),
            query_norm=None if layer.query_norm is None else self.norms[layer.query_norm].data_ptr(),
            key_norm=None if layer.key_norm is None else self.norms[layer.key_norm].data_ptr(),
            rotation=self._rotation.data_ptr() + 4 * 2 * self._half * count * layer.rotation if rotates else None,
            out=out.data_ptr(),
            parts=self._parts.data_ptr(),
            arrived=self._arrived.data_ptr(),
            layer=index,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            rotary=2 * self._half,
            window=layer.window,
            slices=shape.heads // shape.kv_heads // self._at_once,
            splits=self._splits(count),
            epsilon=shape.epsilon,
            scale=shape.attention_scale,
            cap=shape.attention_cap,
        )

    def _splits(self, count: int) -> int:
        """Return how many blocks of threads share the positions of a token's heads, of ``count`` tokens."""
        return max(1, self.processors // (self._units * count))

    def _doing(self, tasks: Sequence[_Task]) -> Launch:
        """Return the launch that does these tasks."""
        products = [task.parts.product.weight for task in tasks if task.what >= 0]
        lists = [bytes((_Task * len(tasks))(*tasks)), bytes((WeightPointers * len(products))(*products))]
        kept = [torch.frombuffer(bytearray(each), dtype=torch.uint8).to(self.device) for each in lists]
        self._kept = [*getattr(self, "_kept", []), *kept]
        args = (_address(kept[0]), _Int(len(tasks)), _address(kept[1]), _Int(len(products)), _address(self._meetings))
        grid = (self.processors, 1, 1)
        return self._module.launch(
            self._step_name, grid, 32 * self.tuning.warps, *args, shared=self._shared, is_cooperative=True
        )

    # ---- the same for several tokens ----

    def embed(self, count: int) -> Tensor:
        """Fill the rotations for the tokens that the state names, and return their embeddings, fp32 [T, hidden]."""
        self._embedding(count)()
        return self.x[:count]

    def attend(self, index: int, qkv: Tensor) -> Tensor:
        """Let keys and values of tokens [T, rows] join the cache; return what their heads found, fp32 [T, rows]."""
        count, shape = len(qkv), self.shape
        out = torch.empty(count, shape.heads * shape.dimensions, dtype=torch.float32, device=self.device)
        attention = self._attention(index, count, qkv, out)
        self._module.launch(self._append_name, (shape.kv_heads, count, 1), 32, attention)()
        grid, threads = (self._units, attention.splits, count), 32 * self.tuning.warps
        self._module.launch(self._attend_name, grid, threads, attention, shared=self._scratch_bytes)()
        return out

    def dequantizing(self, weight: Fragments, start: int, tiles: int, out: Tensor) -> Launch:
        """Return the launch that writes some tiles of a weight, bf16 [tiles * 16, K], into ``out``."""
        across = max(1, min(weight.codes.shape[1] // 4, 8 * self.processors // tiles))
        args = (weight.pointers, _Int(start), _Int(weight.width), _address(out))
        return self._module.launch(f"dequantize<{weight.sort}>", (tiles, across, 1), 128, *args)

    def _embedding(self, count: int) -> Launch:
        shape = self.shape
        scales = [rotation.scale for rotation in shape.rotations] + [1.0, 1.0]
        grid: Dim = (count, 1, 1)
        return self._module.launch(
            self._embed_name, grid, 512, self.embedding.pointers, _address(self.state), _address(self.x),
            _Int(shape.hidden), _Float(shape.embedding_scale), _address(self._rotation), _address(self._frequencies),
            _Int(self._half), _Int(self._tables), _Float(scales[0]), _Float(scales[1]), _address(self._meetings),
        )  # fmt: skip

    # ---- shared memory ----

    def _inputs_bytes(self, weight: Fragments) -> int:
        """``Shared`` of ``product.cuh``."""
        filled, warps, steps = _filled(weight), self.tuning.warps, steps_of(weight.kind)
        numbers = 2 * filled // (16 * weight.per) + 4 * (warps * ROWS + ROWS) + 2 * warps
        return 4 * filled + 2 * PAST + self.tuning.batch * 32 * steps + 4 * numbers

    @property
    def _scratch_bytes(self) -> int:
        """``Scratch`` of ``attention.cuh``."""
        heads, dimensions, warps = self._at_once, self.shape.dimensions, self.tuning.warps
        numbers = heads * dimensions + dimensions + 2 * warps * heads + warps // 2 * heads * dimensions
        return 4 * numbers + 4 * dimensions + 64


def takes(shape: DecoderShape) -> bool:
    """Return whether the kernels know this shape on the current device."""
    widths = (shape.hidden, shape.inner, shape.heads * shape.dimensions)
    fits = shape.dimensions <= MOST_DIMENSIONS and all(width % 8 == 0 for width in widths)
    return fits and torch.cuda.get_device_capability() >= (8, 0)


def heads_at_once(group: int, dimensions: int) -> int:
    """Return how many of the ``group`` heads that share a kv head one block of threads takes."""
    largest = max(size for size in range(1, HEADS_AT_ONCE + 1) if group % size == 0)
    return group if largest == 1 and group <= 8 and group * dimensions <= 512 else largest


def _filled(weight: Fragments) -> int:
    return -(-weight.width // WIDEST) * WIDEST


def _address(array: Tensor) -> ctypes.c_void_p:
    return _Pointer(array.data_ptr())
