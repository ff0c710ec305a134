"""Kernels for a GPU that were compiled before are taken from the cache, and nobody else's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from studio.base.settings import settings
from studio.runtime.native import nvrtc

IMAGE = b"machine code"


@pytest.fixture
def compiled(empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was compiled, on a machine that claims to have a GPU."""
    found: list[str] = []

    def compile_(_text: str, title: str, names: list[str], _options: list[str]) -> tuple[bytes, list[str]]:
        found.append(title)
        return IMAGE, [f"_Z{name}" for name in names]

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(nvrtc, "_compiled", compile_)
    (tmp_path / "step.cu").write_text("__global__ void step() {}")
    yield found
    settings.cache_clear()


def image(tmp_path: Path) -> tuple[bytes, list[str]]:
    return nvrtc._image(tmp_path / "step.cu", ["step"], [], "")


def test_what_was_compiled_once_is_kept(compiled: list[str], tmp_path: Path, empty_cache: Path) -> None:
    assert image(tmp_path) == image(tmp_path) == (IMAGE, ["_Zstep"])
    assert compiled == ["step.cu"]
    assert (empty_cache / "native").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("change", [(b"code", b"CODE"), (b"_Zstep", b"_Zevil")])
def test_what_somebody_changed_is_compiled_anew(
    compiled: list[str], tmp_path: Path, empty_cache: Path, change: tuple[bytes, bytes]
) -> None:
    image(tmp_path)
    [kept] = (empty_cache / "native").glob("*.cubin")
    kept.write_bytes(kept.read_bytes().replace(*change))
    assert image(tmp_path) == (IMAGE, ["_Zstep"])
    assert compiled == ["step.cu"] * 2


def test_a_cache_that_cannot_be_written_costs_the_time_alone(
    compiled: list[str], tmp_path: Path, empty_cache: Path
) -> None:
    empty_cache.write_text("a file where the folder should be")
    assert image(tmp_path) == image(tmp_path) == (IMAGE, ["_Zstep"])
    assert compiled == ["step.cu"] * 2
