"""What Python and C call by one name is laid out the same, and compiled code that means something else is not used."""

import ctypes
import logging
from typing import Any

import pytest

from studio.runtime.native import structures as module
from studio.runtime.native.products import decoding
from studio.runtime.native.structures import STRUCTURES, Cache, Int, assertions, is_same, layout

pytestmark = pytest.mark.skipif(decoding() is None, reason="needs a C compiler")


def lib() -> ctypes.CDLL:
    found = decoding()
    assert found is not None
    return found


def changed(*fields: Any) -> type[ctypes.Structure]:
    """Return another ``Cache``."""
    return type("Cache", (ctypes.Structure,), {"_fields_": list(fields)})


BITS, CAPACITY, *POINTERS = Cache._fields_
WRONG = {
    "another-order": changed(CAPACITY, BITS, *POINTERS),
    "one-more": changed(BITS, CAPACITY, *POINTERS, ("more", Int)),
    "one-less": changed(BITS, CAPACITY, *POINTERS[:-1]),
    "wider": changed(("bits", ctypes.c_int64), CAPACITY, *POINTERS),
}


def test_sizes_and_places_are_those_of_the_compiled_code() -> None:
    theirs = (Int * len(layout()))()
    assert lib().layout(theirs, len(theirs)) == len(theirs)
    assert list(theirs) == layout()
    assert is_same(lib())


def test_a_list_that_is_too_short_for_them_is_left_alone() -> None:
    theirs = (Int * 3)()
    assert lib().layout(theirs, 3) == len(layout())
    assert list(theirs) == [0, 0, 0]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_structure_that_is_another_is_refused(
    wrong: type[ctypes.Structure], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also two of one size that changed places."""
    compiled = lib()
    monkeypatch.setattr(module, "STRUCTURES", (*STRUCTURES[:-1], wrong))
    assert not is_same(compiled)
    with caplog.at_level(logging.ERROR):
        assert decoding.__wrapped__() is None
    assert "was compiled into something else" in caplog.text


def test_kernels_that_are_compiled_at_run_time_assert_each_size_and_place() -> None:
    said = assertions({"Cache": Cache})
    assert said.count("static_assert(") == 1 + len(Cache._fields_)
    assert f"sizeof(Cache) == {ctypes.sizeof(Cache)}," in said
    assert f"->keys) == {Cache.keys.offset}," in said
