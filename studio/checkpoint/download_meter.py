"""How fast a download goes and how long it will take, from what came in the last seconds. Knows no network."""

import time
from collections import deque
from collections.abc import Callable

from studio.base.progress import Progress
from studio.base.units import format_bytes

WINDOW_SECONDS = 10.0
"""What the speed is a mean of."""
SOON_SECONDS = 1.0
"""Before that a speed says nothing."""


class Meter:
    """Told now and then how many bytes are here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def progress(self, done: int, total: int, waits: float = 0.0) -> Progress:
        """Return where it stands, its detail ``"1.2 GB / 3.4 GB, 45 MB/s, 0:49"``.

        ``waits``: seconds that the server asked for, where it did; nothing comes meanwhile.
        """
        now = self._clock()
        self._seen.append((now, done))
        while now - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()
        if waits > 0:
            return Progress("download_waits", done, total, _clock_time(waits))
        progress = Progress.of_bytes("download", done, total)
        then, before = self._seen[0]
        if now - then < SOON_SECONDS or done <= before:
            return progress
        rate = (done - before) / (now - then)
        left = _clock_time((total - done) / rate)
        return Progress("download", done, total, f"{progress.detail}, {format_bytes(rate)}/s, {left}")


def _clock_time(seconds: float) -> str:
    """``75`` -> ``"1:15"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
