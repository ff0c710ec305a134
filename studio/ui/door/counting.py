"""How often somebody did something within a while. Knows neither who nor what."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

MAX_KEYS = 20_000
"""Of whom something is remembered at once; the one who was quiet longest is forgotten first."""


class Counting:
    """At most ``most`` times within ``seconds``, for each key."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._times: OrderedDict[Hashable, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, key: Hashable) -> float:
        """Return the seconds until the next time, 0 where it may be now. Counts nothing."""
        with self._lock:
            return self._wait(key, self._clock())

    def count(self, key: Hashable) -> float:
        """Count once where it may be now; return as :meth:`wait` does."""
        now = self._clock()
        with self._lock:
            wait = self._wait(key, now)
            if not wait:
                self._times.setdefault(key, deque()).append(now)
                self._times.move_to_end(key)
                while len(self._times) > MAX_KEYS:
                    self._times.popitem(last=False)
            return wait

    def _wait(self, key: Hashable, now: float) -> float:
        times = self._times.get(key)
        if times is None:
            return 0.0
        while times and now - times[0] >= self._seconds:
            times.popleft()
        if not times:
            del self._times[key]
        return 0.0 if len(times) < self._most else self._seconds - (now - times[0])


class Held:
    """How many of something each key has at this moment."""

    def __init__(self) -> None:
        self._held: dict[Hashable, int] = {}

    def of(self, key: Hashable) -> int:
        return self._held.get(key, 0)

    def take(self, key: Hashable) -> None:
        self._held[key] = self.of(key) + 1

    def give(self, key: Hashable) -> None:
        left = self.of(key) - 1
        if left > 0:
            self._held[key] = left
        else:
            self._held.pop(key, None)
