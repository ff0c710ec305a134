"""``python -m tests.bench.compress_large MODEL FILE``: one compression of a folder, its time and peak memory as JSON.

A process of its own, so that the memory is that of this job alone. What the system's cache holds of the shards is
dropped first: they are read from the disk.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from studio.checkpoint.checkpoint import of_folder
from studio.compression.compress import compress
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode
from tests.bench.measure import drop_cache
from tests.steps import finish


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process: what no file stands behind."""
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """Samples the anonymous memory, a hundred times a second, until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            self.bytes = max(self.bytes, anonymous_bytes())

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self.bytes


def main(folder: Path, file: Path) -> None:
    peak = Peak()
    peak.start()
    checkpoint = of_folder(folder)
    plan = make_plan(checkpoint.layers, Choice(Mode.INT4_ASYM, 128))
    for shard in sorted(folder.glob("*.safetensors")):
        drop_cache(shard)
    begun = time.perf_counter()
    finish(compress(checkpoint, plan, file))  # fsync included: the journal waits for the disk before it ends
    seconds = time.perf_counter() - begun
    largest = max(layer.original_bytes for layer in checkpoint.layers)
    print(json.dumps({"seconds": seconds, "peak": peak.stop(), "largest": largest, "bytes": file.stat().st_size}))
    os.unlink(file)  # noqa: PTH108


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
