"""``python -m tests.sanitized [NAME ...]``: the compiled code's tests under ``address``, ``undefined`` and ``thread``.

Python itself is not built for them, so their libraries are loaded before it, and only what is compiled here is watched.
A whole server runs so too: ``environment`` below says what has to be set, and ``build`` what has to be done first.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python's own are many
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1 exitcode=66",
}
TESTS = (
    "runtime/test_guard_pages.py",
    "runtime/native/test_threads.py",
    "base/test_pointers.py",
    "runtime/native/test_products.py",
)
SHORT = ("runtime/native/test_threads.py", "runtime/test_guard_pages.py::test_whole_steps")
BUILD = """
from studio.base import compiler
from studio.quantization.native import round_to_nearest
from studio.runtime.native import products
compiler.PATIENCE = 3600
compiler.made(products.SOURCE, compiler.FUSED_FLAGS), compiler.made(round_to_nearest.SOURCE)
"""
"""Compiles without loading what it made: the sanitizer's library is not there. Checks of undefined behaviour in all
that is inlined take minutes, more than a server would wait for."""


def environment(name: str) -> dict[str, str]:
    """Return what a process needs to run the compiled code under a sanitizer."""
    flags = f"-fsanitize={name} -fno-sanitize-recover=all -g -O1"
    return {"STUDIO_NATIVE_FLAGS": flags, "LD_PRELOAD": _library(name), "STUDIO_CACHE_DIR": _cache(), **OPTIONS}


def build(name: str) -> None:
    """Compile for a sanitizer, in a process without it: the compiler would run under it too, many times as slowly."""
    plain = {key: value for key, value in environment(name).items() if key.startswith("STUDIO_")}
    subprocess.run([sys.executable, "-c", BUILD], cwd=ROOT, env=os.environ | plain, check=True)


def run(name: str, tests: Sequence[str], more: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run unit tests under a sanitizer."""
    paths = [f"tests/unit/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rs", "-p", "no:cacheprovider", *paths]
    if name == "thread":  # its memory has fixed places, which random ones would meet
        command = ["setarch", "-R", *command]
    minutes_to_compile = "tests/unit/runtime/native/test_products.py::test_processors_that_know_less"
    command += ["--deselect", minutes_to_compile]
    env = os.environ | environment(name) | dict(more or {})
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def is_sound(done: "subprocess.CompletedProcess[str]") -> bool:
    """Return whether tests passed, and none for want of the compiled code that they are about."""
    return done.returncode == 0 and " passed" in done.stdout and "needs a C compiler" not in done.stdout


def _cache() -> str:
    """Return where tests look for compiled code: what is built elsewhere they would compile again, or give up."""
    return os.environ.get("STUDIO_CACHE_DIR") or str(ROOT / ".pytest_cache" / "studio")


def _library(name: str) -> str:
    """Return what is loaded before Python: the sanitizer, and C++'s library, or it would not know exceptions."""
    names = (LIBRARIES[name], "libstdc++.so.6")
    found = [subprocess.run(["gcc", f"-print-file-name={each}"], capture_output=True, text=True) for each in names]
    return " ".join(each.stdout.strip() for each in found)


def main() -> int:
    failed = 0
    for name in sys.argv[1:] or LIBRARIES:
        build(name)
        done = run(name, TESTS)
        print(f"{name}: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else 'ended'}")
        if not is_sound(done):
            failed = 1
            print(done.stdout[-6000:], done.stderr[-6000:], sep="\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
