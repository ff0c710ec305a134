"""ONNX's messages in protobuf's wire format: of its many fields those that a graph over external numbers has.

Nothing but bytes is made, so that no package is asked for and the same graph has the same bytes on any day. Fields go
by the numbers of ``onnx.proto`` (onnx 1.23, IR version 10). Knows no operator.
"""

import struct
from collections.abc import Mapping, Sequence

IR_VERSION = 10
TYPES = {
    "F32": 1, "U8": 2, "I32": 6, "I64": 7, "BOOL": 9, "F16": 10, "BF16": 16,
}  # fmt: skip
"""``TensorProto.DataType``, by safetensors' names."""
FLOAT, INT, STRING, INTS = 1, 2, 3, 7
"""``AttributeProto.AttributeType``."""
EXTERNAL = 1
"""``TensorProto.DataLocation``."""
Attribute = int | float | str | Sequence[int]
Dimension = int | str
"""A number, or the name of one that is not known before the graph runs."""


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, **attributes: Attribute) -> bytes:
    """Return a ``NodeProto`` that is called by its first output."""
    return b"".join(
        (
            *(_data(1, name) for name in inputs),
            *(_data(2, name) for name in outputs),
            _data(3, outputs[0]),
            _data(4, kind),
            *(_data(5, _attribute(name, value)) for name, value in attributes.items()),
            _data(7, domain) if domain else b"",
        )
    )


def tensor(name: str, dtype: str, shape: Sequence[int], numbers: bytes) -> bytes:
    """Return a ``TensorProto`` that holds its numbers."""
    return _tensor(name, dtype, shape) + _data(9, numbers)


def external_tensor(name: str, dtype: str, shape: Sequence[int], location: str, offset: int, nbytes: int) -> bytes:
    """Return a ``TensorProto`` whose numbers lie in the file ``location`` beside the model's."""
    facts = {"location": location, "offset": str(offset), "length": str(nbytes)}
    entries = (_data(13, _data(1, key) + _data(2, value)) for key, value in facts.items())
    return _tensor(name, dtype, shape) + b"".join(entries) + _number(14, EXTERNAL)


def value(name: str, dtype: str, shape: Sequence[Dimension]) -> bytes:
    """Return the ``ValueInfoProto`` of an input or output."""
    sizes = (_data(1, _number(1, size) if isinstance(size, int) else _data(2, size)) for size in shape)
    kind = _number(1, TYPES[dtype]) + _data(2, b"".join(sizes))
    return _data(1, name) + _data(2, _data(1, kind))


def graph(
    name: str, nodes: Sequence[bytes], tensors: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]
) -> bytes:
    """Return a ``GraphProto``."""
    parts = {1: nodes, 5: tensors, 11: inputs, 12: outputs}
    made = [_data(field, each) for field, those in parts.items() for each in those]
    return _data(2, name) + b"".join(made)


def model(graph_: bytes, opsets: Mapping[str, int], producer: str) -> bytes:
    """Return a ``ModelProto``; ``opsets`` are versions of operators by their domain."""
    versions = (_data(8, _data(1, domain) + _number(2, version)) for domain, version in opsets.items())
    return _number(1, IR_VERSION) + _data(2, producer) + _data(7, graph_) + b"".join(versions)


def _tensor(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    return b"".join(_number(1, size) for size in shape) + _number(2, TYPES[dtype]) + _data(8, name)


def _attribute(name: str, given: Attribute) -> bytes:
    if isinstance(given, float):
        return _data(1, name) + _key(2, 5) + struct.pack("<f", given) + _number(20, FLOAT)
    if isinstance(given, int):
        return _data(1, name) + _number(3, given) + _number(20, INT)
    if isinstance(given, str):
        return _data(1, name) + _data(4, given) + _number(20, STRING)
    return _data(1, name) + b"".join(_number(8, each) for each in given) + _number(20, INTS)


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, given: int) -> bytes:
    return _key(field, 0) + _varint(given & (1 << 64) - 1)


def _data(field: int, given: bytes | str) -> bytes:
    raw = given.encode() if isinstance(given, str) else given
    return _key(field, 2) + _varint(len(raw)) + raw


def _varint(given: int) -> bytes:
    """Return a number seven bits at a time, the lowest first."""
    made = bytearray()
    while given > 127:
        made.append(given & 127 | 128)
        given >>= 7
    made.append(given)
    return bytes(made)
