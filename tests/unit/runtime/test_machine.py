"""What a processor is good at; what is measured of it is tested where it is drawn, ``unit/chat/test_roofline.py``."""

import pytest
import torch

from studio.runtime.machine import fast_dtype


@pytest.mark.parametrize(
    ("machine", "capability", "dtype"),
    [
        ("x86_64", "AVX2", torch.float32),
        ("AMD64", "DEFAULT", torch.float32),
        ("x86_64", "AVX512", torch.bfloat16),
        ("aarch64", "DEFAULT", torch.bfloat16),
    ],
)
def test_a_processor_without_bf16_multiplies_in_fp32(
    machine: str, capability: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert fast_dtype() == dtype
