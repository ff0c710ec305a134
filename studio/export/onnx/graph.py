"""A Llama-like decoder built from ONNX's operators and those that onnxruntime adds. Knows no files and no weights.

Inputs and outputs are those that transformers.js and onnxruntime's GenAI feed: ``input_ids``, ``attention_mask`` and
``position_ids`` i64 [batch, tokens], the mask as long as all that was read; ``past_key_values.N.key`` and ``.value``
f32 [batch, kv heads, read, head] of every layer; ``logits`` f32 [batch, tokens, vocabulary], and ``present.N.key`` and
``.value`` with what was read now.

onnxruntime's own operators (domain ``com.microsoft``) are taken where its web builds have them too: MatMulNBits,
RotaryEmbedding, GroupQueryAttention. GatherBlockQuantized is not among them (1.31): rows of a packed embedding are put
together from plain operators. What a token sees is said by a bias of scores alone, for windows mean one more or less
token from release to release, and lengths know no padding on the left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from studio.export.onnx import protobuf
from studio.export.onnx.arrays import Settings
from studio.export.onnx.protobuf import TYPES, Attribute
from studio.runtime.decoder.llama_like import ACTIVATIONS
from studio.runtime.decoder.shape import DecoderShape, LayerShape

ONNX, MICROSOFT = "", "com.microsoft"
OPSETS = {ONNX: 21, MICROSOFT: 1}
PRODUCER = "quantization-studio"
BATCH, TOKENS, TOTAL, PAST = "batch_size", "sequence_length", "total_sequence_length", "past_sequence_length"
"""Sizes that are not known before; transformers.js makes the first keys and values by these names."""
ACCURACY = 4
"""``accuracy_level``: activations are rounded to 8 bits in blocks where onnxruntime has kernels for that, as GenAI's
own builder asks it of processors. In 32 bits (1) 8-bit weights are unpacked for every token, 50 times slower."""
MASKED = -65504.0
"""What a score is lowered by that does not count: fp16's lowest, so that a row of such alone is still a mean."""
DTYPES = {"float32": "F32", "int32": "I32", "int64": "I64"}
"""Of the graph's own constants, by numpy's names."""


class Weights(Protocol):
    """The numbers that the graph is drawn over."""

    def tensor(self, called: str, name: str, part: str, shape: tuple[int, ...] | None) -> bytes:
        """Return the ``TensorProto`` of a part of a weight, or, part ``""``, of a tensor that is kept.

        ``called``: what it is in the graph; ``shape``: as it is read there, where that is not how it is held.
        """
        ...

    def settings(self, name: str) -> Settings | None:
        """Return how a weight is held, None for a tensor that is kept. Raises KeyError for one that is not there."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, before it was packed."""
        ...

    def dtype(self, name: str, part: str) -> str:
        """Return the dtype of a part of a weight, or of a tensor that is kept, by safetensors' names."""
        ...

    def __contains__(self, name: str) -> bool: ...


@dataclass(frozen=True)
class _Inputs:
    """What every layer reads, by name."""

    biases: Mapping[int, str]
    """By a layer's window: f32 [batch, 1, tokens, all]."""
    turns: tuple[tuple[str, str], ...]
    """Cosines and sines of each rotation, f32 [batch * tokens, rotating dimensions / 2]."""
    places: str
    """Which row of these a token has, i64 [batch, tokens]."""
    last: str
    """Of each sequence the last place that is there, i32 [batch]."""
    total: str
    """All tokens so far, i32 []."""


def model_of(shape: DecoderShape, weights: Weights) -> bytes:
    """Return the ``ModelProto`` of a decoder."""
    return _Builder(shape, weights).model()


class _Builder:
    """Makes one graph. What a method returns is the name of what is computed."""

    def __init__(self, shape: DecoderShape, weights: Weights) -> None:
        self.shape, self.weights = shape, weights
        self.nodes: list[bytes] = []
        self.tensors: dict[str, bytes] = {}
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []
        self._there: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._read: dict[str, str] = {}

    def model(self) -> bytes:
        shape = self.shape
        for name, length in (("input_ids", TOKENS), ("attention_mask", TOTAL), ("position_ids", TOKENS)):
            self.inputs.append(protobuf.value(name, "I64", (BATCH, length)))
        self.outputs.append(protobuf.value("logits", "F32", (BATCH, TOKENS, shape.vocabulary)))
        given = self._given()
        hidden = self._looked_up(shape.embedding, "input_ids")
        if shape.embedding_scale != 1:
            hidden = self.times(hidden, shape.embedding_scale)
        for place, layer in enumerate(shape.layers):
            hidden = self._layer(place, layer, hidden, given)
        logits = self.linear(self._norm(hidden, shape.final_norm), shape.head)
        if shape.logit_cap:
            logits = self.times(self.op("Tanh", self.times(logits, 1 / shape.logit_cap)), shape.logit_cap)
        self.op("Identity", logits, outputs=["logits"])
        graph = protobuf.graph("decoder", self.nodes, list(self.tensors.values()), self.inputs, self.outputs)
        return protobuf.model(graph, OPSETS, PRODUCER)

    # nodes and constants

    def op(
        self, kind: str, *inputs: str, domain: str = ONNX, outputs: list[str] | None = None, **attributes: Attribute
    ) -> str:
        """Add a node and return its first output."""
        named = [f"{kind}_{len(self.nodes)}"] if outputs is None else outputs
        self.nodes.append(protobuf.node(kind, inputs, named, domain, **attributes))
        return named[0]

    def own(self, kind: str, *inputs: str, outputs: list[str] | None = None, **attributes: Attribute) -> str:
        """Add a node of onnxruntime's own."""
        return self.op(kind, *inputs, domain=MICROSOFT, outputs=outputs, **attributes)

    def constant(self, numbers: object, dtype: type = np.int64) -> str:
        """Return the name of numbers that the graph itself has, equal ones once."""
        array: np.ndarray = np.asarray(numbers, dtype)
        kind, raw = DTYPES[array.dtype.name], array.tobytes()
        key = (kind, array.shape, raw)
        if key not in self._there:
            name = self._there[key] = f"constant_{len(self._there)}"
            self.tensors[name] = protobuf.tensor(name, kind, array.shape, raw)
        return self._there[key]

    def part(self, tensor: str, part: str, shape: tuple[int, ...] | None = None, use: str = "") -> str:
        """Return the name of a weight's numbers as they lie in the file."""
        name = "/".join(each for each in (tensor, part, use) if each)
        if name not in self.tensors:
            self.tensors[name] = self.weights.tensor(name, tensor, part, shape)
        return name

    def floats(self, tensor: str, part: str = "") -> str:
        """Return numbers of a weight as f32; onnxruntime makes them so when it loads the graph."""
        name = self.part(tensor, part)
        if self.weights.dtype(tensor, part) == "F32":
            return name
        if name not in self._read:
            self._read[name] = self._as(name, "F32")
        return self._read[name]

    def _as(self, name: str, dtype: str) -> str:
        return self.op("Cast", name, to=TYPES[dtype])

    # weights

    def linear(self, hidden: str, tensor: str) -> str:
        """Return ``hidden`` [batch, tokens, K] times a weight [N, K], and its bias where there is one."""
        rows, width = self.weights.shape(tensor)
        settings = self.weights.settings(tensor)
        if settings is None:
            turned = self.op("Transpose", self.floats(tensor), perm=[1, 0])
            product = self.op("MatMul", hidden, turned)
        else:
            blocks = (rows, width // settings.block_size, settings.block_size * settings.bits // 8)
            inputs = [hidden, self.part(tensor, "codes", blocks), self.floats(tensor, "scale")]
            if settings.zero_point is not None:
                inputs.append(self.part(tensor, "zero_point"))
            sizes: dict[str, Attribute] = {"K": width, "N": rows}
            sizes |= {"bits": settings.bits, "block_size": settings.block_size, "accuracy_level": ACCURACY}
            product = self.own("MatMulNBits", *inputs, outputs=None, **sizes)
        bias = f"{tensor.removesuffix('.weight')}.bias"
        return self.op("Add", product, self.floats(bias)) if bias in self.weights else product

    def _looked_up(self, tensor: str, ids: str) -> str:
        """Return rows of a weight, f32 [batch, tokens, K]: of a packed one its parts, put together."""
        settings = self.weights.settings(tensor)
        if settings is None:
            return self._as(self.op("Gather", self.part(tensor, ""), ids, axis=0), "F32")
        width = self.weights.shape(tensor)[1]
        blocks = width // settings.block_size
        codes, scale = (self._rows(tensor, part, ids) for part in ("codes", "scale"))
        grouped = self._reshaped(self._unpacked(codes, settings.bits), [0, 0, blocks, settings.block_size])
        if settings.zero_point is None:
            zero = self.constant(2 ** (settings.bits - 1), np.float32)
        else:
            zero = self._rows(tensor, "zero_point", ids)
            if settings.zero_point == "U8":
                zero = self._first(self._unpacked(zero, settings.bits), blocks)
            zero = self._reshaped(zero, [0, 0, blocks, 1])
        values = self.op("Mul", self.op("Sub", grouped, zero), self._reshaped(scale, [0, 0, blocks, 1]))
        return self._reshaped(values, [0, 0, width])

    def _rows(self, tensor: str, part: str, ids: str) -> str:
        """Return rows of a weight's part as f32. Scales are so before, as products have them: not every GPU looks up
        fp16."""
        if self.weights.dtype(tensor, part) != "U8":
            return self.op("Gather", self.floats(tensor, part), ids, axis=0)
        use = "rows" if part == "codes" else ""  # in two dimensions here, in three where it is multiplied
        return self._as(self.op("Gather", self.part(tensor, part, None, use), ids, axis=0), "F32")

    def _unpacked(self, octets: str, bits: int) -> str:
        """Return the codes of bytes, the lowest first, all f32: operators on bits are in few builds."""
        if bits == 8:
            return octets
        parts, rest = [], octets
        for _ in range(8 // bits - 1):
            high = self.op("Floor", self.times(rest, 2.0**-bits))
            parts.append(self.op("Sub", rest, self.times(high, 2.0**bits)))
            rest = high
        apart = [self.op("Unsqueeze", part, self.constant([3])) for part in (*parts, rest)]
        return self._reshaped(self.op("Concat", *apart, axis=3), [0, 0, -1])

    def _first(self, found: str, count: int) -> str:
        """Return the first numbers of each row, without what fills its last byte."""
        return self.op("Slice", found, self.constant([0]), self.constant([count]), self.constant([2]))

    def _reshaped(self, found: str, sizes: list[int]) -> str:
        return self.op("Reshape", found, self.constant(sizes))

    # arithmetic

    def times(self, name: str, factor: float) -> str:
        return self.op("Mul", name, self.constant(factor, np.float32))

    def _norm(self, hidden: str, tensor: str) -> str:
        weight = self.floats(tensor)
        if self.shape.norm_plus:
            weight = self.op("Add", weight, self.constant(self.shape.norm_plus, np.float32))
        return self.op("SimplifiedLayerNormalization", hidden, weight, axis=-1, epsilon=float(self.shape.epsilon))

    # what every layer reads

    def _given(self) -> _Inputs:
        zero, one = self.constant(0), self.constant(1)
        total = self.op("Gather", self.op("Shape", "attention_mask"), one, axis=0)
        tokens = self.op("Gather", self.op("Shape", "input_ids"), one, axis=0)
        batch = self.op("Gather", self.op("Shape", "input_ids"), self.constant([0]), axis=0)
        past = self.op("Sub", total, tokens)
        keys = self.op("Unsqueeze", self.op("Range", zero, total, one), self.constant([0, 1, 2]))
        queries = self.op("Unsqueeze", self.op("Range", past, total, one), self.constant([0, 1, 3]))
        there = self.op("Unsqueeze", self._as("attention_mask", "BOOL"), self.constant([1, 2]))
        sees = self.op("And", self.op("LessOrEqual", keys, queries), there)
        biases = {}
        for window in dict.fromkeys(layer.window for layer in self.shape.layers):
            near = sees
            if window:
                nearest = self.op("Add", queries, self.constant(-window))
                near = self.op("And", sees, self.op("Greater", keys, nearest))
            zero_bias, lowered = self.constant(0, np.float32), self.constant(MASKED, np.float32)
            biases[window] = self.op("Where", near, zero_bias, lowered)
        count = self.op("Size", "input_ids")
        places = self.op("Reshape", self.op("Range", zero, count, one), self.op("Shape", "input_ids"))
        last = self.op("Expand", self.op("Sub", total, one), batch)
        turns = tuple(self._turns(place) for place in range(len(self.shape.rotations)))
        return _Inputs(biases, turns, places, self._as(last, "I32"), self._as(total, "I32"))

    def _turns(self, place: int) -> tuple[str, str]:
        """Return cosines and sines of a rotation at the positions."""
        rotation = self.shape.rotations[place]
        frequencies = self.constant(rotation.frequencies.float().numpy().reshape(1, -1), np.float32)
        where = self._as(self._reshaped("position_ids", [-1, 1]), "F32")
        angles = self.op("Mul", where, frequencies)
        cos, sin = self.op("Cos", angles), self.op("Sin", angles)
        if rotation.scale != 1:
            cos, sin = self.times(cos, rotation.scale), self.times(sin, rotation.scale)
        return cos, sin

    # a layer

    def _layer(self, place: int, layer: LayerShape, hidden: str, given: _Inputs) -> str:
        found = self._attention(place, layer, self._norm(hidden, layer.attention_norm), given)
        if layer.attention_after is not None:
            found = self._norm(found, layer.attention_after)
        hidden = self.op("Add", hidden, found)
        found = self._mlp(layer, self._norm(hidden, layer.mlp_norm))
        if layer.mlp_after is not None:
            found = self._norm(found, layer.mlp_after)
        return self.op("Add", hidden, found)

    def _mlp(self, layer: LayerShape, hidden: str) -> str:
        gate, up = self._parts(hidden, layer.gate_up, [self.shape.intermediate_size] * 2)
        kind = self.shape.activation
        if kind == ACTIVATIONS["silu"]:
            active = self.op("Mul", gate, self.op("Sigmoid", gate))
        else:
            active = self.op("Gelu", gate, approximate="tanh" if kind == ACTIVATIONS["gelu_pytorch_tanh"] else "none")
        return self.linear(self.op("Mul", active, up), layer.down)

    def _parts(self, hidden: str, tensors: tuple[str, ...], sizes: list[int]) -> list[str]:
        """Return the outputs of several weights, or of the one that they are fused to."""
        if len(tensors) == len(sizes):
            return [self.linear(hidden, tensor) for tensor in tensors]
        fused = self.linear(hidden, tensors[0])
        outputs = [f"Split_{len(self.nodes)}_{place}" for place in range(len(sizes))]
        self.op("Split", fused, self.constant(sizes), outputs=outputs, axis=-1)
        return outputs

    def _attention(self, place: int, layer: LayerShape, hidden: str, given: _Inputs) -> str:
        shape = self.shape
        counts = [shape.heads, shape.kv_heads, shape.kv_heads]
        query, key, value = self._parts(hidden, layer.qkv, [count * shape.head_dim for count in counts])
        query = self._head_norm(query, layer.query_norm, shape.heads)
        key = self._head_norm(key, layer.key_norm, shape.kv_heads)
        if layer.rotation >= 0:
            turns = given.turns[layer.rotation]
            query = self._turned(query, shape.heads, given.places, turns)
            key = self._turned(key, shape.kv_heads, given.places, turns)
        past = [f"past_key_values.{place}.{part}" for part in ("key", "value")]
        present = [f"present.{place}.{part}" for part in ("key", "value")]
        for names, made, length in ((past, self.inputs, PAST), (present, self.outputs, TOTAL)):
            sizes = (BATCH, shape.kv_heads, length, shape.head_dim)
            made.extend(protobuf.value(name, "F32", sizes) for name in names)
        facts: dict[str, Attribute] = {
            "num_heads": shape.heads,
            "kv_num_heads": shape.kv_heads,
            "scale": float(shape.attention_scale),
        }
        if shape.attention_cap:
            facts["softcap"] = float(shape.attention_cap)
        none = ""
        inputs = [query, key, value, *past, given.last, given.total, none, none, none, given.biases[layer.window]]
        outputs = [f"GroupQueryAttention_{len(self.nodes)}", *present]
        return self.linear(self.own("GroupQueryAttention", *inputs, outputs=outputs, **facts), layer.output)

    def _head_norm(self, found: str, norm: str | None, count: int) -> str:
        """Return [batch, tokens, count * head] with each head normalized by itself."""
        if norm is None:
            return found
        width = self.shape.head_dim
        heads = self._reshaped(found, [0, 0, count, width])
        return self._reshaped(self._norm(heads, norm), [0, 0, count * width])

    def _turned(self, found: str, count: int, places: str, turns: tuple[str, str]) -> str:
        """Return heads rotated, the first dimensions of them where the rest stays."""
        turning = 2 * min(len(rotation.frequencies) for rotation in self.shape.rotations)
        partly = turning if turning < self.shape.head_dim else 0
        return self.own(
            "RotaryEmbedding", found, places, *turns, interleaved=0, num_heads=count, rotary_embedding_dim=partly
        )
