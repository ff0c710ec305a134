"""The key of local files changes when what is in them does, even where size and time are as before."""

import os
from pathlib import Path

from studio.checkpoint.checkpoint import fingerprint


def test_a_file_rewritten_with_its_time_kept_has_another_key(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"a" * 100)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    before = fingerprint([file])
    assert fingerprint([file]) == before
    file.write_bytes(b"b" * 100)
    os.utime(file, ns=times)
    assert fingerprint([file]) != before
