"""A Llama-like model whose steps are compiled code on the processor (``native/cpu``). Knows neither files nor texts.

Weights stay packed, activations are 16-bit integers in blocks or fp32: W4A16. What a token gets does not depend on how
many come with it.
"""

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from studio.base.pointers import address, optional
from studio.runtime.decoder.interface import KV_BITS, MOST_TOKENS, Backend, Decoder
from studio.runtime.decoder.kv_size import SPAN, KeyValues
from studio.runtime.decoder.shape import DecoderShape, LayerShape
from studio.runtime.native.products import checked, decoding, weight_of
from studio.runtime.native.structures import Cache, Float, Int, Layer, Model, Pointer, Weight
from studio.runtime.native.tile_codes import LANES
from studio.runtime.native.tiles import WIDTH, Tiles


def is_available() -> bool:
    """Return whether the compiled code is here, building it where it is not."""
    return decoding() is not None


class NativeDecoder(Decoder["NativeCache"]):
    """The weights, laid out in memory for the compiled step."""

    backend = Backend.NATIVE

    def __init__(
        self,
        shape: DecoderShape,
        tiles: Mapping[str, Tiles],
        norms: Mapping[str, Tensor],
        context: int,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        """``tiles``: every weight of ``shape.weights()``; ``norms``: every norm's weight, 1-D, of any float dtype.

        Raises RuntimeError where there is no compiled code, ValueError for weights or norms of another shape.
        """
        lib = decoding()
        if lib is None:
            raise RuntimeError("the compiled decoder is not available")
        self.shape, self.context, self.stop_ids = shape, context, stop_ids
        self.vocabulary = shape.vocabulary
        # At 4 bits two halves of a span of dimensions share bytes.
        self.kv_bits = KV_BITS if shape.head_dim % SPAN == 0 else KV_BITS[:2]
        self.weight_bytes = sum(each.nbytes for each in {id(each): each for each in tiles.values()}.values())
        self._decode = lib.decode
        self._kept: list[object] = [tiles]  # what the structures point to
        self._norms = {name: self._own(norm.float() + shape.norm_plus) for name, norm in norms.items()}
        self.weight_bytes += sum(norm.nbytes for norm in self._norms.values())
        self._tiles = tiles
        layers = (Layer * len(shape.layers))(*map(self._layer, shape.layers))
        self._kept.append(layers)
        half = len(shape.rotations[0].frequencies) if shape.rotations else 0
        frequencies = [address(self._own(turn.frequencies), torch.float32, half) for turn in shape.rotations]
        self._model = Model(
            layers=len(shape.layers),
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            intermediate_size=shape.intermediate_size,
            vocabulary=shape.vocabulary,
            activation=shape.activation,
            rotary=2 * half,
            epsilon=shape.epsilon,
            embedding_scale=shape.embedding_scale,
            attention_scale=shape.attention_scale,
            attention_cap=shape.attention_cap,
            logit_cap=shape.logit_cap,
            rotation_scale=(Float * 2)(*(rotation.scale for rotation in shape.rotations)),
            frequencies=(Pointer * 2)(*frequencies),
            layer=ctypes.addressof(layers),
            embedding=self._weights((shape.embedding,), [shape.vocabulary], shape.hidden),
            head=self._weights((shape.head,), [shape.vocabulary], shape.hidden),
            final_norm=self._norm(shape.final_norm, shape.hidden),
        )

    @property
    def step_bytes(self) -> int:
        looked_up = {self.shape.embedding} - {self.shape.head}
        return self.weight_bytes - sum(self._tiles[name].nbytes for name in looked_up)

    def kv_bytes(self, positions: int, bits: int = 16) -> int:
        return KeyValues(len(self.shape.layers), self.shape.kv_heads, self.shape.head_dim).nbytes(positions, bits)

    def begin(self, positions: int, bits: int = 16) -> "NativeCache":
        return NativeCache(self.shape, positions, bits)

    def step(self, cache: "NativeCache", tokens: Sequence[int]) -> Tensor:
        logits = _empty(self.shape.vocabulary)
        self._run(cache, tokens, logits)
        return logits

    def forward_all(self, cache: "NativeCache", tokens: Sequence[int]) -> Tensor:
        logits = _empty(len(tokens), self.shape.vocabulary)
        self._run(cache, tokens, logits)
        return logits

    def states(self, cache: "NativeCache", tokens: Sequence[int]) -> Tensor:
        """Let tokens join the cache and return the hidden states behind the final norm, fp32 [T, hidden]."""
        states = _empty(len(tokens), self.shape.hidden)
        self._run(cache, tokens, states=states)
        return states

    def _run(
        self, cache: "NativeCache", tokens: Sequence[int], logits: Tensor | None = None, states: Tensor | None = None
    ) -> None:
        """Let tokens (at most 128) join the cache. Fills ``logits`` fp32 [V] of the last or [T, V], and ``states`` fp32
        [T, hidden], the hidden states behind the final norm.

        Raises ValueError when the cache has no room for them or is another model's, MemoryError when there is none.
        """
        count, shape = len(tokens), self.shape
        if cache.heads != (len(shape.layers) * shape.kv_heads, shape.head_dim):
            raise ValueError("the cache is of another model")
        if not 0 < count <= min(MOST_TOKENS, cache.room) or not all(
            0 <= token < self.shape.vocabulary for token in tokens
        ):
            raise ValueError(f"{count} tokens do not fit")
        rows = count if logits is not None and logits.ndim == 2 else 1
        failed = self._decode(
            ctypes.byref(self._model),
            ctypes.byref(cache.pointers()),
            (Int * count)(*tokens),
            Int(count),
            Int(cache.length),
            Pointer(optional(logits, torch.float32, rows * shape.vocabulary)),
            Int(logits is not None and logits.ndim == 2),
            Pointer(optional(states, torch.float32, count * shape.hidden)),
            Int(torch.get_num_threads()),
        )
        checked(failed)
        cache.length += count

    def _layer(self, layer: LayerShape) -> Layer:
        shape = self.shape
        hidden, intermediate_size, own = shape.hidden, shape.intermediate_size, shape.head_dim
        heads, keys = shape.heads * own, shape.kv_heads * own
        return Layer(
            attention_norm=self._norm(layer.attention_norm, hidden),
            mlp_norm=self._norm(layer.mlp_norm, hidden),
            attention_after=self._norm(layer.attention_after, hidden),
            mlp_after=self._norm(layer.mlp_after, hidden),
            query_norm=self._norm(layer.query_norm, own),
            key_norm=self._norm(layer.key_norm, own),
            qkv=self._weights(layer.qkv, [heads, keys, keys], hidden),
            output=self._weights((layer.output,), [hidden], heads),
            gate_up=self._weights(layer.gate_up, [intermediate_size, intermediate_size], hidden),
            down=self._weights((layer.down,), [hidden], intermediate_size),
            qkv_count=len(layer.qkv),
            gate_up_count=len(layer.gate_up),
            window=layer.window,
            rope_index=layer.rotation,
        )

    def _norm(self, name: str | None, width: int) -> int | None:
        """Return the address of a norm's weights."""
        if name is None:
            return None
        norm = self._norms[name]
        if norm.numel() != width:
            raise ValueError(f"{name} has {norm.numel()} numbers instead of {width}")
        return address(norm, torch.float32, width)

    def _weights(self, names: Sequence[str], rows: Sequence[int], width: int) -> int:
        """Return the address of an array of weights that have these ``rows``, or of the one that has all of them."""
        for name, count in zip(names, rows if len(names) > 1 else [sum(rows)], strict=True):
            tiles = self._tiles[name]
            if tiles.rows != count or not tiles.width - WIDTH < width <= tiles.width:
                raise ValueError(f"{name} is [{tiles.rows}, {tiles.width}] instead of [{count}, {width}]")
        array = (Weight * len(names))(*(weight_of(self._tiles[name]) for name in names))
        self._kept.append(array)
        return ctypes.addressof(array)

    def _own(self, numbers: Tensor) -> Tensor:
        """Keep contiguous fp32 numbers, and return them."""
        kept = numbers.to("cpu", torch.float32).contiguous()
        self._kept.append(kept)
        return kept


def _empty(*size: int) -> Tensor:
    return torch.empty(*size, dtype=torch.float32, device="cpu")


class NativeCache:
    """Keys and values of one text, at 16, 8 or 4 bits; memory is taken as positions fill."""

    def __init__(self, shape: DecoderShape, positions: int, bits: int = 16) -> None:
        """``positions``: how many there can be."""
        self.capacity = -(-positions // LANES) * LANES
        self.length = 0
        self.bits = bits
        self.heads = (len(shape.layers) * shape.kv_heads, shape.head_dim)
        """How many there are in all layers, and how wide they are."""
        heads, spans = self.heads[0], -(-shape.head_dim // SPAN)
        self._codes = heads * self.capacity * shape.head_dim * bits // 8
        self._grids = heads * self.capacity * spans * 2 if bits < 16 else 0
        # Zeroed pages are not taken from the system before they are written.
        self.arrays = [torch.zeros(self._codes, dtype=torch.uint8, device="cpu") for _ in range(2)]
        self.arrays += [torch.zeros(max(self._grids, 1), dtype=torch.float16, device="cpu") for _ in range(2)]

    def pointers(self) -> Cache:
        """Return where the arrays lie, which this object must outlive."""
        codes = [address(array, torch.uint8, self._codes) for array in self.arrays[:2]]
        grids = [address(array, torch.float16, self._grids) for array in self.arrays[2:]]
        return Cache(self.bits, self.capacity, *codes, *grids)

    @property
    def nbytes(self) -> int:
        """Bytes of the positions that are filled."""
        return sum(array.nbytes for array in self.arrays) * self.length // self.capacity

    @property
    def room(self) -> int:
        """Positions that are still free."""
        return self.capacity - self.length

    def rewind(self, length: int) -> None:
        """Forget everything from a position on."""
        self.length = min(self.length, length)
