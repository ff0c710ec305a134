"""A Llama-like model whose steps are compiled code on the processor (``native/decode``). Knows neither files nor texts.

Weights stay packed, activations are 16-bit integers in blocks or fp32: W4A16. What a token gets does not depend on how
many come with it.
"""

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from studio.decoder.interface import KV_BITS, MOST_TOKENS, Decoder, Way
from studio.decoder.kv import SPAN, KeyValues
from studio.decoder.shape import DecoderShape, LayerShape
from studio.native.products import Weight, decoding, weight_of
from studio.native.tiles import Tiles

LANES = 16

_Int, _Float, _Pointer = ctypes.c_int32, ctypes.c_float, ctypes.c_void_p


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Pointer) for name in ("attention_norm", "mlp_norm", "attention_after", "mlp_after")),
        *((name, _Pointer) for name in ("query_norm", "key_norm", "qkv", "output", "gate_up", "down")),
        *((name, _Int) for name in ("qkv_count", "gate_up_count", "window", "table")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("layers", "hidden", "heads", "kv_heads", "dimensions", "inner", "vocabulary")),
        *((name, _Int) for name in ("activation", "rotary")),
        *((name, _Float) for name in ("epsilon", "embedding_scale", "attention_scale", "attention_cap", "logit_cap")),
        ("rotation_scale", _Float * 2),
        ("frequencies", _Pointer * 2),
        *((name, _Pointer) for name in ("layer", "embedding", "head", "final_norm")),
    ]


class _Cache(ctypes.Structure):
    _fields_ = [
        *((name, _Int) for name in ("bits", "capacity")),
        *((name, _Pointer) for name in ("keys", "values", "key_grid", "value_grid")),
    ]


def is_available() -> bool:
    """Return whether the compiled code is here, building it where it is not."""
    return decoding() is not None


class NativeDecoder(Decoder["NativeCache"]):
    """The weights, laid out in memory for the compiled step."""

    way = Way.NATIVE

    def __init__(
        self,
        shape: DecoderShape,
        tiles: Mapping[str, Tiles],
        norms: Mapping[str, Tensor],
        context: int,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        """``tiles``: every weight of ``shape.weights()``; ``norms``: every norm's weight, 1-D, of any float dtype.

        Raises RuntimeError where there is no compiled code.
        """
        lib = decoding()
        if lib is None:
            raise RuntimeError("the compiled decoder is not available")
        self.shape, self.context, self.stop_ids = shape, context, stop_ids
        # At 4 bits two halves of a span of dimensions share bytes.
        self.kv_bits = KV_BITS if shape.dimensions % SPAN == 0 else KV_BITS[:2]
        self.weight_bytes = sum(each.nbytes for each in {id(each): each for each in tiles.values()}.values())
        self._decode = lib.decode
        self._kept: list[object] = [tiles]  # what the structures point to
        self._norms = {name: self._own(norm.float() + shape.norm_plus) for name, norm in norms.items()}
        self.weight_bytes += sum(4 * norm.numel() for norm in norms.values())
        self._tiles = tiles
        layers = (_Layer * len(shape.layers))(*map(self._layer, shape.layers))
        self._kept.append(layers)
        frequencies = [self._own(rotation.frequencies) for rotation in shape.rotations]
        self._model = _Model(
            layers=len(shape.layers),
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            dimensions=shape.dimensions,
            inner=shape.inner,
            vocabulary=shape.vocabulary,
            activation=shape.activation,
            rotary=2 * len(shape.rotations[0].frequencies) if shape.rotations else 0,
            epsilon=shape.epsilon,
            embedding_scale=shape.embedding_scale,
            attention_scale=shape.attention_scale,
            attention_cap=shape.attention_cap,
            logit_cap=shape.logit_cap,
            rotation_scale=(_Float * 2)(*(rotation.scale for rotation in shape.rotations)),
            frequencies=(_Pointer * 2)(*frequencies),
            layer=ctypes.addressof(layers),
            embedding=self._weights(shape.embedding),
            head=self._weights(shape.head),
            final_norm=self._norms[shape.final_norm],
        )

    @property
    def step_bytes(self) -> int:
        looked_up = {self.shape.embedding} - {self.shape.head}
        return self.weight_bytes - sum(self._tiles[name].nbytes for name in looked_up)

    def kv_bytes(self, positions: int, bits: int = 16) -> int:
        return KeyValues(len(self.shape.layers), self.shape.kv_heads, self.shape.dimensions).nbytes(positions, bits)

    def begin(self, positions: int, bits: int = 16) -> "NativeCache":
        return NativeCache(self.shape, positions, bits)

    def step(self, cache: "NativeCache", tokens: Sequence[int]) -> Tensor:
        logits = torch.empty(self.shape.vocabulary)
        self._run(cache, tokens, logits)
        return logits

    def judge(self, cache: "NativeCache", tokens: Sequence[int]) -> Tensor:
        logits = torch.empty(len(tokens), self.shape.vocabulary)
        self._run(cache, tokens, logits)
        return logits

    def states(self, cache: "NativeCache", tokens: Sequence[int]) -> Tensor:
        """Let tokens join the cache and return the hidden states behind the final norm, fp32 [T, hidden]."""
        states = torch.empty(len(tokens), self.shape.hidden)
        self._run(cache, tokens, states=states)
        return states

    def _run(
        self, cache: "NativeCache", tokens: Sequence[int], logits: Tensor | None = None, states: Tensor | None = None
    ) -> None:
        """Let tokens (at most 128) join the cache. Fills ``logits`` fp32 [V] of the last or [T, V], and ``states`` fp32
        [T, hidden], the hidden states behind the final norm.

        Raises ValueError when the cache has no room for them, MemoryError when there is none.
        """
        count = len(tokens)
        if not 0 < count <= min(MOST_TOKENS, cache.room) or not all(
            0 <= token < self.shape.vocabulary for token in tokens
        ):
            raise ValueError(f"{count} tokens do not fit")
        failed = self._decode(
            ctypes.byref(self._model),
            ctypes.byref(cache.pointers),
            (_Int * count)(*tokens),
            _Int(count),
            _Int(cache.length),
            None if logits is None else _Pointer(logits.data_ptr()),
            _Int(logits is not None and logits.ndim == 2),
            None if states is None else _Pointer(states.data_ptr()),
            _Int(torch.get_num_threads()),
        )
        if failed:
            raise MemoryError("no memory for a step")
        cache.length += count

    def _layer(self, layer: LayerShape) -> _Layer:
        def norm(name: str | None) -> int | None:
            return None if name is None else self._norms[name]

        return _Layer(
            attention_norm=norm(layer.attention_norm),
            mlp_norm=norm(layer.mlp_norm),
            attention_after=norm(layer.attention_after),
            mlp_after=norm(layer.mlp_after),
            query_norm=norm(layer.query_norm),
            key_norm=norm(layer.key_norm),
            qkv=self._weights(*layer.qkv),
            output=self._weights(layer.output),
            gate_up=self._weights(*layer.gate_up),
            down=self._weights(layer.down),
            qkv_count=len(layer.qkv),
            gate_up_count=len(layer.gate_up),
            window=layer.window,
            table=layer.rotation,
        )

    def _weights(self, *names: str) -> int:
        """Return the address of an array of weights."""
        array = (Weight * len(names))(*(weight_of(self._tiles[name]) for name in names))
        self._kept.append(array)
        return ctypes.addressof(array)

    def _own(self, numbers: Tensor) -> int:
        """Keep fp32 numbers and return their address."""
        kept = numbers.float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()


class NativeCache:
    """Keys and values of one text, at 16, 8 or 4 bits; memory is taken as positions fill."""

    def __init__(self, shape: DecoderShape, positions: int, bits: int = 16) -> None:
        """``positions``: how many there can be."""
        self.capacity = -(-positions // LANES) * LANES
        self.length = 0
        self.bits = bits
        heads, spans = len(shape.layers) * shape.kv_heads, -(-shape.dimensions // SPAN)
        numbers = heads * self.capacity * shape.dimensions
        grid = heads * self.capacity * spans * 2 if bits < 16 else 0
        # Zeroed pages are not taken from the system before they are written.
        self._arrays = [torch.zeros(numbers * bits // 8, dtype=torch.uint8) for _ in range(2)]
        self._arrays += [torch.zeros(max(grid, 1), dtype=torch.float16) for _ in range(2)]
        self.pointers = _Cache(bits, self.capacity, *(array.data_ptr() for array in self._arrays))

    @property
    def nbytes(self) -> int:
        """Bytes of the positions that are filled."""
        return sum(array.nbytes for array in self._arrays) * self.length // self.capacity

    @property
    def room(self) -> int:
        """Positions that are still free."""
        return self.capacity - self.length

    def rewind(self, length: int) -> None:
        """Forget everything from a position on."""
        self.length = min(self.length, length)
