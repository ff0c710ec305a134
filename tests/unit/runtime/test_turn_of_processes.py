"""Processes that compute on the same cores take turns, and one that is killed in its turn holds up nobody."""

import ctypes
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from studio.base.workers import shared_page
from studio.runtime.native.products import decoding, multiply, take_turns
from studio.runtime.native.tiling import tiles_of_floats

pytestmark = [
    pytest.mark.skipif(decoding() is None, reason="needs a C compiler"),
    pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="turns between processes need Linux"),  # noqa: PTH110
]
TILES = tiles_of_floats(torch.ones(64, 64, dtype=torch.bfloat16))
X = torch.ones(3, 64)
EXPECTED = torch.full((3, 64), 64.0)
PATIENCE = 300
"""Seconds for what takes milliseconds: machines that test are busy."""


@pytest.fixture
def page() -> Iterator[None]:
    """Those that are forked from here on find a page that they have in common, as those from the zygote do."""
    shared_page.create()
    yield
    os.close(shared_page._DESCRIPTORS.pop())


def shares() -> mmap.mmap:
    """Take turns from now on; return the memory of the turn."""
    lib = decoding()
    assert lib is not None
    memory = take_turns(lib)
    assert memory is not None
    return memory


def forked(work: Callable[[], object]) -> int:
    """Start a process that does the work and ends with 0 if it did."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(2)
            code = 0 if work() is not False else 2
        finally:
            os._exit(code)
    return child


def outcome(child: int) -> int:
    """Return how a process ended, killing it when it does not: whoever waits for a turn for good would."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -999


def computes() -> bool:
    return torch.equal(multiply(TILES, X), EXPECTED)


HELD = mmap.PAGESIZE - 2
"""The byte that says whether somebody has the turn: behind the turn itself."""


def holding() -> None:
    """Take the turn as a step does, and never give it back."""
    memory = shares()
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None).pthread_mutex_lock(ctypes.c_void_p(place)) == 0:
        memory[HELD] = 1
        time.sleep(10 * PATIENCE)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_computes_with_threads_of_its_own() -> None:
    """Its parent's are not there; nor does it wait for a turn that one of them had."""
    torch.set_num_threads(2)
    assert computes()
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [computes() for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        assert [outcome(forked(computes)) for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        busy.join()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_one_waits_for_the_other_and_goes_on_when_it_is_killed(page: None) -> None:
    memory = mmap.mmap(shared_page._DESCRIPTORS[-1], mmap.PAGESIZE)
    holder = forked(holding)
    until = time.monotonic() + PATIENCE
    while not memory[HELD] and time.monotonic() < until:
        time.sleep(0.01)
    assert memory[HELD]
    waiting = forked(lambda: shares() and computes() and computes())
    time.sleep(0.3)
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)  # it waits
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert outcome(waiting) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_at_once_all_get_their_turns(page: None) -> None:
    children = [forked(lambda: shares() and all(computes() for _ in range(20))) for _ in range(3)]
    assert [outcome(child) for child in children] == [0] * 3


def test_a_turn_that_is_larger_than_the_page_is_refused(page: None) -> None:
    with pytest.raises(ValueError, match="more than the page"):
        shared_page.shared_page(lambda _: True, mmap.PAGESIZE)


def test_a_page_that_cannot_be_made_ready_is_no_page(page: None) -> None:
    assert shared_page.shared_page(lambda _: False, 8) is None
    assert shared_page.shared_page(lambda _: True, 8) is not None
    assert shared_page.shared_page(lambda _: False, 8) is not None  # made once, by the first
