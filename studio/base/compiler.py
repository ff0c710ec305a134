"""C source -> a library in memory, compiled once a machine and kept in the cache folder.

Knows nothing of what is compiled.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from studio.base.private_folder import code_folder, is_sealed, seal
from studio.base.settings import settings

LOG = logging.getLogger(__name__)
FLAGS = ("-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""No -ffast-math: the numbers are to be those of the torch code. No contraction: torch does not fuse either."""
FUSED_FLAGS = (*(flag for flag in FLAGS if flag != "-ffp-contract=off"), "-ffp-contract=fast", "-Wno-psabi")
"""For what need not be equal bit for bit: products and sums in one instruction."""
FOLDER = "native"
"""Within the cache folder; the account's alone."""
PATIENCE = 120
"""Seconds a compiler may take."""


@cache
def library(source: Path, flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL | None:
    """Return the compiled ``source``, None where there is no compiler or it fails: torch then does the work."""
    try:
        file = made(source, flags)
        return None if file is None else ctypes.CDLL(str(file))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        LOG.info("%s runs on torch instead of compiled code: %s", source.name, error)
        return None


def made(source: Path, flags: tuple[str, ...] = FLAGS) -> Path | None:
    """Return the file that ``source`` is compiled into, making it where it is not here yet; None without a compiler.

    Raises OSError, ValueError or SubprocessError when it cannot be made.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not settings().native or compiler is None:
        return None
    tuned = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    flags = (*flags, tuned, *shlex.split(settings().native_flags))
    folder, name = code_folder(settings().cache_dir / FOLDER), f"{source.stem}-{_key(source, compiler, flags)}"
    return next(filter(_is_ours, folder.glob(f"{name}-*.so")), None) or _compiled(compiler, flags, source, folder, name)


def _compiled(compiler: str, flags: tuple[str, ...], source: Path, folder: Path, name: str) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "made.so"
        # CC may hold a launcher or flags: "ccache gcc".
        command = [*shlex.split(compiler), *flags, str(source), "-o", str(made), "-lm", "-lpthread"]
        _run(command)
        file = folder / f"{name}-{seal(folder, made.read_bytes())}.so"
        made.replace(file)  # whole or not at all, also when two processes compile at once
        return file


def _run(command: Sequence[str]) -> None:
    """Run a compiler to its end. Raises OSError, or SubprocessError where it fails or takes too long.

    It starts other programs, which end with it: cc1 would go on for minutes after cc.
    """
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, process_group=0) as compiler:
        try:
            status = compiler.wait(PATIENCE)
        except BaseException:
            os.killpg(compiler.pid, signal.SIGKILL)
            raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def _is_ours(file: Path) -> bool:
    """Return whether a library is as we made it: loading one that was cut short would end the process, and one that
    somebody else put there would run what they like."""
    return is_sealed(file.parent, file.read_bytes(), file.stem.rpartition("-")[2])


def _key(source: Path, compiler: str, flags: tuple[str, ...]) -> str:
    """Return a name for this source on this processor: code tuned for one may not run on another."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    text = [file.read_text() for file in (source, *sorted(source.parent.glob("*.h")))]
    parts = (text, compiler, flags, platform.machine(), platform.processor(), features)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
