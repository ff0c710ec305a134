"""The graph that is described reads memory that is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import pytest

from studio.export.openvino import ir, library
from studio.session.api import compress


@pytest.mark.skipif(library.missing() is not None, reason=f"needs {library.INSTALL}")
def test_the_memory_of_its_constants_is_there_until_it_is_written(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO holds none of it: a large model's was unmapped by then, and the process ended."""
    stores: list[ReferenceType[ir._Zeros]] = []
    describe, seen = ir._described, list[bool]()

    class Watched(ir._Zeros):
        def __init__(self, layout: ir.Layout) -> None:
            super().__init__(layout)
            stores.append(ref(self))

    def described(graph: Any, layout: ir.Layout) -> tuple[bytes, bytes]:
        store = stores[0]()
        seen.append(store is not None and len(store._zeros) > 0)
        return describe(graph, layout)

    monkeypatch.setattr(ir, "_Zeros", Watched)
    monkeypatch.setattr(ir, "_described", described)
    compress(str(tiny_model("llama")), tmp_path / "packed", mode="int4_asym", group_size=32)
    assert ir.built(tmp_path / "packed").texts
    assert seen == [True]
