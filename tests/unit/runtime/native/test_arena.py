"""Memory for weights: what is put there is a copy, on a cache line, beside and not upon the others."""

import torch

from studio.runtime.native import arena as module
from studio.runtime.native.arena import ALIGNED, Arena


def test_what_is_put_there_is_a_copy_on_a_line_of_its_own() -> None:
    arena = Arena()
    tensors = [
        torch.arange(7, dtype=torch.uint8),
        torch.arange(6, dtype=torch.float32).reshape(2, 3),
        torch.arange(5, dtype=torch.bfloat16),
    ]
    copies = [arena.put(tensor) for tensor in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        assert torch.equal(copy, tensor)
        assert copy.data_ptr() != tensor.data_ptr()
        assert copy.data_ptr() % ALIGNED == 0
    copies[0].zero_()
    assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies[1:], tensors[1:], strict=True))


def test_what_does_not_fit_begins_a_new_stretch() -> None:
    arena = Arena()
    first = arena.put(torch.ones(10, dtype=torch.uint8))
    large = arena.put(torch.ones(module.CHUNK + module.HUGE_PAGE, dtype=torch.uint8))
    assert large.data_ptr() % module.HUGE_PAGE == 0
    assert int(first.sum()) == 10
    assert int(large[-1]) == 1
