"""A Llama-like decoder built from OpenVINO's operators, its keys and values held as state. Knows no files.

Inputs and outputs are those of optimum-intel's models, which OpenVINO GenAI runs: ``input_ids``, ``attention_mask`` and
``position_ids`` i64 [batch, tokens], the mask as long as all that was read; ``beam_idx`` i32 [batch], which earlier
sequence each goes on from; ``logits`` f32 [batch, tokens, vocabulary]. Parts are written as torch's traced models have
them, for OpenVINO puts its own fused operators (RMS, RoPE, attention with its cache) in place of patterns it knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from studio.export.openvino.arrays import Constants
from studio.export.openvino.library import opset
from studio.runtime.decoder.llama_like import ACTIVATIONS
from studio.runtime.decoder.shape import DecoderShape, LayerShape

Node = Any
"""One of OpenVINO's, whose classes are not there to be named where it is not installed."""
MASKED = -65504.0
"""What a score is lowered by that does not count: fp16's lowest, so that a row of such alone is still a mean."""
STATE = "past_key_values.{layer}.{part}present.{layer}.{part}"
"""optimum-intel's name of a variable."""


class Store(Protocol):
    """Where constants come from."""

    def constant(self, tensor: str, part: str) -> Node:
        """Return a constant of a weight's parts, or of a tensor that is kept, whose part is ``""``."""
        ...

    def form(self, tensor: str) -> Constants | None:
        """Return how a weight is held, None for a tensor that is kept. Raises KeyError for one that is not there."""
        ...

    def width(self, tensor: str) -> int:
        """Return the last dimension of a tensor."""
        ...

    def __contains__(self, tensor: str) -> bool: ...


@dataclass(frozen=True)
class _Inputs:
    """What every layer reads."""

    batch: Node
    """i64 [1]."""
    beams: Node
    masks: Mapping[int, Node]
    """By a layer's window: f32 [batch, 1, tokens, all]."""
    turns: tuple[tuple[Node, Node], ...]
    """Cosines and sines of each rotation, f32 [batch, 1, tokens, rotating dimensions]."""


def model_of(shape: DecoderShape, store: Store) -> Any:
    """Return the ``openvino.Model`` of a decoder whose weights ``store`` has."""
    return _Builder(shape, store).model()


def _numbers(value: ArrayLike, dtype: type = np.int64) -> Node:
    return opset().constant(np.asarray(value, dtype))


class _Builder:
    """Makes one graph; ``sinks`` are the states it writes."""

    def __init__(self, shape: DecoderShape, store: Store) -> None:
        self.shape, self.store, self.ops = shape, store, opset()
        self.sinks: list[Node] = []

    def model(self) -> Any:
        import openvino

        ops, shape = self.ops, self.shape
        pair = openvino.PartialShape([-1, -1])
        names = ("input_ids", "attention_mask", "position_ids")
        inputs = [ops.parameter(pair, openvino.Type.i64, name=name) for name in names]
        inputs.append(ops.parameter(openvino.PartialShape([-1]), openvino.Type.i32, name="beam_idx"))
        for parameter in inputs:
            parameter.output(0).set_names({parameter.get_friendly_name()})
        ids, mask, positions, beams = inputs
        batch = ops.gather(ops.shape_of(ids), _numbers([0]), _numbers(0))
        turns = tuple(self._turns(positions, place) for place in range(len(shape.rotations)))
        windows = dict.fromkeys(layer.window for layer in shape.layers)
        given = _Inputs(batch, beams, {window: self._mask(ids, mask, window) for window in windows}, turns)
        hidden = ops.gather(self.weight(shape.embedding), ops.convert(ids, "i32"), _numbers(0))
        if shape.embedding_scale != 1:
            hidden = self.times(hidden, shape.embedding_scale)
        for place, layer in enumerate(shape.layers):
            hidden = self._layer(place, layer, hidden, given)
        logits = self.linear(self._norm(hidden, shape.final_norm), shape.head)
        if shape.logit_cap:
            logits = self._capped(logits, shape.logit_cap)
        logits.output(0).set_names({"logits"})
        result = ops.result(logits)
        return openvino.Model([result], self.sinks, inputs, "decoder")

    # constants

    def weight(self, tensor: str) -> Node:
        """Return a weight f32 [N, K]: constants and what OpenVINO knows as their decompression."""
        ops, form = self.ops, self.store.form(tensor)
        if form is None:
            return ops.convert(self.store.constant(tensor, ""), "f32")
        codes = self.store.constant(tensor, "codes")
        if form.zero_point == "f32":
            values = ops.convert(codes, "f32")
            values = ops.subtract(values, self.store.constant(tensor, "zero_point"))
            values = ops.multiply(values, ops.convert(self.store.constant(tensor, "scale"), "f32"))
        else:
            values = ops.convert(codes, "f16")
            if form.zero_point is not None:
                values = ops.subtract(values, ops.convert(self.store.constant(tensor, "zero_point"), "f16"))
            values = ops.multiply(values, self.store.constant(tensor, "scale"))
        if form.group_size > 0:
            values = ops.reshape(values, _numbers([-1, self.store.width(tensor)]), special_zero=False)
        return values if form.zero_point == "f32" else ops.convert(values, "f32")

    def linear(self, hidden: Node, tensor: str) -> Node:
        """Return ``hidden`` [batch, tokens, K] times a weight [N, K], and its bias where there is one."""
        product = self.ops.matmul(hidden, self.weight(tensor), transpose_a=False, transpose_b=True)
        bias = f"{tensor.removesuffix('.weight')}.bias"
        return self.ops.add(product, self.weight(bias)) if bias in self.store else product

    # arithmetic

    def times(self, node: Node, factor: float) -> Node:
        return self.ops.multiply(node, _numbers(factor, np.float32))

    def _capped(self, node: Node, cap: float) -> Node:
        return self.times(self.ops.tanh(self.times(node, 1 / cap)), cap)

    def _norm(self, hidden: Node, tensor: str) -> Node:
        ops = self.ops
        squares = ops.reduce_mean(ops.power(hidden, _numbers(2, np.float32)), _numbers([-1]), keep_dims=True)
        root = ops.sqrt(ops.add(squares, _numbers(self.shape.epsilon, np.float32)))
        normal = ops.multiply(hidden, ops.divide(_numbers(1, np.float32), root))
        weight = self.weight(tensor)
        if self.shape.norm_plus:
            weight = ops.add(weight, _numbers(self.shape.norm_plus, np.float32))
        return ops.multiply(normal, weight)

    def _concat(self, nodes: list[Node], axis: int) -> Node:
        return nodes[0] if len(nodes) == 1 else self.ops.concat(nodes, axis)

    # what every layer reads

    def _turns(self, positions: Node, place: int) -> tuple[Node, Node]:
        """Return cosines and sines of a rotation at the positions."""
        ops, rotation = self.ops, self.shape.rotations[place]
        frequencies = rotation.frequencies.float().numpy().reshape(1, -1, 1)
        where = ops.convert(ops.unsqueeze(positions, _numbers(1)), "f32")
        angles = ops.matmul(ops.constant(frequencies), where, False, False)
        angles = ops.transpose(angles, _numbers([0, 2, 1]))
        both = ops.concat([angles, angles], -1)
        cos, sin = ops.cos(both), ops.sin(both)
        if rotation.scale != 1:
            cos, sin = self.times(cos, rotation.scale), self.times(sin, rotation.scale)
        return ops.unsqueeze(cos, _numbers(1)), ops.unsqueeze(sin, _numbers(1))

    def _mask(self, ids: Node, mask: Node, window: int) -> Node:
        """Return 0 where a token sees another, and :data:`MASKED` elsewhere."""
        ops = self.ops
        zero, one = _numbers(0), _numbers(1)
        total = ops.gather(ops.shape_of(mask), one, zero)
        past = ops.subtract(total, ops.gather(ops.shape_of(ids), one, zero))
        keys = ops.unsqueeze(ops.range(zero, total, one, "i64"), _numbers([0, 1, 2]))
        queries = ops.unsqueeze(ops.range(past, total, one, "i64"), _numbers([0, 1, 3]))
        before, there = ops.less_equal(keys, queries), ops.unsqueeze(ops.convert(mask, "boolean"), _numbers([1, 2]))
        if not window:
            return self._lowered(ops.logical_and(before, there))
        near = ops.greater(keys, ops.add(queries, _numbers(-window)))
        # word for word what OpenVINO knows as a window, in which some of it stands twice
        sees = ops.bitwise_and(before, ops.bitwise_and(ops.bitwise_and(before, near), there))
        sees = ops.bitwise_and(sees, there)
        sizes = ops.concat([ops.gather(ops.shape_of(ids), _numbers([0]), zero), _numbers([1, 1, 1])], 0)
        lowered = self._lowered(ops.broadcast(sees, sizes, broadcast_spec="BIDIRECTIONAL"))
        total = ops.unsqueeze(total, zero)
        return ops.slice(lowered, _numbers([0]), total, _numbers([1]), _numbers([3]))

    def _lowered(self, sees: Node) -> Node:
        return self.ops.select(sees, _numbers(0, np.float32), _numbers(MASKED, np.float32))

    # a layer

    def _layer(self, place: int, layer: LayerShape, hidden: Node, given: _Inputs) -> Node:
        ops = self.ops
        found = self._attention(place, layer, self._norm(hidden, layer.attention_norm), given)
        if layer.attention_after is not None:
            found = self._norm(found, layer.attention_after)
        hidden = ops.add(hidden, found)
        found = self._mlp(layer, self._norm(hidden, layer.mlp_norm))
        if layer.mlp_after is not None:
            found = self._norm(found, layer.mlp_after)
        return ops.add(hidden, found)

    def _mlp(self, layer: LayerShape, hidden: Node) -> Node:
        ops = self.ops
        gate, up = self._parts(hidden, layer.gate_up, [self.shape.intermediate_size] * 2)
        kind = self.shape.activation
        if kind == ACTIVATIONS["silu"]:
            active = ops.swish(gate)
        else:
            active = ops.gelu(gate, "TANH" if kind == ACTIVATIONS["gelu_pytorch_tanh"] else "ERF")
        return self.linear(ops.multiply(active, up), layer.down)

    def _parts(self, hidden: Node, tensors: tuple[str, ...], sizes: list[int]) -> list[Node]:
        """Return the outputs of several weights, or of the one that they are fused to."""
        if len(tensors) == len(sizes):
            return [self.linear(hidden, tensor) for tensor in tensors]
        fused = self.linear(hidden, tensors[0])
        return list(self.ops.variadic_split(fused, _numbers(-1), _numbers(sizes)).outputs())

    def _attention(self, place: int, layer: LayerShape, hidden: Node, given: _Inputs) -> Node:
        ops, shape = self.ops, self.shape
        counts = [shape.heads, shape.kv_heads, shape.kv_heads]
        found = self._parts(hidden, layer.qkv, [count * shape.head_dim for count in counts])
        query, key, value = (self._heads(node, count) for node, count in zip(found, counts, strict=True))
        if layer.query_norm is not None:
            query = self._norm(query, layer.query_norm)
        if layer.key_norm is not None:
            key = self._norm(key, layer.key_norm)
        query, key, value = (ops.transpose(node, _numbers([0, 2, 1, 3])) for node in (query, key, value))
        if layer.rotation >= 0:
            query, key = (self._turned(node, *given.turns[layer.rotation]) for node in (query, key))
        key, value = (
            self._repeated(self._remembered(place, part, node, given))
            for part, node in (("key", key), ("value", value))
        )
        mixed = self._mixed(query, key, value, given.masks[layer.window])
        width = shape.heads * shape.head_dim
        mixed = ops.reshape(ops.transpose(mixed, _numbers([0, 2, 1, 3])), _numbers([0, 0, width]), special_zero=True)
        return self.linear(mixed, layer.output)

    def _heads(self, node: Node, count: int) -> Node:
        return self.ops.reshape(node, _numbers([0, 0, count, self.shape.head_dim]), special_zero=True)

    def _turned(self, node: Node, cos: Node, sin: Node) -> Node:
        """Return heads [batch, heads, tokens, width] rotated, the first dimensions of them where the rest stays."""
        ops, width = self.ops, self.shape.head_dim
        turning = 2 * min(len(rotation.frequencies) for rotation in self.shape.rotations)
        rest = None
        if turning < width:
            node, rest = ops.variadic_split(node, _numbers(-1), _numbers([turning, width - turning])).outputs()
        low = self._slice(node, 0, turning // 2)
        high = self._slice(node, turning // 2, np.iinfo(np.int64).max)
        half = ops.concat([ops.multiply(high, _numbers(-1, np.float32)), low], -1)
        turned = ops.add(ops.multiply(node, cos), ops.multiply(half, sin))
        return turned if rest is None else ops.concat([turned, rest], -1)

    def _slice(self, node: Node, start: int, stop: int) -> Node:
        return self.ops.slice(node, _numbers([start]), _numbers([stop]), _numbers([1]), _numbers([3]))

    def _remembered(self, place: int, part: str, node: Node, given: _Inputs) -> Node:
        """Return all keys or values so far [batch, kv heads, all, width], the new ones put into the state."""
        import openvino

        ops, shape = self.ops, self.shape
        name = STATE.format(layer=place, part=part)
        sizes = ops.concat([given.batch, _numbers([shape.kv_heads]), _numbers([0]), _numbers([shape.head_dim])], 0)
        empty = ops.broadcast(_numbers(0, np.float32), sizes)
        there = self._variable(name, [-1, shape.kv_heads, -1, shape.head_dim])
        past = openvino.op.read_value(empty, there)
        whole = ops.concat([ops.gather(past, given.beams, _numbers(0)), node], -2)
        self.sinks.append(ops.assign(whole, there))
        return whole

    @staticmethod
    def _variable(name: str, sizes: list[int]) -> Any:
        import openvino
        from openvino.op.util import Variable, VariableInfo

        info = VariableInfo()
        info.variable_id, info.data_type, info.data_shape = name, openvino.Type.f32, openvino.PartialShape(sizes)
        return Variable(info)

    def _repeated(self, node: Node) -> Node:
        """Return kv heads as often as queries ask for each."""
        ops, shape = self.ops, self.shape
        times = shape.heads // shape.kv_heads
        if times == 1:
            return node
        wide = ops.unsqueeze(node, _numbers(2))
        wide = ops.broadcast(wide, _numbers([1, 1, times, 1, 1]), broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, _numbers([0, shape.heads, -1, shape.head_dim]), special_zero=True)

    def _mixed(self, query: Node, key: Node, value: Node, mask: Node) -> Node:
        ops, shape = self.ops, self.shape
        if not shape.attention_cap:
            scale = _numbers(shape.attention_scale, np.float32)
            return ops.scaled_dot_product_attention(query, key, value, mask, scale, causal=False)
        scores = self.times(ops.matmul(query, key, False, True), shape.attention_scale)
        scores = ops.add(self._capped(scores, shape.attention_cap), mask)
        return ops.matmul(ops.softmax(scores, -1), value, False, False)
