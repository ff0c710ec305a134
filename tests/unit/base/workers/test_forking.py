"""Processes under a system that refuses: a fork that fails is an answer, and costs nobody their worker."""

import contextlib
import errno
import gc
import importlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ProcessError
from studio.base.settings import settings
from studio.base.workers import Ending, ProcessWorker, forking, shared_page, start, zygote
from studio.base.workers import child as child_module
from studio.base.workers.forking import MESSAGE, ZYGOTE, Zygote
from tests import worker_jobs as jobs
from tests.worker_jobs import PATIENCE


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A zygote's loop in a thread of this process, which forks nothing."""
    monkeypatch.setattr(zygote, "PRELOAD", ())
    monkeypatch.setattr(shared_page, "create", lambda: None)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "collect", lambda: None)  # all that the tests have imported: a second
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.settimeout(PATIENCE)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE)
    thread = threading.Thread(target=zygote.serve, args=(theirs,))
    thread.start()
    yield ours
    ours.close()
    thread.join(PATIENCE)
    theirs.close()
    assert not thread.is_alive()


def asked(place: socket.socket, message: bytes, *fds: int) -> dict[str, Any]:
    socket.send_fds(place, [message], fds)
    answer: dict[str, Any] = json.loads(place.recv(1 << 16))
    return answer


def fork_request(memory: int | None = None) -> bytes:
    return json.dumps({"op": "fork", "target": "", "args": [], "memory": memory, "env": {}, "folder": None}).encode()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_fork_that_fails_is_an_answer(asking: socket.socket, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fork() -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "fork", fork)
    assert asked(asking, fork_request(), asking.fileno()) == {"error": number}
    open_before = jobs.descriptors()
    for _ in range(3):
        assert asked(asking, fork_request(), asking.fileno()) == {"error": number}
    assert jobs.descriptors() == open_before


@pytest.mark.parametrize(
    ("message", "number"),
    [
        (b"{", errno.EINVAL),
        (b"[]", errno.EINVAL),
        (b"{}", errno.EINVAL),
        (b'{"op": "reap"}', errno.EINVAL),
        (b'{"op": "reap", "pid": "one"}', errno.EINVAL),
        (b" " * (MESSAGE + 1), errno.EMSGSIZE),
        (fork_request(), errno.EMFILE),
    ],
    ids=["cut", "list", "empty", "no-pid", "odd-pid", "long", "no-socket"],
)
def test_a_request_that_cannot_be_is_an_answer(asking: socket.socket, message: bytes, number: int) -> None:
    assert asked(asking, message) == {"error": number}
    assert asked(asking, message) == {"error": number}


def test_a_fork_that_fails_costs_nobody_their_worker(process: ProcessWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    process.call(jobs.pid)
    before = ZYGOTE._process
    monkeypatch.setattr(forking, "MESSAGE", 10)
    with pytest.raises(ProcessError) as caught:
        ProcessWorker()
    assert caught.value.key == "no_process"
    assert os.strerror(errno.E2BIG) in str(caught.value)
    monkeypatch.undo()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)), socket.socket() as some:
        ZYGOTE.fork({"op": "fork"}, some)
    assert ZYGOTE._process is before
    assert process.call(jobs.pid) > 0


def test_a_zygote_that_does_not_answer_is_left_alone_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next question goes to another: a late answer would be taken for its own."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    silent = Zygote()
    monkeypatch.setattr(forking, "ANSWERING", 0.05)
    silent.inherit(ours)
    with theirs, pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
        silent.fork({"op": "fork"}, theirs)
    assert silent._control is None
    assert silent.reap(1, 0) is None
    silent.close()
    assert ours.fileno() == -1


def test_a_number_of_an_earlier_zygote_is_nobodys() -> None:
    child = start("tests.worker_jobs:echoed", "")
    assert ZYGOTE.reap(child.pid, ZYGOTE._generation - 1) is None
    assert child.end() == -signal.SIGKILL


def test_children_that_nobody_waits_for_are_waited_for_later() -> None:
    pids = []
    for _ in range(3):
        child = start("tests.worker_jobs:echoed", "")
        pids.append(child.pid)
        del child
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        start("tests.worker_jobs:echoed", "").end()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_one_that_is_slow_to_die_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    child = start("tests.worker_jobs:echoed", "")
    monkeypatch.setattr(child_module, "KILL_SECONDS", 0.01)
    monkeypatch.setattr(child._process, "kill", lambda: None)
    ending = child.ended()
    assert ending == Ending(None, was_ended=True)
    assert ending.error().key == "worker_hung"
    start("tests.worker_jobs:echoed", "").end()  # waits for none of the others
    with contextlib.suppress(ProcessLookupError):  # its socket was closed, which may have ended it by now
        os.kill(child.pid, signal.SIGKILL)


def test_the_page_starts_the_zygote_also_without_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = importlib.import_module("studio.ui.launch")  # its name is also the function's

    class Warm(Exception):  # noqa: N818
        """It was."""

    def warm_up() -> None:
        raise Warm

    monkeypatch.setattr(settings(), "isolate", False)
    monkeypatch.setattr(launch.workers, "warm_up", warm_up)
    with pytest.raises(Warm):
        launch.launch()
