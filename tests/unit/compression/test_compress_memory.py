"""Compressing holds two pieces of a weight, whatever the size of the model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

WATCH = """
import sys, threading
from pathlib import Path
import torch
from tests.small import saved
from tests.steps import finish
from studio.compression.compress import compress
from studio.planning.choice import Choice, Pin
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode, Scheme

folder, mode = Path(sys.argv[1]), Mode.INT4_ASYM
one = 0.05 * torch.randn(1 << 20).bfloat16()
names = ("b.0.up.weight", "b.1.up.weight", "embed.weight")
saved(folder, {name: one.repeat(50).reshape(-1, 4096) for name in names}, "1")
small = saved(folder / "small", {"b.0.up.weight": one.reshape(-1, 4096)}, "2")
finish(compress(small, make_plan(small.layers, Choice(mode, 64)), folder / "small.packed"))  # everything is loaded

def held():
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.headers import read_header
kinds = dict(zip(names, (Kind.LINEAR, Kind.LINEAR, Kind.EMBEDDING)))
layers = tuple(Layer(name, (name,), kinds[name], (12800, 4096)) for name in names)
entries = read_header(folder / "model.safetensors")
checkpoint = Checkpoint("big", "1", "none", "BF16", 0, entries, layers, folder)
plan = make_plan(layers, Choice(mode, 64, pins=(Pin("embed", None),)))
peak, start, over = 0, held(), threading.Event()

def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, held())

thread = threading.Thread(target=watch)
thread.start()
done = finish(compress(checkpoint, plan, folder / "packed"))
over.set()
thread.join()
assert done.file.stat().st_size > plan.compressed_bytes > 100_000_000
print(peak - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what is held")
def test_a_model_of_300_mb_is_compressed_in_100_mb(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WATCH, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=600)
    assert 0 < int(found.stdout) < 100_000_000
