"""Errors as a person reads them: a stranger writes nothing on their screen, and memory that ends is known as such."""

import errno
import pickle
from pathlib import Path

import pytest

from studio.base.errors import (
    MAX_SHOWN,
    CheckpointError,
    ResourceError,
    UserError,
    disk_error,
    is_out_of_memory,
    printable,
)


@pytest.mark.parametrize(
    ("words", "shown"),
    [("plain 模型", "plain 模型"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202eevil", "\\u202eevil")],
    ids=["plain", "line", "terminal", "direction"],
)
def test_what_is_no_plain_character_is_escaped(words: str, shown: str) -> None:
    assert printable(words) == shown
    assert shown in CheckpointError("missing_file", file=words).sentence()


def test_a_value_without_end_is_cut() -> None:
    sentence = CheckpointError("missing_file", file="a" * 10_000).sentence()
    assert "a" * MAX_SHOWN + "…" in sentence
    assert "a" * (MAX_SHOWN + 1) not in sentence


def test_a_number_of_thousands_of_digits_is_shown_too() -> None:
    assert "0x1000" in CheckpointError("missing_file", file=1 << 40_000).sentence()


def test_an_error_passes_from_one_process_to_another() -> None:
    error = pickle.loads(pickle.dumps(ResourceError("memory", need="2 GB", free="1 GB")))
    assert type(error) is ResourceError
    assert (error.key, error.values) == ("memory", {"need": "2 GB", "free": "1 GB"})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_is_full_is_called_so(number: int) -> None:
    assert disk_error(OSError(number, "full"), Path("/there/file")).key == "export_disk_full"


def test_what_else_the_disk_says_is_passed_on() -> None:
    error = disk_error(OSError(errno.EACCES, "Permission denied"), Path("/there/file"))
    assert (error.key, error.values["reason"]) == ("cannot_write", "Permission denied")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, ""), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("can't start new thread"), True),
        (ValueError("can't allocate memory"), False),
        (OSError(errno.ENOENT, ""), False),
        (UserError("memory", need="1 GB", free="0 B"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_memory_that_ended_is_known_however_it_is_said(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_it_is_known_through_what_was_raised_from_it() -> None:
    outer = ValueError("cannot be read")
    outer.__cause__ = MemoryError()
    assert is_out_of_memory(outer)
    outer.__cause__.__cause__ = outer  # a ring ends
    assert is_out_of_memory(outer)
