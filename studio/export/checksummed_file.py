"""A new file written from its beginning to its end: its checksum comes on the way, and the disk has it at the end.

The space is taken at once, so that a full disk is found before the work; what is written goes to the disk while more is
made, so that nothing long is left to wait for. Knows no format.
"""

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from studio.base.prefetch import BackgroundWriter

SYNC_BYTES = 64 << 20
"""Written between two hints to the disk."""
BEHIND = 3
"""Pieces that wait for their checksum."""


class ChecksummedFile:
    """Use as a context manager; leaving it well waits for the disk. Raises OSError for a full one."""

    def __init__(self, path: Path, nbytes: int) -> None:
        """``nbytes``: what the file will have."""
        self.path, self.nbytes = path, nbytes
        self.written = 0
        """Bytes."""
        self._sum = hashlib.sha256()
        self._since = 0
        self._syncing: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._file = self.path.open("wb", buffering=0)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, self.nbytes)
            self._sums = BackgroundWriter(BEHIND).__enter__()
            self._disk = ThreadPoolExecutor(1)
        except BaseException:
            self._file.close()
            raise
        return self

    def write(self, piece: bytes | Tensor) -> None:
        """Write what follows: bytes, or a tensor's, uint8."""
        data = piece if isinstance(piece, bytes) else piece.contiguous().flatten().numpy().data
        self._sums.do(self._sum.update, data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.written += len(data)
        self._since += len(data)
        if self._since >= SYNC_BYTES:
            self._since = 0
            self._settle()
            self._syncing.append(self._disk.submit(os.fdatasync, self._file.fileno()))

    @property
    def sha256(self) -> str:
        """The checksum of a file that was left well, in hexadecimal."""
        return self._sum.hexdigest()

    def _settle(self) -> None:
        """Wait for the hint under way. Raises what it did."""
        while self._syncing:
            self._syncing.pop().result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._sums.__exit__(kind, error, trace)
            if kind is None:
                self._settle()
                if self.written != self.nbytes:
                    raise RuntimeError(f"{self.path.name}: {self.written} bytes instead of {self.nbytes}")
                os.fsync(self._file.fileno())
        finally:
            self._disk.shutdown()
            self._file.close()
