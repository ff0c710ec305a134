"""A file written from beginning to end: its checksum, its size, and what a disk that fills up leaves."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from studio.export import checksummed_file
from studio.export.checksummed_file import ChecksummedFile
from tests.full_disk import largest_file


def test_bytes_and_tensors_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksummed_file, "SYNC_BYTES", 1000)
    rows = torch.randint(0, 256, (40, 100), dtype=torch.uint8)
    expected = b"head" + rows.numpy().tobytes() + rows.T.contiguous().numpy().tobytes() + b""
    with ChecksummedFile(tmp_path / "file", len(expected)) as out:
        for piece in (b"head", rows[:7], rows[7:], rows.T, b""):
            out.write(piece)
    assert (tmp_path / "file").read_bytes() == expected
    assert out.sha256 == hashlib.sha256(expected).hexdigest()
    assert out.written == len(expected)


def test_fewer_bytes_than_promised_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="4 bytes instead of 5"), ChecksummedFile(tmp_path / "file", 5) as out:
        out.write(b"head")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system takes no space beforehand")
def test_a_full_disk_is_found_before_the_first_byte(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError, match="File too large"), ChecksummedFile(tmp_path / "file", 2000):
        raise AssertionError("never reached")


def test_what_fails_within_is_what_is_raised(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ChecksummedFile(tmp_path / "file", 10):
        raise KeyError
