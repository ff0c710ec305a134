"""What an interrupted compression has written already, line by line. Knows nothing of how weights are rounded."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from studio.checkpoint.tensor_writer import TensorFile
from studio.planning.plan import Plan
from studio.quantization.scheme import Scheme

SYNC_BYTES = 256 << 20
"""Written between two entries of the journal, which waits for the disk."""


class Journal:
    """The tensors of an unfinished file that are safe on the disk, each with its error (None where it was kept)."""

    def __init__(self, file: Path, digest: str) -> None:
        self.path = file.with_name(f"{file.name}.journal")
        self._file = file
        self._head = json.dumps({"digest": digest})
        self._waiting: list[str] = []
        self._syncing: Future[None] | None = None

    def read(self, plan: Plan, size: int) -> dict[str, float | None]:
        """Return what an interrupted run finished of a file of ``size`` bytes: nothing when there was none, or it had
        another plan; the journal is then gone, lest it speak of the file that is begun."""
        schemes = {a.layer.name: a.scheme for a in plan.assignments}
        try:
            head, *lines = self.path.read_text(encoding="utf-8").splitlines()
            errors = dict(whole_lines(lines))
            if head == self._head and self._file.stat().st_size == size and is_sound(errors, schemes):
                return errors
        except (OSError, ValueError, TypeError, KeyError, RecursionError):  # no journal, or one cut short
            pass
        self.forget()
        return {}

    @contextmanager
    def kept(self, out: TensorFile, known: dict[str, float | None]) -> Iterator[None]:
        """Keep the journal of ``out``, of which ``known`` is done, and bring it up to date at whatever end."""
        self._out, self._seen = out, out.written
        lines = [self._head, *(json.dumps([name, error]) for name, error in known.items())]
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with ThreadPoolExecutor(1) as self._thread:
            try:
                yield
            finally:
                self.flush()

    def note(self, name: str, error: float | None) -> None:
        """Note that a tensor is whole; it counts once the disk has it, which a thread waits for."""
        self._waiting.append(json.dumps([name, error]))
        if self._out.written - self._seen >= SYNC_BYTES:
            self._settle()
            self._syncing = self._thread.submit(self._flush, self._drain())

    def flush(self) -> None:
        """Wait for the disk, then write what waits."""
        self._settle()
        self._flush(self._drain())

    def _drain(self) -> list[str]:
        """Empty and return what waits: tensors that are written as far as the system, before anything else is."""
        noted, self._waiting, self._seen = self._waiting, [], self._out.written
        return noted

    def _flush(self, noted: list[str]) -> None:
        self._out.sync()
        if noted:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write("\n".join(noted) + "\n")

    def _settle(self) -> None:
        """Wait for the flush that is under way. Raises what it did."""
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()

    def forget(self) -> None:
        """Remove the journal."""
        self.path.unlink(missing_ok=True)


def is_sound(errors: Mapping[str, object], schemes: Mapping[str, Scheme | None]) -> bool:
    """Return whether a journal speaks of the plan's tensors: with an error those that are compressed, without it those
    that are kept. Raises KeyError for any other."""
    return all(
        error is None if schemes[name] is None else type(error) is float and 0 <= error < math.inf
        for name, error in errors.items()
    )


def whole_lines(lines: Iterable[str]) -> Iterator[tuple[str, float | None]]:
    """Yield the entries of a journal up to one that is cut short: the power may go while it is written."""
    for line in lines:
        try:
            name, error = json.loads(line)
        except ValueError:
            return
        yield name, error
