"""The process of a stranger's tokenizer: how it ends, and who notices."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError, ProcessError
from studio.base.workers.forking import ZYGOTE
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer
from tests.tokenizer_folders import DOUBLING, edit


def test_its_process_ends_with_it_and_knows_no_secrets(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    tokenizer = load_tokenizer(sound)
    pid = tokenizer._process._child.pid  # type: ignore[union-attr]
    assert b"hf_of_the_owner" not in Path(f"/proc/{pid}/environ").read_bytes()
    del tokenizer
    until = time.monotonic() + 30
    while time.monotonic() < until and is_running(pid):
        time.sleep(0.01)
    assert not is_running(pid)


def test_a_process_that_cannot_be_had_or_is_lost_is_no_fault_of_the_files(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(sound)
    with monkeypatch.context() as lost:
        lost.setattr(ZYGOTE, "reap", lambda *_: None)  # as where the zygote has ended too
        os.kill(tokenizer._process._child.pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(ProcessError) as caught:
            tokenizer.encode("a text")
    assert caught.value.key == "worker_orphaned"

    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, "refused")

    with monkeypatch.context() as full:
        full.setattr(ZYGOTE, "fork", refuse)
        with pytest.raises(ProcessError) as caught:
            tokenizer.encode("a text")
    assert caught.value.key == "no_process"
    assert tokenizer.encode("a text")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.usefixtures("hasty")
def test_the_next_question_is_answered_after_one_that_ended_the_process(folder: Path) -> None:
    edit(folder, lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [DOUBLING] * 40}))
    tokenizer = load_tokenizer(folder)
    with pytest.raises(CheckpointError) as caught:
        tokenizer.encode("a")
    assert caught.value.key in ("tokenizer_slow", "tokenizer_memory")
    assert tokenizer.decode(tokenizer.encode("o")) == "o"
