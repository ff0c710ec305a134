"""Folders that no other user of the machine reads or writes, and seals of what lies in them. Knows not what that is.

What is loaded as code must be ours: a file whose name carries its own checksum could be put there by whoever may write
to the folder. So the folder is the account's alone, and a seal is made with a key that only the account can read.
"""

import hashlib
import hmac
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

KEY_BYTES = 32
SEAL = 32
"""Hexadecimal digits."""


def make_private(folder: Path) -> Path:
    """Make a folder, with those above it, that is its owner's alone, and return it. Raises OSError where it is
    another's."""
    _claim(folder)
    return folder


def code_folder(wanted: Path) -> Path:
    """Return where code may be kept and loaded from: ``wanted``, or a folder of the account's own among those for
    temporary files where that is another's. One that others could write to is emptied first. Raises OSError."""
    try:
        was_open = _claim(wanted)
    except PermissionError:
        return _instead()
    for each in wanted.iterdir() if was_open else ():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
    return wanted


def _claim(folder: Path) -> bool:
    """Make or close a folder, and return whether others could write to it until now."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.stat()
    if not hasattr(os, "geteuid"):
        return False
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    was_open = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    if stat.S_IMODE(found.st_mode) & 0o077:
        try:
            folder.chmod(0o700)
        except OSError:
            if was_open:  # else a disk that can only be read
                raise
    return was_open


@cache
def _instead() -> Path:
    user = os.geteuid() if hasattr(os, "geteuid") else ""
    try:
        parent = make_private(Path(tempfile.gettempdir()) / f"quantization-studio-{user}")
    except PermissionError:  # somebody was faster
        parent = Path(tempfile.mkdtemp(prefix="quantization-studio-"))
    return make_private(parent / "code")


def seal(folder: Path, content: bytes) -> str:
    """Return what only this account can say of ``content``, for as long as the key beside the folder lasts.

    Raises OSError.
    """
    return hmac.new(_key(folder.resolve()), content, hashlib.sha256).hexdigest()[:SEAL]


def is_sealed(folder: Path, content: bytes, said: str) -> bool:
    """Return whether ``said`` is what :func:`seal` says."""
    return hmac.compare_digest(seal(folder, content).encode(), said.encode())


def _key(folder: Path) -> bytes:
    """Return the key of a folder's seals, made where there is none. Raises OSError, also for one that is not ours."""
    file = folder.with_name(f".{folder.name}-key")
    key = _read(file)
    if len(key) != KEY_BYTES:
        partial = file.with_name(f"{file.name}-{secrets.token_hex(8)}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
            made.write(secrets.token_bytes(KEY_BYTES))
        if key:
            partial.replace(file)  # it was cut short
        else:
            try:
                os.link(partial, file)  # of two processes that begin at once, one is first
            except FileExistsError:
                pass
            except OSError:  # a disk that knows no links
                partial.replace(file)
            partial.unlink(missing_ok=True)
        key = _read(file)
    return key


def _read(file: Path) -> bytes:
    """Return a key, nothing where there is none. Raises PermissionError for one that others can read or made."""
    try:
        opened = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return b""
    with os.fdopen(opened, "rb") as said:
        found = os.fstat(opened)
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077):
            raise PermissionError(f"{file} is not this account's alone")
        return said.read(KEY_BYTES + 1)
