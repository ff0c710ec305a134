"""Models that are loaded, shared by all sessions. Knows how much memory there is, not what the models are for.

Memory is admitted under one lock, and what is still loading counts as taken, so that two sessions cannot both take the
last gigabytes. A model in use is never dropped; of the others the one unused for longest goes first.
"""

import copy
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from studio.base.errors import ProcessError, ResourceError
from studio.base.malloc import release_free_memory
from studio.base.settings import settings
from studio.base.units import format_bytes
from studio.chat.worker_model import Prefix, WorkerModel
from studio.runtime.machine import available_memory

HEADROOM = 0.9
"""Share of the free memory a load may count on."""
KEEP = 6
"""Idle models kept for whoever comes back."""
READS = 0.25
"""Share of the free memory that idle conversations may hold in keys and values."""


@dataclass
class _Held:
    need: int
    """Bytes that loading it takes."""
    users: int = 0
    is_dropped: bool = False
    model: WorkerModel | None = None
    """None until it is loaded, and where that failed."""
    error: Exception | None = None
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def nbytes(self) -> int:
        """What it takes, or will."""
        return self.need if self.model is None else self.model.weight_bytes

    @property
    def is_lost(self) -> bool:
        """Whether its worker has ended, or it could not be loaded."""
        return self.error is not None or (self.model is not None and not self.model.is_alive)

    def give_up(self) -> None:
        """Close the model, now or when its last user returns it."""
        self.is_dropped = True
        if not self.users and self.model is not None:
            self.model.close()


class Pool:
    """Loaded models by key, with their users counted."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, _Held] = OrderedDict()
        self._prefixes: OrderedDict[int, Prefix] = OrderedDict()
        """Keys and values of conversations that rest, the longest first."""
        self._reserved = 0
        """Bytes of jobs that are no model of the pool's."""
        self._lock = threading.RLock()

    @contextmanager
    def borrow(self, key: str, need: int, load: Callable[[], WorkerModel]) -> Iterator[WorkerModel]:
        """Lend the model called ``key``, loading it when it is not there, or was lost with its worker.

        ``need``: bytes that loading takes. Raises ResourceError with the arithmetic when they are not free. While one
        visitor's model loads, others come and go; who wants the same one waits for it.
        """
        held, is_new = self._lent(key, need)
        try:
            if is_new:
                self._load(held, load)
            held.ready.wait()
            if held.model is None:
                assert held.error is not None
                raise copy.copy(held.error)
            yield held.model
        finally:
            with self._lock:
                held.users -= 1
                if held.is_dropped:
                    held.give_up()
                elif held.is_lost and self._models.get(key) is held:
                    self._give_up(key)
                for idle in self._idle()[:-KEEP]:
                    self._give_up(idle)

    def _lent(self, key: str, need: int) -> tuple[_Held, bool]:
        """Return the model called ``key`` with one user more, and whether it is to be loaded; memory is admitted."""
        with self._lock:
            held = self._models.get(key)
            if held is not None and held.is_lost:
                self._give_up(key)
                held = None
            is_new = held is None
            if held is None:
                self._make_room(need)
                held = self._models[key] = _Held(need)
            held.users += 1
            self._models.move_to_end(key)
            return held, is_new

    def _load(self, held: _Held, load: Callable[[], WorkerModel]) -> None:
        try:
            held.model = load()
        except Exception as error:
            held.error = error
            raise
        except BaseException:
            held.error = ProcessError("worker_closed")
            raise
        finally:
            held.ready.set()
            release_free_memory()

    @contextmanager
    def borrow_alone(self, need: int, load: Callable[[], WorkerModel]) -> Iterator[WorkerModel]:
        """Lend a model that nobody else will share, and close it afterwards. Raises as :meth:`borrow` does."""
        key = uuid.uuid4().hex
        try:
            with self.borrow(key, need, load) as model:
                yield model
        finally:
            self.drop(key)

    def drop(self, key: str) -> None:
        """Forget the model called ``key``, at once or when its last user returns it."""
        with self._lock:
            if key in self._models:
                self._give_up(key)

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget the models that rest but for these: nobody is there who would come back to them."""
        with self._lock:
            for idle in self._idle():
                if idle not in keys:
                    self._give_up(idle)

    def keep(self, prefix: Prefix) -> None:
        """Hold what a conversation has read until it goes on; it is forgotten when its memory is wanted."""
        with self._lock:
            self._prefixes[id(prefix)] = prefix
            while sum(each.nbytes for each in self._prefixes.values()) > available_memory() * READS:
                self._forget_oldest_prefix()

    def resume(self, prefix: Prefix) -> None:
        """Hold it no more: the conversation goes on with it, or has ended."""
        with self._lock:
            self._prefixes.pop(id(prefix), None)

    def free(self) -> int:
        """Return the bytes that models and conversations may still take."""
        budget = settings().model_memory
        with self._lock:
            coming = sum(held.need for held in self._models.values() if not held.ready.is_set())
            free = available_memory() * HEADROOM - coming - self._reserved
            if budget is not None:
                free = min(free, budget - sum(held.nbytes for held in self._models.values()))
        return max(0, int(free))

    def make_room(self, need: int) -> None:
        """Forget what rests until ``need`` bytes are free. Raises ResourceError with the arithmetic when short."""
        with self._lock:
            self._make_room(need)

    @contextmanager
    def reserved(self, need: int) -> Iterator[None]:
        """Keep ``need`` bytes for a job that is no model of the pool's. Raises as :meth:`make_room` does.

        What the job has taken already is counted twice: a model that is refused beside it can be had after it.
        """
        with self._lock:
            self._make_room(need)
            self._reserved += need
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= need

    def _make_room(self, need: int) -> None:
        while need > (free := self.free()):
            idle = self._idle()
            if self._prefixes:
                self._forget_oldest_prefix()
            elif idle:
                self._give_up(idle[0])
            else:
                raise ResourceError("memory", need=format_bytes(need), free=format_bytes(free))

    def _forget_oldest_prefix(self) -> None:
        _, prefix = self._prefixes.popitem(last=False)
        prefix.forget()

    def _give_up(self, key: str) -> None:
        self._models.pop(key).give_up()

    def _idle(self) -> list[str]:
        return [key for key, held in self._models.items() if not held.users]
