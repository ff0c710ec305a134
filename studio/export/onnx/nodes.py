"""Nodes of an ONNX graph over packed weights: what multiplies them, and what looks up their rows. Knows no model.

MatMulNBits is onnxruntime's own and in its builds for browsers; GatherBlockQuantized is not in these (1.31), so that
rows of a packed embedding are put together from plain operators.
"""

from typing import Protocol

import numpy as np

from studio.export.onnx import protobuf
from studio.export.onnx.arrays import Settings
from studio.export.onnx.protobuf import TYPES, Attribute

ONNX, MICROSOFT = "", "com.microsoft"
ACCURACY = 4
"""``accuracy_level``: activations are rounded to 8 bits in blocks where onnxruntime has kernels for that, as GenAI's
own builder asks it of processors. In 32 bits (1) 8-bit weights are unpacked for every token, 50 times slower."""
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


class Nodes:
    """Nodes and numbers of one graph. What a method returns is the name of what is computed."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[bytes] = []
        self.tensors: dict[str, bytes] = {}
        self._there: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._read: dict[str, str] = {}

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
            self._read[name] = self.cast(name, "F32")
        return self._read[name]

    def cast(self, name: str, dtype: str) -> str:
        """Return numbers of another dtype, by safetensors' names."""
        return self.op("Cast", name, to=TYPES[dtype])

    # weights

    def linear(self, hidden: str, tensor: str) -> str:
        """Return ``hidden`` [batch, tokens, K] times a weight [N, K], and its bias where there is one."""
        rows, width = self.weights.shape(tensor)
        settings = self.weights.settings(tensor)
        if settings is None:
            turned = self.op("Transpose", self.floats(tensor), perm=[1, 0])
            product = self.op("MatMul", hidden, turned)
        elif settings.has_levels:
            counts = rows * width // 2, rows * width // settings.block_size
            scale = self.cast(self.part(tensor, "scale", counts[1:], "flat"), "F32")
            sizes: dict[str, Attribute] = {"K": width, "N": rows, "block_size": settings.block_size, "quant_type": NF4}
            codes = self.part(tensor, "codes", counts[:1], "flat")
            product = self.own("MatMulBnb4", hidden, codes, scale, outputs=None, **sizes)
        else:
            blocks = (rows, width // settings.block_size, settings.block_size * settings.bits // 8)
            inputs = [hidden, self.part(tensor, "codes", blocks), self.floats(tensor, "scale")]
            if settings.zero_point is not None:
                inputs.append(self.part(tensor, "zero_point"))
            sizes = {"K": width, "N": rows}
            sizes |= {"bits": settings.bits, "block_size": settings.block_size, "accuracy_level": ACCURACY}
            product = self.own("MatMulNBits", *inputs, outputs=None, **sizes)
        bias = f"{tensor.removesuffix('.weight')}.bias"
        return self.op("Add", product, self.floats(bias)) if bias in self.weights else product

    def looked_up(self, tensor: str, ids: str) -> str:
        """Return rows of a weight, f32 [batch, tokens, K]: of a packed one its parts, put together."""
        settings = self.weights.settings(tensor)
        if settings is None:
            return self.cast(self.op("Gather", self.part(tensor, ""), ids, axis=0), "F32")
        width = self.weights.shape(tensor)[1]
        blocks = width // settings.block_size
        codes, scale = (self._rows(tensor, part, ids) for part in ("codes", "scale"))
        grouped = self.reshaped(self._unpacked(codes, settings.bits), [0, 0, blocks, settings.block_size])
        if settings.zero_point is None:
            zero = self.constant(2 ** (settings.bits - 1), np.float32)
        else:
            zero = self._rows(tensor, "zero_point", ids)
            if settings.zero_point == "U8":
                zero = self._first(self._unpacked(zero, settings.bits), blocks)
            zero = self.reshaped(zero, [0, 0, blocks, 1])
        values = self.op("Mul", self.op("Sub", grouped, zero), self.reshaped(scale, [0, 0, blocks, 1]))
        return self.reshaped(values, [0, 0, width])

    def _rows(self, tensor: str, part: str, ids: str) -> str:
        """Return rows of a weight's part as f32. Scales are so before, as products have them: not every GPU looks up
        fp16."""
        if self.weights.dtype(tensor, part) != "U8":
            return self.op("Gather", self.floats(tensor, part), ids, axis=0)
        use = "rows" if part == "codes" else ""  # in two dimensions here, in three where it is multiplied
        return self.cast(self.op("Gather", self.part(tensor, part, None, use), ids, axis=0), "F32")

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
        return self.reshaped(self.op("Concat", *apart, axis=3), [0, 0, -1])

    def _first(self, found: str, count: int) -> str:
        """Return the first numbers of each row, without what fills its last byte."""
        return self.op("Slice", found, self.constant([0]), self.constant([count]), self.constant([2]))

    def reshaped(self, found: str, sizes: list[int]) -> str:
        """Return the same numbers in another shape: 0 for a size that stays, -1 for what is left."""
        return self.op("Reshape", found, self.constant(sizes))

    def times(self, name: str, factor: float) -> str:
        return self.op("Mul", name, self.constant(factor, np.float32))


NF4 = 1
"""What ``MatMulBnb4`` calls these levels."""
