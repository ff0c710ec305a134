"""Processes under a system that refuses, children that hang, and what is said of each end."""

import contextlib
import errno
import importlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.base.errors import Cancelled, ProcessError
from studio.base.settings import settings
from studio.base.workers import Ending, ProcessWorker, forking, in_worker, pulse, start, worker, zygote
from studio.base.workers import child as child_module
from studio.base.workers.forking import MESSAGE, ZYGOTE, Zygote
from studio.checkpoint.gguf import source
from tests import worker_jobs as jobs

PATIENCE = 300
"""Seconds for what takes milliseconds: machines that test are busy."""


@pytest.fixture
def process() -> Iterator[ProcessWorker]:
    made = ProcessWorker()
    yield made
    made.close()


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A zygote's loop in a thread of this process, which forks nothing."""
    monkeypatch.setattr(zygote, "PRELOAD", ())
    monkeypatch.setattr(zygote.shared_page, "create", lambda: None)
    monkeypatch.setattr(zygote.gc, "freeze", lambda: None)
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
    return json.dumps({"op": "fork", "target": "", "args": [], "memory": memory, "env": {}}).encode()


# what the system refuses


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
    monkeypatch.setattr(child_module, "DYING", 0.01)
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


# workers that hang


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TICK", 0.05)
    monkeypatch.setattr(pulse, "EVERY", 0.04)
    monkeypatch.setattr(pulse, "HUNG", 0.5)
    monkeypatch.setattr(worker, "PATIENCE", 0.3)


@pytest.mark.parametrize("job", [jobs.stopped, jobs.locked], ids=["stopped", "locked"])
def test_a_worker_that_stands_still_is_ended(process: ProcessWorker, impatient: None, job: Callable[[], None]) -> None:
    with pytest.raises(ProcessError) as caught:
        process.call(job)
    assert caught.value.key == "worker_hung"
    assert not process.is_alive


@pytest.mark.parametrize("job", [(jobs.stopped,), (jobs.computed, PATIENCE)], ids=["stands", "computes"])
def test_an_answer_that_nobody_wants_ends_its_worker(
    process: ProcessWorker, impatient: None, monkeypatch: pytest.MonkeyPatch, job: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(pulse, "HUNG", PATIENCE)
    monkeypatch.setattr(worker, "LONGEST", 1.0)
    unwanted = threading.Event()
    threading.Timer(0.2, unwanted.set).start()
    with pytest.raises(Cancelled):
        process.call(*job, is_unwanted=unwanted.is_set)
    assert not process.is_alive


def test_a_step_that_ends_in_time_is_given_though_nobody_wants_it(process: ProcessWorker) -> None:
    """Whoever asked for it says that it is stopped, and lets the job close what it holds."""
    assert process.call(jobs.slept, 0.8, is_unwanted=lambda: True) == "slept"
    assert process.is_alive


def test_a_generator_in_a_worker_of_its_own_is_given_up_on_too(impatient: None) -> None:
    def stands() -> Iterator[object]:
        return in_worker(still, is_unwanted=lambda: True)

    with pytest.raises(Cancelled):
        list(stands())


def still() -> Generator[int, None, None]:
    jobs.stopped()
    yield 1


def test_a_job_that_does_not_close_is_ended(process: ProcessWorker, impatient: None) -> None:
    steps = process.run(unclosing)
    next(steps)
    steps.close()
    assert not process.is_alive


def test_a_conversion_that_stands_still_is_ended(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "TICK", 0.05)
    monkeypatch.setattr(source, "start", lambda *_: start("tests.worker_jobs:standing"))
    with pytest.raises(ProcessError) as caught:
        list(source._converted(SimpleNamespace(file=Path("m.gguf"), tokenizer_seconds=5), Path("m")))  # type: ignore[arg-type]
    assert caught.value.key == "worker_hung"


def unclosing() -> Generator[int, None, None]:
    try:
        while True:
            yield 1
    finally:
        jobs.stopped()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += pulse.EVERY
        return self.now


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two children of process 1: numbers 2 and 3."""
    monkeypatch.setattr(pulse, "PROC", tmp_path)
    monkeypatch.setattr(pulse, "time", Clock())
    monkeypatch.setattr(pulse, "HUNG", 20.0)
    monkeypatch.setattr(pulse, "HUNG_ALONE", 100.0)
    for pid in (2, 3):
        (tmp_path / str(pid) / "task" / str(pid)).mkdir(parents=True)
        tell(tmp_path, pid)
    (tmp_path / "1" / "task" / "1").mkdir(parents=True)
    (tmp_path / "1" / "task" / "1" / "children").write_text("2 3 ")
    return tmp_path


def tell(proc: Path, pid: int, state: str = "S", ticks: int = 0) -> None:
    line = f"{pid} (a) b) {state} 1 " + " ".join(["0"] * 9) + f" {ticks} 0 0 0"
    (proc / str(pid) / "stat").write_text(line)
    (proc / str(pid) / "task" / str(pid) / "stat").write_text(line)


def seen(proc: Path, looks: int, pid: int = 2, **told: Any) -> pulse.Watch:
    """Look so often, ``EVERY`` seconds apart; what is told is told before each look, ``ticks`` growing."""
    watch = pulse.Watch(2)
    for i in range(looks):
        if told:
            tell(proc, pid, told.get("state", "S"), i * told.get("ticks", 0))
        watch.look()
    return watch


def test_all_that_do_nothing_hang(proc: Path) -> None:
    assert not seen(proc, 9).is_hung
    assert seen(proc, 15).is_hung


def test_one_that_waits_for_another_does_not_hang_unless_it_takes_too_long(proc: Path) -> None:
    assert not seen(proc, 40, pid=3, ticks=1).is_hung
    assert seen(proc, 60, pid=3, ticks=1).is_hung


def test_one_that_computes_or_waits_for_a_disk_does_not_hang(proc: Path) -> None:
    assert not seen(proc, 60, ticks=1).is_hung
    assert not seen(proc, 60, state="D").is_hung


def test_one_that_waits_for_a_compiler_does_not_hang(proc: Path) -> None:
    (proc / "2" / "task" / "7").mkdir()  # a thread
    (proc / "2" / "task" / "7" / "children").write_text("8 ")
    (proc / "8" / "task" / "8").mkdir(parents=True)
    assert not seen(proc, 60, pid=8, ticks=1).is_hung


def test_one_that_is_stopped_hangs_whatever_others_do(proc: Path) -> None:
    watch = pulse.Watch(2)
    tell(proc, 2, "T")
    for i in range(15):
        tell(proc, 3, ticks=i)
        watch.look()
    assert watch.is_hung


def test_nothing_hangs_where_nothing_is_known(proc: Path) -> None:
    watch = pulse.Watch(4)
    for _ in range(60):
        watch.look()
    assert not watch.is_hung


# ends


def test_a_worker_that_was_ended_while_idle_is_seen_as_gone(process: ProcessWorker) -> None:
    process.call(jobs.pid)
    assert process.is_alive
    os.kill(process._child.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while process.is_alive and time.monotonic() < until:
        time.sleep(0.01)
    assert not process.is_alive
    with pytest.raises(ProcessError) as caught:
        process.call(jobs.pid)
    assert caught.value.key == "worker_memory"


def test_a_sound_worker_whose_answer_is_lost_was_not_short_of_memory(
    process: ProcessWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LAST_BREATH", 0.1)
    with pytest.raises(ProcessError) as caught:
        process.call(jobs.unanswered)
    assert caught.value.key == "worker_hung"


@pytest.mark.parametrize(
    ("ending", "key", "reason"),
    [
        (Ending(-signal.SIGSEGV), "worker_crashed", "SIGSEGV"),
        (Ending(3), "worker_crashed", "exit 3"),
        (Ending(-40), "worker_crashed", "signal 40"),
        (Ending(-signal.SIGKILL), "worker_memory", None),
        (Ending(-signal.SIGKILL, was_ended=True), "worker_hung", None),
        (Ending(None), "worker_orphaned", None),
        (Ending(None, was_ended=True), "worker_hung", None),
    ],
)
def test_an_end_is_told_by_its_kind(ending: Ending, key: str, reason: str | None) -> None:
    error = ending.error()
    assert error.key == key
    assert error.values.get("reason") == reason
    assert "None" not in ending.reason


@pytest.mark.parametrize("job", [jobs.mute, jobs.unpicklable], ids=["error", "result"])
def test_what_cannot_be_sent_is_an_error_all_the_same(process: ProcessWorker, job: Callable[[], object]) -> None:
    with pytest.raises(Exception, match=r"Mute|[Pp]ickle|local object"):
        process.call(job)
    assert process.is_alive
    assert process.call(jobs.pid) > 0


def test_a_worker_without_threads_left_refuses_the_job_alone(process: ProcessWorker) -> None:
    counter = process.make(jobs.Counter, 1)
    process.call(jobs.threadless)
    with pytest.raises(RuntimeError, match="new thread"):
        process.call(jobs.raised, counter, 1)
    assert process.is_alive


def test_jobs_leave_no_descriptors(process: ProcessWorker) -> None:
    process.call(jobs.pid)
    ours, theirs = jobs.descriptors(), process.call(jobs.descriptors)
    for i in range(500):
        if i % 5:
            process.call(jobs.pid)
        elif i % 2:
            steps = process.run(jobs.counted, 3)
            next(steps)
            steps.close()
        else:
            with pytest.raises(EOFError):
                process.call(jobs.cut_short)
    assert jobs.descriptors() <= ours
    until = time.monotonic() + PATIENCE
    while process.call(jobs.descriptors) > theirs and time.monotonic() < until:
        time.sleep(0.01)  # a thread that has answered closes its socket a moment later
    assert process.call(jobs.descriptors) <= theirs


def test_children_leave_no_descriptors() -> None:
    start("tests.worker_jobs:echoed", "").end()
    before = jobs.descriptors()
    for _ in range(10):
        start("tests.worker_jobs:echoed", "").end()
    for _ in range(10):
        start("tests.worker_jobs:echoed", "")
    assert jobs.descriptors() == before
