"""``make bench-start``: how soon the terminal answers, beside what importing torch alone takes on the same machine.

Every command runs in a process of its own, by turns with ``import torch``, so that a busy machine is busy for all of
them: the ratios are what counts. Processor time is told beside the time on the clock; it is steadier.
"""

import os
import pty
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 7
ALLOWED = 0.6
"""What estimating a known model may take of the time of importing torch."""
TORCH = [sys.executable, "-c", "import torch"]
STUDIO = [sys.executable, "-m", "studio"]
COMMANDS = {
    "estimate builtin": [*STUDIO, "estimate", "builtin"],
    "estimate builtin --ratio 0.8": [*STUDIO, "estimate", "builtin", "--ratio", "0.8"],
    "--help": [*STUDIO, "--help"],
}


def seconds(command: list[str]) -> tuple[float, float]:
    """Return what a command took on the clock, and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def until_it_speaks(command: list[str]) -> float:
    """Return how long a command is silent on a screen."""
    ours, theirs = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
    try:
        os.read(ours, 1)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        slow = {
            "chat": [*STUDIO, "chat", "builtin", "--prompt", "Hello"],
            "evaluate": [*STUDIO, "evaluate", "builtin", "--against", "builtin"],
            "compress": [*STUDIO, "compress", "builtin", "--out", f"{place}/there"],
        }
        for command in COMMANDS.values():
            seconds(command)  # the first visit finds out what the next ones know
        torch: list[tuple[float, float]] = []
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
        silent: dict[str, list[float]] = {name: [] for name in slow}
        for _ in range(ROUNDS):
            torch.append(seconds(TORCH))
            for name, command in COMMANDS.items():
                taken[name].append(seconds(command))
            for name, command in slow.items():
                silent[name].append(until_it_speaks(command))
    wall, work = (statistics.median(each) for each in zip(*torch, strict=True))
    print(f"{'import torch':32} {wall:.2f} s, of the processor {work:.2f} s")
    worst = 0.0
    for name, times in taken.items():
        its_wall, its_work = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(mine[0] / theirs[0] for mine, theirs in zip(times, torch, strict=True))
        worst = max(worst, ratio)
        print(
            f"{name:32} {its_wall:.2f} s, of the processor {its_work:.2f} s;"
            f" {ratio:.2f} and {its_work / work:.2f} of importing torch"
        )
    for name, waits in silent.items():
        middle = statistics.median(waits)
        print(f"{name + ', until it says that it lives':32} {middle:.2f} s; {middle / wall:.2f} of importing torch")
    if worst > ALLOWED:
        print(f"More than {ALLOWED} of importing torch.")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
