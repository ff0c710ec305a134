"""Compiled where it can be; without a compiler, a cache or a whole file, torch does the work and nobody notices."""

import hashlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from studio.base import compiler
from studio.base.compiler import library
from studio.base.settings import settings
from studio.quantization.native.round_to_nearest import SOURCE
from studio.quantization.packing import pack
from studio.quantization.quantize import channel_error, measure, quantize
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from tests.conftest import ROOT
from tests.small import random

WEIGHT = random(70, 256)
SCHEMES = [Scheme.of(mode, 32) for mode in Mode]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")


@pytest.fixture
def unbuilt(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache in which nothing is compiled yet; what will be takes a few seconds, for how fast it is proves nothing."""
    monkeypatch.setenv("STUDIO_NATIVE_FLAGS", "-O0")
    settings.cache_clear()
    library.cache_clear()
    yield empty_cache
    library.cache_clear()


def assert_torch_does_the_work() -> None:
    assert library(SOURCE) is None
    for scheme in SCHEMES:
        done = quantize(WEIGHT, scheme)
        expected = pack(round_to_nearest(WEIGHT, scheme), scheme)
        for name, array in expected.arrays().items():
            assert torch.equal(done.packed.arrays()[name].view(torch.uint8), array.view(torch.uint8))
    measured = measure(WEIGHT, SCHEMES)
    assert list(measured.differences) == SCHEMES
    assert channel_error(WEIGHT) == measured.channel_error > 0


def test_a_compiler_that_takes_too_long_ends_with_all_it_started(
    unbuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, script = tmp_path / "held", tmp_path / "cc"
    os.mkfifo(place)
    script.write_text(f"#!/bin/sh\nsleep 60 > '{place}' &\nwait\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setattr(compiler, "PATIENCE", 2)
    settings.cache_clear()
    held = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert library(SOURCE) is None
        waiting = select.poll()
        waiting.register(held, 0)
        assert [event for _, event in waiting.poll(30_000)] == [select.POLLHUP]
    finally:
        os.close(held)


@pytest.mark.parametrize(
    "environment",
    [
        {"CC": "/nonexistent"},
        {"CC": "/bin/false"},
        {"CC": "cc --no-such-option"},
        {"CC": 'cc "'},
        {"STUDIO_NATIVE": "false"},
        {"PATH": ""},
    ],
    ids=str,
)
def test_without_a_compiler_torch_does_the_work(
    unbuilt: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.delenv("CC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    assert_torch_does_the_work()
    assert [path for path in unbuilt.rglob("*") if path.name != "native"] == []


def test_a_cache_that_cannot_be_written_leaves_the_work_to_torch(unbuilt: Path) -> None:
    unbuilt.write_text("a file where the folder should be")
    assert_torch_does_the_work()


@needs_compiler
def test_a_compiler_with_a_launcher_or_flags_is_one(unbuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "env cc -g0")
    assert library(SOURCE) is not None


@needs_compiler
def test_the_library_of_an_earlier_visit_is_used(unbuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library(SOURCE) is not None
    [made] = (unbuilt / "native").iterdir()
    before = made.stat().st_mtime_ns
    library.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert library(SOURCE) is not None
    assert made.stat().st_mtime_ns == before


LOAD = """
import torch
from studio.base.compiler import library
from studio.quantization.native.round_to_nearest import SOURCE
from studio.quantization.quantize import quantize
from studio.quantization.scheme import Mode, Scheme
assert quantize(torch.ones(3, 32), Scheme(Mode.INT8_ASYM)).square == 96
print("compiled" if library(SOURCE) else "torch")
"""


PATIENCE = 600
"""Seconds: compiling on a busy machine takes many times longer."""


def loading(**environment: str) -> "subprocess.Popen[str]":
    """Start a process that loads the library, or dies of it."""
    return subprocess.Popen(
        [sys.executable, "-c", LOAD], cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def another_library(file: Path) -> None:
    """Sound, but without our functions."""
    source = file.with_name("other.c")
    source.write_text("int other(void) { return 1; }")
    subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(file)], check=True)
    source.unlink()


@needs_compiler
@pytest.mark.parametrize("damage", [cut_in_half, another_library])
def test_a_library_that_was_damaged_is_made_anew(unbuilt: Path, damage: Callable[[Path], None]) -> None:
    """In a process of its own: loading half a library ends it, past any exception."""
    assert library(SOURCE) is not None
    [made] = (unbuilt / "native").iterdir()
    whole = made.read_bytes()
    made.unlink()  # the one in use stays as it is
    made.write_bytes(whole)
    damage(made)
    process = loading()
    assert process.communicate(timeout=PATIENCE)[0] == "compiled\n"
    assert process.returncode == 0


@needs_compiler
def test_two_processes_that_compile_at_once_do_not_disturb_each_other(unbuilt: Path) -> None:
    both = [loading(), loading()]
    assert [process.communicate(timeout=PATIENCE)[0] for process in both] == ["compiled\n"] * 2
    assert {path.suffix for path in (unbuilt / "native").iterdir()} == {".so"}


@needs_compiler
def test_a_library_that_somebody_planted_is_not_loaded(unbuilt: Path) -> None:
    """By its name it is what is looked for, and its own checksum stands in it."""
    assert library(SOURCE) is not None
    folder = unbuilt / "native"
    [made] = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    start = made.stem.rpartition("-")[0]
    made.unlink()
    planted = folder / "planted.so"
    another_library(planted)
    content = planted.read_bytes()
    for digits in (16, 32):
        planted.with_name(f"{start}-{hashlib.sha256(content).hexdigest()[:digits]}.so").write_bytes(content)
    planted.unlink()
    process = loading()
    assert process.communicate(timeout=PATIENCE)[0] == "compiled\n"
    assert process.returncode == 0
