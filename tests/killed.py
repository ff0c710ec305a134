"""``kill -9`` at random moments of a download, a survey, a compression and an export, in the terminal and on the page.

    python -m tests.killed --times 50

After each kill no half or wrong file may stand under a name that was asked for; the same work, asked for once more,
ends well and with the same bytes as work that nobody killed; and nothing is left of the run that was killed: no
process, no hidden file. Prints what was wrong, and counts it.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from studio.planning.choice import Choice
from tests.bench.rows import Row, note
from tests.conftest import COMPILED, PREPARED, ROOT, SERVE, TEMPLATE, save_tiny_model
from tests.hub_server import LocalHub
from tests.soak import Findings, Visitor

MODEL = "owner/killed"
JOBS = {
    "survey": ("survey", MODEL, "--json"),
    "compress": ("compress", MODEL, "--mode", "int4_asym", "--out"),
    "export": ("export", MODEL, "--mode", "q4_0", "--to", "gguf", "--out"),
}
"""By name: the command; the two last take a path."""
PAGE = "page"
PATIENCE = 600.0
HALF = re.compile(r"\.partial|\.incomplete$|\.lock$|\.journal$")
"""What a run that ended well leaves nowhere."""


@dataclass
class Place:
    """Where one run works: a cache of its own, and what it makes."""

    folder: Path
    hub: LocalHub
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for shared in (COMPILED, PREPARED):
            shared.mkdir(parents=True, exist_ok=True)
            (self.folder / "cache").mkdir(parents=True, exist_ok=True)
            (self.folder / "cache" / shared.name).symlink_to(shared)
        (self.folder / "out").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "STUDIO_CACHE_DIR": str(self.folder / "cache"), "HF_HOME": str(self.folder / "hub"),
            "HF_ENDPOINT": self.hub.url, "GRADIO_TEMP_DIR": str(self.folder / "gradio"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return os.environ | own

    def command(self, job: str) -> list[str]:
        out = [str(self.folder / "out" / ("made.gguf" if job == "export" else "made"))] if job != "survey" else []
        return [sys.executable, "-m", "studio", *JOBS[job], *out]

    def start(self, job: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(job), cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def made(self) -> dict[str, str]:
        """Return the checksums of what can be seen where results are made; times and paths may differ."""
        files = [path for path in (self.folder / "out").rglob("*") if path.is_file()]
        shown = [path for path in files if not any(part.startswith(".") for part in path.parts)]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shown if path.name != "README.md"}

    def left(self) -> list[str]:
        """Return what should not be there once all has ended well."""
        found = [path for path in self.folder.rglob("*") if HALF.search(path.name) and ".locks" not in path.parts]
        sessions = (self.folder / "cache" / "sessions").glob("*")
        return [str(path.relative_to(self.folder)) for path in (*found, *sessions)]


def kill(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Kill a process alone, and return the children that it had."""
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    return children


def whole(place: Place, job: str) -> tuple[float, Mapping[str, str], str]:
    """Run a job to its end; return its seconds, what it made and what it said."""
    began = time.monotonic()
    process = place.start(job)
    said, notes = process.communicate(timeout=PATIENCE)
    if process.returncode:
        place.faults.append(f"{job} ended with {process.returncode}: {notes[-500:]}")
    return time.monotonic() - began, place.made(), said if job == "survey" else ""


def killed_in_terminal(place: Place, job: str, seconds: float, made: Mapping[str, str], said: str) -> list[str]:
    """Kill a job after so many seconds, run it again, and return what was wrong."""
    process = place.start(job)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    check_gone(kill(process), place)
    check_made(place, made, "after the kill")
    shutil.rmtree(place.folder / "out")  # where it had ended already, it would be refused now
    (place.folder / "out").mkdir()
    _, again, told = whole(place, job)
    check_made(place, made, "made again")
    if again.keys() != made.keys() or told != said:
        place.faults.append("what is made again is not all, or says something else")
    place.faults += [f"left: {path}" for path in place.left()]
    return [f"{job} after {seconds:.2f} s: {fault}" for fault in place.faults]


def check_gone(children: list[psutil.Process], place: Place) -> None:
    _, alive = psutil.wait_procs(children, timeout=30)
    place.faults += [f"still runs: {child.pid} {child.name()}" for child in alive]
    for child in alive:
        child.kill()


def check_made(place: Place, made: Mapping[str, str], when: str) -> None:
    place.faults += [
        f"{name} is not what it should be, {when}" for name, sum_ in place.made().items() if made.get(name) != sum_
    ]


@contextmanager
def page(place: Place) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Serve the page in a process that may be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", "--port", "0"],
        cwd=ROOT, env=place.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None, "the server did not start"
        yield process, address[0].replace("localhost", "127.0.0.1")
    finally:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def work(address: str, findings: Findings) -> Visitor:
    visitor = Visitor(address, [MODEL], findings, 1)
    visitor.call("open_model", MODEL)
    visitor.choose(Choice())
    for name in ("queue_compress", "compress", "export"):
        visitor.call(name)
    return visitor


def cut_off(address: str) -> None:
    """Work until the server is gone, which is no fault."""
    with suppress(OSError):
        work(address, Findings())


def whole_page(place: Place) -> tuple[float, list[str]]:
    """Let a visitor work undisturbed; return the seconds, and the checksums of the copies that the server then has."""
    with page(place) as (_, address):
        sessions = place.folder / "cache" / "sessions"
        early = [path for path in sessions.glob("*") if any(path.iterdir())]
        place.faults += [f"left of the server before: {path.name}" for path in early]
        findings, began = Findings(), time.monotonic()
        visitor = work(address, findings)
        seconds = time.monotonic() - began
        sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sessions.rglob("weights.studio")]
        place.faults += findings.faults
        visitor.leave()
    return seconds, sums


def killed_on_page(place: Place, seconds: float, weights: str) -> list[str]:
    """Kill the server while a visitor works, start another, let a visitor do the same, and return what was wrong."""
    with page(place) as (process, address):
        busy = threading.Thread(target=cut_off, args=(address,), daemon=True)
        busy.start()
        time.sleep(seconds)
        check_gone(kill(process), place)
    if whole_page(place)[1] != [weights]:
        place.faults.append("another copy, or more than one")
    place.faults += [f"left: {path}" for path in place.left() if "sessions" not in path]
    return [f"page after {seconds:.2f} s: {fault}" for fault in place.faults]


@contextmanager
def hub() -> Iterator[LocalHub]:
    """A Hub with one model of 20 MB, which it sends in a second."""
    with tempfile.TemporaryDirectory() as folder, LocalHub(bytes_per_second=2e7) as server:
        sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "head_dim": 64}
        save_tiny_model("llama", Path(folder) / "model", **sizes)
        (Path(folder) / "model" / "chat_template.jinja").write_text(TEMPLATE)
        server.add(MODEL, Path(folder) / "model")
        yield server


@contextmanager
def place(server: LocalHub) -> Iterator[Place]:
    COMPILED.parent.mkdir(parents=True, exist_ok=True)  # of a checkout that nothing was run in yet
    with tempfile.TemporaryDirectory(dir=COMPILED.parent) as folder:
        yield Place(Path(folder), server)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*JOBS, PAGE])
    asked = parser.parse_args()
    chance, faults = random.Random(asked.seed), list[str]()
    with hub() as server:
        kinds = [asked.only] if asked.only else [*JOBS, PAGE]
        known, work_seconds, weights = {}, 0.0, ""
        for kind in kinds:
            with place(server) as here:
                if kind == PAGE:
                    work_seconds, sums = whole_page(here)
                    weights = "".join(sums)
                else:
                    known[kind] = whole(here, kind)
                faults += here.faults
        for number in range(asked.times):
            kind = kinds[number % len(kinds)]
            with place(server) as here:
                if kind == PAGE:
                    found = killed_on_page(here, chance.uniform(0, work_seconds), weights)
                else:
                    seconds, made, said = known[kind]
                    found = killed_in_terminal(here, kind, chance.uniform(0, 1.05 * seconds), made, said)
            faults += found
            print(f"{number + 1} {kind}: {'; '.join(found) or 'clean'}", flush=True)
    told = f"{asked.times} kills, {len(faults)} faults"
    print(told)
    if asked.only is None and asked.times >= 50:
        must = "0 wrong or half files, 0 leaked after restart"
        note("killed", Row("kill -9 at 50 random moments, terminal and page", told, must, holds=not faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
