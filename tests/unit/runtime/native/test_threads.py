"""Threads that compute together: whatever their number, whoever calls, and however often they sleep between calls."""

import threading
import time

import pytest
import torch

from studio.quantization.packing import pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.native.products import decoding, multiply
from studio.runtime.native.tiling import tiles_of

pytestmark = pytest.mark.skipif(decoding() is None, reason="needs a C compiler")
INT4 = Scheme(Mode.INT4_ASYM, 64)
WEIGHT = torch.randn(200, 192, generator=torch.Generator().manual_seed(1))
TILES = tiles_of(pack(round_to_nearest(WEIGHT, INT4), INT4))
X = torch.randn(9, 192, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def as_before() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_any_number_of_members_finds_the_same() -> None:
    torch.set_num_threads(1)
    expected = multiply(TILES, X)
    for members in (2, 3, 1, 5, 2, 1, 4):
        torch.set_num_threads(members)
        assert torch.equal(multiply(TILES, X), expected)
        time.sleep(0.002)  # until they sleep


def test_several_callers_take_turns() -> None:
    torch.set_num_threads(2)
    expected, wrong = multiply(TILES, X), []

    def call(count: int) -> None:
        torch.set_num_threads(2)
        for _ in range(count):
            if not torch.equal(multiply(TILES, X), expected):
                wrong.append(count)

    callers = [threading.Thread(target=call, args=(40,)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
