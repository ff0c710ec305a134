"""The bytes of ONNX's messages, read by ONNX's own reader."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from studio.export.onnx import protobuf

pytestmark = pytest.mark.skipif(find_spec("onnx") is None, reason="needs onnx, as requirements-dev.txt has it")


def read(raw: bytes, kind: str) -> Any:
    import onnx

    found = getattr(onnx, kind)()
    found.ParseFromString(raw)
    assert found.SerializePartialToString(deterministic=True)
    return found


def test_a_node_has_what_it_was_given() -> None:
    import onnx

    raw = protobuf.node(
        "Some", ["a", "", "b"], ["c", "d"], "com.microsoft", axis=-1, scale=0.25, mode="tanh", perm=[1, 0, 300]
    )
    found = read(raw, "NodeProto")
    assert (found.op_type, found.domain, found.name) == ("Some", "com.microsoft", "c")
    assert (list(found.input), list(found.output)) == (["a", "", "b"], ["c", "d"])
    given = {each.name: onnx.helper.get_attribute_value(each) for each in found.attribute}
    assert given == {"axis": -1, "scale": 0.25, "mode": b"tanh", "perm": [1, 0, 300]}


@pytest.mark.parametrize("numbers", [np.array([-1, 2, 1 << 40]), np.float32(1.5), np.ones((2, 3), np.int32)], ids=str)
def test_a_tensor_has_its_numbers(numbers: Any) -> None:
    import onnx

    kind = {"float32": "F32", "int32": "I32", "int64": "I64"}[numbers.dtype.name]
    found = read(protobuf.tensor("some", kind, numbers.shape, numbers.tobytes()), "TensorProto")
    assert found.name == "some"
    assert np.array_equal(onnx.numpy_helper.to_array(found), numbers)


def test_a_tensor_elsewhere_says_where() -> None:
    found = read(protobuf.external_tensor("some", "BF16", (3, 500), "model.onnx_data", 1 << 40, 3000), "TensorProto")
    told = {each.key: each.value for each in found.external_data}
    assert told == {"location": "model.onnx_data", "offset": str(1 << 40), "length": "3000"}
    assert (list(found.dims), found.data_type, found.data_location) == ([3, 500], 16, 1)


def test_a_model_is_one_that_onnx_takes() -> None:
    import onnx

    shape = ("batch_size", 2)
    graph = protobuf.graph(
        "graph",
        [protobuf.node("Add", ["x", "one"], ["y"], "")],
        [protobuf.tensor("one", "F32", (), np.float32(1).tobytes())],
        [protobuf.value("x", "F32", shape)],
        [protobuf.value("y", "F32", shape)],
    )
    found = read(protobuf.model(graph, {"": 21, "com.microsoft": 1}, "somebody"), "ModelProto")
    onnx.checker.check_model(found, full_check=True)
    assert {each.domain: each.version for each in found.opset_import} == {"": 21, "com.microsoft": 1}
    sizes = found.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_param or each.dim_value for each in sizes] == ["batch_size", 2]
