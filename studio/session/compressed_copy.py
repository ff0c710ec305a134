"""A visitor's compressed copy: making it, packing it into one file, and measuring how far it has drifted.

Knows nothing of how its plan came to be, nor of conversations. What a job changes, it changes at its end.
"""

import shutil
import uuid
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor

from studio import export
from studio.base.errors import Cancelled, ModelError, ResourceError
from studio.base.fair_turns import Turns
from studio.base.progress import Job, Progress
from studio.base.steps import as_it_is
from studio.base.units import format_bytes
from studio.base.workers import in_worker
from studio.calibration.texts import BUILTIN, GENERATED, Text, digest
from studio.chat.columns import Column, compressed_column, original_column
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.gguf.source import prepared_folder
from studio.checkpoint.recipe import Calibration, Recipe, file_name
from studio.checkpoint.source_digests import source_digests
from studio.compression.compress import Compressed, compress, job_digest
from studio.compression.resume import unfinished
from studio.evaluation.drift import Drift
from studio.evaluation.evaluate import text_windows
from studio.export import targets
from studio.export.gguf.verify import verified
from studio.export.push import Destination, Pushed
from studio.export.read_back import Verified
from studio.export.target import Target
from studio.planning.plan import Plan
from studio.runtime.machine import available_memory
from studio.session.jobs import Jobs
from studio.session.model_jobs import drift_of
from studio.session.pushing import pushing
from studio.session.texts import content_of

DISK_MARGIN = 64 << 20
"""Bytes left free beside what a job writes."""


class CompressedCopy:
    """What stands beside the original: the copy made here, or a model that was there before (:meth:`place`)."""

    def __init__(self, workspace: Path, pool: Pool, jobs: Jobs) -> None:
        self._workspace, self._pool, self._jobs = workspace, pool, jobs
        self.compressed: Compressed | None = None
        """How it was made; None also where it was not made here."""
        self.folder: Path | None = None
        """The compressed model as it would be exported."""
        self.calibrated_on: Text | None = None
        """The text that its method read, None for the built-in one."""
        self.drift: Drift | None = None
        """As far as measured."""
        self.column: Callable[[], Column] | None = None
        """What answers in its name, None while there is nothing; fails by itself where the files are damaged."""
        self._one_at_a_time = Turns(places=1)
        """Jobs that write or read the copy's files: the page lets a visitor begin several."""
        self._archive: Path | None = None
        self._is_closed = False
        self._in_browser: Path | None = None
        """The folder that a browser loads, once it was asked for,"""
        self._in_browser_place: Path | None = None
        """and that it lies in."""
        self._job: tuple[str, Text | None] = ("", None)
        """The job whose copy is here: its digest, and the text that it was calibrated on."""
        self._drifts: dict[tuple[str, Text | None], Drift] = {}
        """What was measured of each job's copy: the same work gives the same copy, whose drift still holds."""

    def make(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        text: Text | None,
        tokens: Tensor | None,
        is_current: Callable[[], bool],
        again: Recipe | None = None,
    ) -> Generator[Progress, None, Compressed]:
        """Carry a plan out into a folder ready for export, which takes the place of the copy before it.

        ``tokens`` int64 [W, T] are those of ``text``, for a method that needs inputs; ``again``: the recipe that it is
        made by, once more. Raises UserError, and Cancelled
        once the model is no longer the session's (``is_current``); the copy before it then stays.
        """
        with (yield from self._alone("compress")):
            return (yield from self._make(checkpoint, plan, text, tokens, is_current, again))

    def _make(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        text: Text | None,
        tokens: Tensor | None,
        is_current: Callable[[], bool],
        again: Recipe | None,
    ) -> Generator[Progress, None, Compressed]:
        job = job_digest(checkpoint, plan), text if tokens is not None else None
        read = None if tokens is None else calibration_of(text, tokens)
        threads = None
        if again is not None:  # its calibration and its source, which were compared
            read, threads = again.choices.calibration, None if again.machine is None else again.machine.threads
        name = export_name(checkpoint, plan)
        extra = 0 if checkpoint.left_out is None else checkpoint.left_out.nbytes
        self._check_disk(plan.compressed_bytes + extra)
        place = self._workspace / uuid.uuid4().hex
        compressed = None
        with unfinished(job_digest(checkpoint, plan), self._workspace) as file:
            try:
                is_unwanted = self._jobs.should_stop("compress")
                steps = in_worker(compress, checkpoint, plan, file, tokens, threads, is_unwanted=is_unwanted)
                compressed = yield from self._jobs.in_turn("compress", steps, as_it_is, is_current)
                yield Progress("finish", 1, 1)
                self._jobs.raise_if_stopped("compress")
                if again is None:
                    files = yield from source_digests(checkpoint)
                    source = export.source_of(checkpoint, files)
                else:
                    source = again.source
                folder = export.write_folder(checkpoint, compressed, place / name, read, source)
                if not is_current() or self._is_closed:
                    raise Cancelled
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                if compressed is not None:  # whole, but without a folder: nothing to go on with
                    for file_ in filter(None, (compressed.file, compressed.left_out)):
                        file_.unlink(missing_ok=True)
                raise
        self.forget()
        self.compressed, self.folder, self.calibrated_on = compressed, folder, text
        self.column = lambda: compressed_column(folder)
        self._job, self.drift = job, self._drifts.get(job)
        return compressed

    @property
    def job(self) -> str:
        """A name for the work that it was made by, and the text that was read."""
        digest, text = self._job
        return digest if text is None else f"{digest}-{text.name}"

    def place(self, model: Checkpoint | Path) -> None:
        """Let a compressed folder, or another model, stand beside the original; its files stay whatever comes."""
        self.forget()
        self._job = ("", None)
        self.column = (lambda: compressed_column(model)) if isinstance(model, Path) else lambda: original_column(model)

    def archive(self, folder: Path, target: str = targets.DEFAULT) -> Generator[Progress, None, Path]:
        """Write the compressed model as one file in the new ``folder``, which goes with the next one or the session.

        Raises ModelError while nothing is compressed, SchemeError for what the target cannot hold or where there is no
        such target, ResourceError for a full disk.
        """
        into = targets.target_named(target)
        with (yield from self._alone("export")):
            if self.folder is None or self.compressed is None:
                raise ModelError("nothing_compressed")
            held = sum(member.stat().st_size for member in self.folder.iterdir())
            self._check_disk(max(held, into.size(self.compressed.plan)))
            self._forget_archive()
            self._archive = folder
            folder.mkdir(mode=0o700, parents=True)
            return (yield from self._jobs.in_turn("export", targets.one_file(into, self.folder, folder), as_it_is))

    def push(self, target: Target, where: Destination, token: str) -> Generator[Progress, None, Pushed]:
        """Send the compressed model to the Hub as ``target`` has it, as whoever the token names.

        Raises ModelError while nothing is compressed, and what :func:`studio.session.pushing.pushing` does.
        """
        self._jobs.clear_stop("push")
        with (yield from self._alone("push")):
            if self.folder is None:
                raise ModelError("nothing_compressed")
            return (yield from self._jobs.relay("push", pushing([self.folder], [target], where, token)))

    def for_browser(self, place: Path) -> Generator[Progress, None, Path]:
        """Write the compressed model into the new folder ``place`` as a browser loads it, and return where.

        That is the one of before, where it is still this copy's. It goes with the copy or the session.

        Raises ModelError while nothing is compressed, and the ONNX target's refusal.
        """
        with (yield from self._alone("export")):
            if self.folder is None or self.compressed is None:
                raise ModelError("nothing_compressed")
            if self._in_browser is not None:
                return self._in_browser
            onnx = targets.target_named("onnx")
            self._check_disk(onnx.size(self.compressed.plan))
            folder = self.folder
            try:
                place.mkdir(mode=0o700, parents=True)
                steps = targets.export(onnx, folder, place / "model")
                out = yield from self._jobs.in_turn("export", steps, as_it_is)
                if self.folder != folder:
                    raise Cancelled
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
            self._in_browser, self._in_browser_place = out, place
            return out

    def verify(self) -> Generator[Progress, None, Verified]:
        """Read the file that was made last back, here and in llama.cpp where there is one, and compare with the folder.

        Raises ModelError while there is no such file, ResourceError for too little memory, UserError for what llama.cpp
        refuses.
        """
        with (yield from self._alone("export")):
            return (yield from self._verify())

    def _verify(self) -> Generator[Progress, None, Verified]:
        file = None if self._archive is None else next(self._archive.glob("*.gguf"), None)
        if file is None or self.folder is None or self.compressed is None:
            raise ModelError("nothing_to_verify")
        need, free = 2 * self.compressed.plan.original_bytes, available_memory()
        if need > free:
            raise ResourceError("memory", need=format_bytes(need), free=format_bytes(free))
        prepared = prepared_folder(file)
        try:
            steps = in_worker(verified, file, self.folder, is_unwanted=self._jobs.should_stop("export"))
            return (yield from self._jobs.in_turn("export", steps, as_it_is))
        finally:
            shutil.rmtree(prepared, ignore_errors=True)

    def measure_drift(
        self, checkpoint: Checkpoint, text: Text | None, with_floor: bool = True, is_short: bool = False
    ) -> Generator[Progress, None, Drift]:
        """Compare the copy, as it answers, with the original ``checkpoint``; what is found is in ``drift`` as it comes.

        ``is_short``: on a few windows alone, and without questions.

        Raises ModelError while nothing is compressed or for a model that writes no text, TextError, ResourceError;
        Cancelled, too, when the copy is gone.
        """
        make, job = self.column, self._job
        if make is None:
            raise ModelError("nothing_to_measure")
        self._jobs.raise_if_stopped("drift")
        yield Progress("load")
        if self.column is not make:
            raise Cancelled
        ids = text_windows(checkpoint, content_of(text))
        column = make()
        with self._pool.borrow(column.key, column.need, column.load) as model:

            def sharpened(drift: Drift) -> Progress:
                self.drift = drift
                return drift.progress

            name, is_unwanted = "" if text is None else text.name, self._jobs.should_stop("drift")
            steps = model.run(drift_of, checkpoint, ids, name, with_floor, is_short, is_unwanted=is_unwanted)
            whole = yield from self._jobs.in_turn("drift", steps, sharpened, lambda: self.column is make)
        if self.column is not make:
            raise Cancelled
        self.drift = self._drifts[job] = whole
        return whole

    def _alone(self, job: Job) -> Generator[Progress, None, AbstractContextManager[None]]:
        """Yield while another job of this visitor's is at the files; return what is to be entered at once."""
        return self._jobs.one_by_one(self._one_at_a_time, job)

    def forget(self) -> None:
        """Give back what it holds on disk and in memory; what was measured of it is known still."""
        if self.folder is not None:
            self._pool.drop(str(self.folder))
            shutil.rmtree(self.folder.parent, ignore_errors=True)
        if self._in_browser_place is not None:
            shutil.rmtree(self._in_browser_place, ignore_errors=True)
        self._in_browser = self._in_browser_place = None
        self.compressed = self.folder = self.drift = self.column = None

    @property
    def is_holding(self) -> bool:
        """Whether it has files."""
        return self.folder is not None or self._archive is not None or self._in_browser_place is not None

    @property
    def model_keys(self) -> set[str]:
        """What the pool calls its model."""
        return set() if self.folder is None else {str(self.folder)}

    def hand_over(self, workspace: Path, jobs: Jobs) -> None:
        """Go on in another session: its jobs and its folder are meant from now on; files that are there stay."""
        self._workspace, self._jobs = workspace, jobs

    def let_go(self) -> None:
        """Forget it, and the file that was made of it."""
        self.forget()
        self._forget_archive()

    def close(self) -> None:
        """Let it go, and whatever a job still makes of it."""
        self._is_closed = True
        self.let_go()

    def _forget_archive(self) -> None:
        if self._archive is not None:
            shutil.rmtree(self._archive, ignore_errors=True)
        self._archive = None

    def _check_disk(self, need: int) -> None:
        self._workspace.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._workspace).free
        if need + DISK_MARGIN > free:
            raise ResourceError("export_disk_too_small", need=format_bytes(need + DISK_MARGIN), free=format_bytes(free))


def calibration_of(text: Text | None, tokens: Tensor) -> Calibration:
    """Return what a recipe says of a text and its windows, int64 [W, T]: what the model wrote is kept whole."""
    count, length = tokens.shape
    name = BUILTIN if text is None else text.name
    kept = tuple(map(tuple, tokens.tolist())) if text == GENERATED else ()
    return Calibration(text=name, windows=count, window=length, digest=digest(tokens), tokens=kept)


def export_name(checkpoint: Checkpoint, plan: Plan) -> str:
    """Return the name of the exported folder or file: the model's, and the budget's, the mix's or the scheme's.

    A budget's target is told by the file's own ending.
    """
    choice = plan.choice
    made = choice.label if choice.budget is None else str(choice.budget).replace("%", "pct")
    return f"{file_name(checkpoint.title)}-{file_name(made)}"
