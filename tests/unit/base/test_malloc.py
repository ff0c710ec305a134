"""What was freed goes back to the system."""

import platform

import psutil
import pytest

from studio.base.malloc import release_free_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps what is freed")
def test_freed_memory_goes_back() -> None:
    process = psutil.Process()
    kept = [bytearray(100_000) for _ in range(1000)]  # below what glibc takes from the system by itself
    pin = [bytearray(100_000) for _ in range(10)]  # above them, so that the heap cannot shrink by itself
    del kept
    before = process.memory_info().rss
    release_free_memory()
    assert before - process.memory_info().rss > 50_000_000
    assert pin
