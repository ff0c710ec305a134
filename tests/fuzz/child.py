"""One target, fuzzed in a process of its own: what ends that process, or takes too long or too much, is a find, too.

The input under way lies in a file, so that it is known when nobody is left to say it.
"""

import hashlib
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from hypothesis import HealthCheck, Phase, given, seed, settings

from studio.base.errors import UserError
from tests.fuzz.spoiling import STEPS, Step
from tests.fuzz.targets import TARGETS, Target

SEEDS = Path(__file__).with_name("seeds")
SECONDS, GB = 10.0, 1 << 30
READY = 300.0
"""Seconds until a target is ready."""
BATCH = 200
"""Inputs of one seed."""


@dataclass(frozen=True)
class Find:
    """An input that was not read as it should be."""

    content: bytes
    why: str

    def kept(self, target: str) -> Path:
        """Keep it among the seeds."""
        file = SEEDS / target / digest(self.content)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.content)
        return file


def seeds_of(target: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((SEEDS / target).glob("*")) if file.name[0] != "."]


def digest(content: bytes) -> str:
    """Return the name of an input among the seeds."""
    return hashlib.sha256(content).hexdigest()[:16]


Inputs = Callable[[Target], Iterator[bytes]]
"""What is tried of a target."""


def those(contents: Sequence[bytes]) -> Inputs:
    """Return just these inputs."""
    return lambda _: iter(contents)


def spoiled(until: float, first: int, known: Collection[str], batch: int = BATCH) -> Inputs:
    """Return what each batch's number, from ``first`` on, makes of the sound input, until the time has come; but for
    those of ``known`` digests, which ended a process before."""

    def inputs(target: Target) -> Iterator[bytes]:
        number = first
        while time.monotonic() < until or number == first:
            for steps in drawn(number, batch):
                content = target.spoil(target.sound, steps)
                if digest(content) not in known:
                    yield content
                if time.monotonic() > until and number > first:
                    return
            number += 1

    return inputs


def seeds_tried(name: str, folder: Path) -> tuple[int, list[Find]]:
    """Try what was found before, each once; return how many there are, and those that are found still."""
    left, finds = seeds_of(name), list[Find]()
    count = len(left)
    while left:
        tried, find = fuzzed(name, folder, those(left))
        if find is None:
            break
        finds.append(find)
        left = left[tried:] if tried else []  # it was not even ready
    return count, finds


def fuzzed(name: str, folder: Path, inputs: Inputs) -> tuple[int, Find | None]:
    """Try inputs until something is found, or all are tried. Returns how many were tried, with that one."""
    current, count, why = folder / "current", folder / "count", folder / "why"
    for file in (current, count, why):
        file.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _work(name, folder, inputs)
    watch = _Watch(child, current)
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.1)
        if (late := watch.late()) is not None:
            for each in watch.processes():
                each.kill()
            os.waitpid(child, 0)
            return _count(count), Find(current.read_bytes() if current.exists() else b"", late)
    code = os.waitstatus_to_exitcode(found[1])
    if code == 0:
        return _count(count), None
    said = why.read_text() if why.exists() else f"ended with {code}"
    return _count(count), Find(current.read_bytes() if current.exists() else b"", said)


class _Watch:
    """How long a child is at one input: by the processor, for other programs take their time; ten times that by the
    clock, for what waits for ever takes none."""

    def __init__(self, child: int, current: Path) -> None:
        self._child, self._current = psutil.Process(child), current
        self._input, self._spent, self._since = 0.0, 0.0, time.monotonic()

    def late(self) -> str | None:
        """Return what to say of an input that takes too long, None where all is well."""
        changed = self._current.stat().st_mtime if self._current.exists() else 0.0
        spent = self._cpu()
        if changed != self._input or spent < self._spent:  # another input, or a process of its own has ended
            self._input, self._spent, self._since = changed, spent, time.monotonic()
            return None
        passed = time.monotonic() - self._since
        if not changed:
            return f"not ready after {passed:.0f} s" if passed > READY else None
        if spent - self._spent > SECONDS or passed > 10 * SECONDS:
            return f"hangs: {spent - self._spent:.0f} s of the processor, {passed:.0f} s"
        return None

    def processes(self) -> list[psutil.Process]:
        return [*self._child.children(recursive=True), self._child]

    def _cpu(self) -> float:
        total = 0.0
        for each in self.processes():
            with suppress(psutil.Error):
                times = each.cpu_times()
                total += times.user + times.system
        return total


def _count(file: Path) -> int:
    return int(file.read_text() or 0) if file.exists() else 0


def _work(name: str, folder: Path, inputs: Inputs) -> None:
    """Be the child; never returns."""
    code = 1
    try:
        os.chdir(folder)
        with TARGETS[name]() as target:
            room = psutil.Process().memory_info().vms + GB
            resource.setrlimit(resource.RLIMIT_AS, (room, room))
            for number, content in enumerate(inputs(target), 1):
                (folder / "current").write_bytes(content)
                (folder / "count").write_text(str(number))
                try:
                    target.read(content)
                except UserError as error:
                    _check(error)
        code = 0
    except BaseException:
        (folder / "why").write_text(traceback.format_exc()[-4000:])
    finally:
        sys.stdout.flush()
        os._exit(code)


def _check(error: UserError) -> None:
    sentence = error.sentence()
    if not sentence.isprintable() or len(sentence) > 2000:
        raise ValueError(f"not one sentence: {sentence[:300]!r}")


def drawn(number: int, count: int) -> list[list[Step]]:
    """Return what hypothesis thinks of under a number; always the same."""
    found: list[list[Step]] = []

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(STEPS)
    def note(steps: list[Step]) -> None:
        found.append(steps)

    note()
    return found
