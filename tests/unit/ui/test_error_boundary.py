"""Memory that ends is one sentence wherever it ends, and no bug of the studio's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from studio.base.errors import is_out_of_memory
from studio.base.text import text
from studio.chat.answer import failure
from studio.ui.error_boundary import _said

SHORT: list[Exception] = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: type(error).__name__)
def test_memory_that_ends_is_said_on_the_page_and_in_an_answer(error: Exception) -> None:
    session: Any = SimpleNamespace()
    assert text("error.out_of_memory") in _said(error, session, "compress", "en")
    assert failure(error).key == "answer_memory"


def test_another_error_is_not_said_to_be_memory(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("shapes differ: you tried to multiply [2, 3] by [4, 5]")
    assert not is_out_of_memory(error)
    assert failure(error).key == "answer_failed"
    assert "shapes differ" in caplog.text
