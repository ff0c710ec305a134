"""The pool of models: resting conversations make room, and who waits for a model that loads waits alone."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.base.errors import ResourceError
from studio.chat import model_pool as pool_module
from studio.chat.columns import original_column
from studio.chat.conversation import Conversation
from studio.chat.model_pool import Pool
from studio.chat.worker_model import Prefix
from studio.checkpoint.checkpoint import of_folder
from tests.conversations import LONG


class Held(Prefix):
    """A resting conversation of a size that was made up."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.nbytes = size


def test_resting_conversations_make_room_for_a_model_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, reads = Pool(), [Held(100) for _ in range(4)]
    monkeypatch.setattr(pool_module, "available_memory", lambda: 10_000 - sum(read.nbytes for read in reads))
    for read in reads:
        pool.keep(read)
    pool.resume(reads[1])
    loaded = SimpleNamespace(weight_bytes=8_800, is_alive=True, close=lambda: None)
    with pool.borrow("model", 8_800, lambda: loaded):  # type: ignore[arg-type, return-value]
        assert [read.nbytes for read in reads] == [0, 100, 0, 100]  # the second goes on, the last need not go
    with pytest.raises(ResourceError):
        pool.borrow("other", 100_000, lambda: loaded).__enter__()  # type: ignore[arg-type, return-value]


def test_resting_conversations_take_a_share_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "available_memory", lambda: 1_000)
    pool, reads = Pool(), [Held(100) for _ in range(4)]
    for read in reads:
        pool.keep(read)
    assert [read.nbytes for read in reads] == [0, 0, 100, 100]


def test_a_conversation_that_is_forgotten_gives_its_caches_back(folder: Path) -> None:
    talk, checkpoint, pool = Conversation(), of_folder(folder), Pool()
    columns = [lambda: original_column(checkpoint)]
    list(talk.answer(pool, columns, "one two", LONG))
    [read] = talk._prefixes.values()
    assert read.nbytes > 0
    assert talk.messages(0)[0]["content"] == "one two"
    talk.forget()
    assert read.nbytes == 0
    assert talk.turns == ()


def test_others_come_and_go_while_a_model_loads_and_who_wants_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock was held meanwhile: a load that hangs would have stopped everyone."""
    monkeypatch.setattr(pool_module, "available_memory", lambda: 1_000)
    pool, may_load, waiting = Pool(), threading.Event(), threading.Event()
    model: Any = SimpleNamespace(weight_bytes=10, is_alive=True, close=lambda: None)
    loads: list[str] = []

    def slowly() -> Any:
        loads.append("slow")
        waiting.set()
        assert may_load.wait(30)
        return model

    def borrow(found: list[Any]) -> None:
        with pool.borrow("slow", 500, slowly) as lent:
            found.append(lent)

    found: list[Any] = []
    threads = [threading.Thread(target=borrow, args=(found,)) for _ in range(2)]
    threads[0].start()
    assert waiting.wait(30)
    threads[1].start()
    assert pool.free() == 400  # what is coming counts as taken
    with pool.borrow("other", 300, lambda: model):
        assert pool.free() == 400
    with pytest.raises(ResourceError), pool.borrow("third", 500, lambda: model):
        pass
    may_load.set()
    for thread in threads:
        thread.join(30)
    assert found == [model, model]
    assert loads == ["slow"]


def test_a_model_that_cannot_be_loaded_is_tried_again_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()

    def fail() -> Any:
        raise ResourceError("answer_memory")

    with pytest.raises(ResourceError), pool.borrow("model", 1, fail):
        pass
    model: Any = SimpleNamespace(weight_bytes=10, is_alive=True, close=lambda: None)
    with pool.borrow("model", 1, lambda: model) as lent:
        assert lent is model
