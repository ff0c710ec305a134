"""A Llama-like decoder built from ONNX's operators and those that onnxruntime adds. Knows no files and no weights.

Inputs and outputs are those that transformers.js and onnxruntime's GenAI feed: ``input_ids``, ``attention_mask`` and
``position_ids`` i64 [batch, tokens], the mask as long as all that was read; ``past_key_values.N.key`` and ``.value``
f32 [batch, kv heads, read, head] of every layer; ``logits`` f32 [batch, tokens, vocabulary], and ``present.N.key`` and
``.value`` with what was read now.

onnxruntime's own operators (domain ``com.microsoft``) are taken where its builds for browsers have them too:
MatMulNBits, RotaryEmbedding, GroupQueryAttention. What a token sees is said by a bias of scores alone, for windows mean
one more or less token from release to release, and lengths know no padding on the left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from studio.export.onnx import protobuf
from studio.export.onnx.nodes import MICROSOFT, ONNX, Nodes, Weights
from studio.export.onnx.protobuf import Attribute
from studio.runtime.decoder.llama_like import ACTIVATIONS
from studio.runtime.decoder.shape import DecoderShape, LayerShape

OPSETS = {ONNX: 21, MICROSOFT: 1}
PRODUCER = "quantization-studio"
BATCH, TOKENS, TOTAL, PAST = "batch_size", "sequence_length", "total_sequence_length", "past_sequence_length"
"""Sizes that are not known before; transformers.js makes the first keys and values by these names."""
MASKED = -65504.0
"""What a score is lowered by that does not count: fp16's lowest, so that a row of such alone is still a mean."""


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


class _Builder(Nodes):
    """Makes one graph."""

    def __init__(self, shape: DecoderShape, weights: Weights) -> None:
        super().__init__(weights)
        self.shape = shape
        self.inputs: list[bytes] = []
        self.outputs: list[bytes] = []

    def model(self) -> bytes:
        shape = self.shape
        for name, length in (("input_ids", TOKENS), ("attention_mask", TOTAL), ("position_ids", TOKENS)):
            self.inputs.append(protobuf.value(name, "I64", (BATCH, length)))
        self.outputs.append(protobuf.value("logits", "F32", (BATCH, TOKENS, shape.vocabulary)))
        given = self._given()
        hidden = self.looked_up(shape.embedding, "input_ids")
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
        there = self.op("Unsqueeze", self.cast("attention_mask", "BOOL"), self.constant([1, 2]))
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
        return _Inputs(biases, turns, places, self.cast(last, "I32"), self.cast(total, "I32"))

    def _turns(self, place: int) -> tuple[str, str]:
        """Return cosines and sines of a rotation at the positions."""
        rotation = self.shape.rotations[place]
        frequencies = self.constant(rotation.frequencies.float().numpy().reshape(1, -1), np.float32)
        where = self.cast(self.reshaped("position_ids", [-1, 1]), "F32")
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
        heads = self.reshaped(found, [0, 0, count, width])
        return self.reshaped(self._norm(heads, norm), [0, 0, count * width])

    def _turned(self, found: str, count: int, places: str, turns: tuple[str, str]) -> str:
        """Return heads rotated, the first dimensions of them where the rest stays."""
        turning = 2 * min(len(rotation.frequencies) for rotation in self.shape.rotations)
        partly = turning if turning < self.shape.head_dim else 0
        return self.own(
            "RotaryEmbedding", found, places, *turns, interleaved=0, num_heads=count, rotary_embedding_dim=partly
        )
