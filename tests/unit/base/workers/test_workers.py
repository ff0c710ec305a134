"""Processes that compute for the server: what they answer, and what is left when one of them ends."""

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.base.errors import ProcessError, ResourceError
from studio.base.settings import settings
from studio.base.workers import Here, Limits, ProcessWorker, Worker, in_worker, new_worker, start
from studio.base.workers.environment import environment, is_given
from studio.base.workers.forking import ZYGOTE
from studio.base.workers.zygote import most_memory
from tests import worker_jobs as jobs


@pytest.fixture(params=[ProcessWorker, Here], ids=["process", "here"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    made: Worker = request.param()
    yield made
    made.close()


@pytest.fixture
def process() -> Iterator[ProcessWorker]:
    made = ProcessWorker()
    yield made
    made.close()


def test_a_call_has_its_result(worker: Worker) -> None:
    assert (worker.call(jobs.pid) == os.getpid()) == isinstance(worker, Here)


def test_a_generator_has_its_steps_and_its_result(worker: Worker) -> None:
    found: list[object] = []

    def read() -> Iterator[int]:
        found.append((yield from worker.run(jobs.counted, 3)))

    assert list(read()) == [0, 1, 2]
    assert found == ["done"]


def test_a_step_ahead_of_the_reader_says_the_same(process: ProcessWorker, tmp_path: Path) -> None:
    found: list[object] = []

    def read() -> Iterator[int]:
        found.append((yield from process.run(jobs.counted, 3, is_ahead=True)))

    assert list(read()) == [0, 1, 2]
    assert found == ["done"]
    steps = process.run(jobs.noted, str(tmp_path / "note"), is_ahead=True)
    assert [next(steps), next(steps)] == [0, 1]
    steps.close()
    assert (tmp_path / "note").read_text() == "closed"
    with pytest.raises(EOFError):
        list(process.run(jobs.failing_later, is_ahead=True))
    assert process.is_alive


def test_what_is_kept_is_the_same_object_for_every_job(worker: Worker) -> None:
    counter = worker.make(jobs.Counter, 2)
    assert worker.call(jobs.raised, counter, 3) == 5
    assert worker.call(jobs.raised, counter, 3) == 8


def test_what_nobody_holds_is_forgotten(process: ProcessWorker) -> None:
    counter = process.make(jobs.Counter)
    number = counter.number
    del counter
    process.call(jobs.pid)
    with pytest.raises(KeyError):
        process.call(jobs.raised, _Numbered(number), 1)


def _Numbered(number: int) -> object:  # noqa: N802 - reads as a handle
    from studio.base.workers import Handle

    return Handle(number)


def test_closing_a_job_closes_what_it_holds(worker: Worker, tmp_path: Path) -> None:
    steps = worker.run(jobs.noted, str(tmp_path / "note"))
    assert [next(steps), next(steps)] == [0, 1]
    assert not (tmp_path / "note").exists()
    steps.close()
    assert (tmp_path / "note").read_text() == "closed"
    assert worker.is_alive


def test_an_error_for_the_user_arrives_as_it_was(worker: Worker) -> None:
    with pytest.raises(ResourceError) as caught:
        worker.call(jobs.refused)
    assert (caught.value.key, caught.value.values) == ("memory", {"need": "2 GB", "free": "1 GB"})


def test_any_other_error_arrives_with_where_it_came_from(process: ProcessWorker) -> None:
    with pytest.raises(EOFError, match="cut short") as caught:
        process.call(jobs.cut_short)
    assert "worker_jobs.py" in caught.value.__notes__[0]
    assert process.is_alive


def test_an_error_that_cannot_travel_arrives_by_its_words(process: ProcessWorker) -> None:
    with pytest.raises(RuntimeError, match="Odd: odd"):
        process.call(jobs.odd)


@pytest.mark.parametrize(
    ("job", "key"), [(jobs.overrun, "worker_crashed"), (jobs.killed, "worker_memory")], ids=["fault", "memory"]
)
def test_a_worker_that_ends_is_a_sentence(process: ProcessWorker, job: object, key: str) -> None:
    with pytest.raises(ProcessError) as caught:
        process.call(job)  # type: ignore[arg-type]
    assert caught.value.key == key
    assert not process.is_alive
    with pytest.raises(ProcessError):
        process.call(jobs.pid)


def test_a_fault_between_two_steps_is_a_sentence_too() -> None:
    steps = in_worker(jobs.overrun_later)
    assert next(steps) == 1
    with pytest.raises(ProcessError, match="SIGSEGV"):
        next(steps)


def test_a_fault_in_one_worker_is_nothing_to_another(process: ProcessWorker) -> None:
    other = ProcessWorker()
    counter = other.make(jobs.Counter, 1)
    with pytest.raises(ProcessError):
        process.call(jobs.overrun)
    assert other.call(jobs.raised, counter, 1) == 2
    other.close()


def test_a_worker_does_several_jobs_at_once(process: ProcessWorker) -> None:
    process.call(jobs.pid)
    steps = process.run(jobs.counted, 2)
    next(steps)
    assert process.call(jobs.pid) > 0  # while the generator stands still
    assert list(steps) == [1]


def test_a_worker_that_is_closed_ends_what_waits_for_it(process: ProcessWorker) -> None:
    caught: list[ProcessError] = []

    def wait() -> None:
        try:
            process.call(jobs.slept, 60)
        except ProcessError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    process.close()
    thread.join(300)
    assert [error.key for error in caught] == ["worker_closed"]


def test_a_worker_ends_with_its_last_reference() -> None:
    worker = ProcessWorker()
    number = worker.call(jobs.pid)
    del worker
    for _ in range(10_000):
        if not _runs(number):
            break
        time.sleep(0.02)
    assert not _runs(number)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_zygote_that_was_killed_is_started_again_and_what_went_with_it_is_said_so(process: ProcessWorker) -> None:
    process.call(jobs.pid)
    assert ZYGOTE._process is not None
    os.kill(ZYGOTE._process.pid, signal.SIGKILL)
    with pytest.raises(ProcessError) as caught:
        process.call(jobs.slept, 600)
    assert caught.value.key == "worker_orphaned"
    worker = ProcessWorker()
    assert worker.call(jobs.pid) != os.getpid()
    worker.close()


def test_a_child_may_take_so_much_memory_and_no_more() -> None:
    child = start("tests.worker_jobs:hoarding", limits=Limits(memory=100 << 20))
    assert child.socket.recv(100) == b"refused"
    child.end()


def test_a_child_is_given_its_arguments_and_ended() -> None:
    child = start("tests.worker_jobs:echoed", "you said ")
    child.socket.sendall(b"hello")
    assert child.socket.recv(100) == b"you said hello"
    assert child.end() == -signal.SIGKILL
    assert child.end() == -signal.SIGKILL


def test_children_see_the_environment_of_now_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_TEST_WORD", "here")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    worker = ProcessWorker()
    assert worker.call(jobs.environment, "STUDIO_TEST_WORD") == "here"
    assert worker.call(jobs.environment, "HF_TOKEN") is None
    worker.close()


def test_a_worker_reads_the_same_file_by_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is forked from began elsewhere, and stays there."""
    ZYGOTE.warm_up()
    monkeypatch.chdir(tmp_path)
    worker = ProcessWorker()
    assert worker.call(jobs.folder) == tmp_path
    worker.close()
    removed = tmp_path / "removed"
    removed.mkdir()
    monkeypatch.chdir(removed)
    removed.rmdir()
    worker = ProcessWorker()
    assert worker.call(jobs.pid) != os.getpid()
    worker.close()


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "HF_AUTH", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "OPENAI_KEY", "SSH_KEY", "SSH_AUTH_SOCK",
        "DATABASE_URL", "GH_PAT", "PASSPHRASE", "DB_PASSWORD", "COOKIE", "GOOGLE_APPLICATION_CREDENTIALS",
        "HTTPS_PROXY", "STUDIO_SECRET", "PYTHON_GH_PAT", "PYTHONSTARTUP", "PORT", "GRADIO_AUTH",
    ],
)  # fmt: skip
def test_children_are_not_given(name: str) -> None:
    assert not is_given(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "LC_ALL", "TMPDIR", "STUDIO_CACHE_DIR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD",
        "ASAN_OPTIONS", "TSAN_OPTIONS", "HF_HOME", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "PYTHONPATH", "CC",
        "TOKENIZERS_PARALLELISM",
    ],
)  # fmt: skip
def test_children_are_given(name: str) -> None:
    assert is_given(name)


def test_a_child_of_a_page_open_to_others_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take the owner's login; the address may come from a variable that it is not given, or from none."""
    monkeypatch.setattr(settings(), "host", "0.0.0.0")
    assert environment()["STUDIO_HOST"] == "0.0.0.0"


def test_a_child_finds_this_package_from_any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    first, *others = environment()["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "studio" / "base" / "workers").is_dir()
    assert others == ["/elsewhere"]


def test_the_settings_say_which_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_ISOLATE", "0")
    settings.cache_clear()
    try:
        assert isinstance(new_worker(), Here)
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_workers_take_turns_at_compiled_code_and_outlive_one_that_dies_in_its_turn() -> None:
    first, second = ProcessWorker(), ProcessWorker()
    assert first.call(jobs.turn_taken, 1) > 0

    def wait() -> None:
        with pytest.raises(ProcessError):
            first.call(jobs.turn_taken, 1 << 30)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    os.kill(first._child.pid, signal.SIGKILL)
    waiting.join(300)
    assert not waiting.is_alive()
    assert second.call(jobs.turn_taken, 10) > 0
    second.close()


@pytest.mark.parametrize(("allowed", "most"), [(resource.RLIM_INFINITY, 300), (200, 200), (400, 300)])
def test_a_child_asks_for_no_more_memory_than_the_server_itself_may_have(allowed: int, most: int) -> None:
    """Under ``ulimit -v`` every tokenizer's process ended with a traceback."""
    assert most_memory(300, allowed) == most
