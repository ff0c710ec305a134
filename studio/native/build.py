"""C source -> a library in memory, compiled once a machine and kept in the cache folder."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from studio.settings import settings

LOG = logging.getLogger(__name__)
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""No -ffast-math: the numbers are to be those of the torch code. No contraction: torch does not fuse either."""
PATIENCE = 120
"""Seconds a compiler may take."""


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """Return the compiled ``source``, None where there is no compiler or it fails: torch then does the work."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not settings().native or compiler is None:
        return None
    tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    try:
        folder, name = settings().cache_dir / "native", f"{source.stem}-{_key(source, compiler, tuned)}"
        made = next(filter(_is_whole, folder.glob(f"{name}-*.so")), None)
        return ctypes.CDLL(str(made or _compiled(compiler, tuned, source, folder, name)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        LOG.info("%s runs on torch instead of compiled code: %s", source.name, error)
        return None


def _compiled(compiler: str, tuned: str, source: Path, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "made.so"
        # CC may hold a launcher or flags: "ccache gcc".
        command = [*shlex.split(compiler), *FLAGS, tuned, str(source), "-o", str(made), "-lm", "-lpthread"]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        file = folder / f"{name}-{_checksum(made)}.so"
        made.replace(file)  # whole or not at all, also when two processes compile at once
        return file


def _is_whole(file: Path) -> bool:
    """Return whether a library is as it was made: loading one that was cut short would end the process."""
    return file.stem.endswith(_checksum(file))


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _key(source: Path, compiler: str, tuned: str) -> str:
    """Return a name for this source on this processor: code tuned for one may not run on another."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    parts = (source.read_text(), compiler, tuned, FLAGS, platform.machine(), platform.processor(), flags)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
