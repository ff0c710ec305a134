"""What one visitor holds, and the stages called in order: the only mutable object. Knows nothing of pages.

Each long job is a generator of :class:`Event`; closing it cancels. What it changes, it changes at its end, so a job
that fails or is cancelled leaves the session as it was.
"""

import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from studio import export
from studio.base.errors import Cancelled, ModelError, PromptError, ResourceError, SchemeError
from studio.base.malloc import give_back
from studio.base.progress import JOBS, Event
from studio.base.steps import relayed
from studio.base.units import format_bytes
from studio.base.workers import in_worker
from studio.calibration.texts import BUILTIN, Text, digest, read_text
from studio.chat.answers import Answers
from studio.chat.columns import Column, compressed_column, original_column
from studio.chat.conversation import Conversation
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.template import Message
from studio.compression.compress import Compressed, compress, job_digest
from studio.compression.resume import unfinished
from studio.evaluation.drift import Drift
from studio.evaluation.evaluate import text_windows
from studio.export import targets
from studio.planning import sampled_survey, survey_file
from studio.planning.choice import Choice, Pin
from studio.planning.fitting import fitting
from studio.planning.plan import Plan
from studio.planning.sampled_survey import Sample
from studio.quantization.scheme import Scheme
from studio.runtime.sampling import Sampling
from studio.session.events import drift_event, source_event
from studio.session.model_jobs import drift_of
from studio.session.survey_job import planned
from studio.session.texts_job import POOL as POOL
from studio.session.texts_job import Reading

MAX_PROMPT = 100_000
"""Characters."""
DISK_MARGIN = 64 << 20
"""Bytes left free beside what a job writes."""
MAX_UNDO = 100


@dataclass
class Session(Reading):
    """One visitor's model, plan, compressed copy and conversation."""

    paths: bool = False
    """Whether a local path is accepted as a model's name."""
    compressed: Compressed | None = None
    folder: Path | None = None
    """The compressed model as it would be exported."""
    calibrated_on: Text | None = None
    """The text that the compressed copy's method read, None for the built-in one."""
    drift: Drift | None = None
    """Of the compressed copy, as far as measured."""
    conversation: Conversation = field(default_factory=Conversation)
    spoken: str | None = None
    """The language chosen on the page, in which jobs that run go on; None while it is the browser's."""
    _before: list[Choice] = field(default_factory=list)
    _archive: Path | None = None
    _made: tuple[str, Text | None] = ("", None)
    """The job whose copy is here: its digest, and the text that it was calibrated on."""
    _drifts: dict[tuple[str, Text | None], Drift] = field(default_factory=dict)
    """What was measured of each job's copy: the same work gives the same copy, whose drift still holds."""

    # model

    def open(self, name: str) -> Generator[Event, None, Checkpoint]:
        """Make ``name`` the session's model: from headers alone where it is on the Hub.

        Raises ModelError, HubError or CheckpointError; the model before it then stays.
        """
        checkpoint = yield from self._relay("open", open_model.open_model(name, self.paths), source_event)
        if self.checkpoint is not None and self._is_still(checkpoint):
            return self.checkpoint  # chosen again: what was made of it stays
        known = survey_file.recall(checkpoint)
        scores = known.sensitivities(checkpoint.layers)
        sampled, cost = _sample_of(checkpoint)
        choice = fitting(self.choice, checkpoint.layers, checkpoint.can_chat)
        plan = planned(checkpoint, choice, scores, sampled)
        with self._planning:  # what still works for the model before it sees that it is gone, and ends
            self.checkpoint, self.known, self.scores, self.choice, self.plan = checkpoint, known, scores, choice, plan
            self.sampled, self.sample_bytes, self.figures, self.looked_at = sampled, cost, {}, ""
            self._before.clear()
        self._forget_compressed()
        self.conversation.forget()
        return checkpoint

    def choose(self, choice: Choice) -> Plan:
        """Set the choice and return its plan. Raises SchemeError; the plan before it then stays."""
        with self._planning:
            plan = self._planned(choice)
            if choice != self.choice:
                self._before.append(self.choice)
                del self._before[:-MAX_UNDO]
            self.choice, self.plan = choice, plan
            return plan

    def pin(self, pattern: str, scheme: Scheme | None) -> Plan:
        """Pin the layers of ``pattern`` to ``scheme``, before earlier pins; the others are planned around them.

        Raises SchemeError, also where the pattern is no layer's name; the plan before it then stays.
        """
        pin = Pin(pattern.strip(), scheme)
        if not any(pin.takes(layer.name) for layer in self._model().layers if layer.is_weight):
            raise SchemeError("no_such_layer", pattern=pin.pattern[:80])
        others = tuple(other for other in self.choice.pins if other.pattern != pin.pattern)
        return self.choose(replace(self.choice, pins=(pin, *others)))

    @property
    def can_undo(self) -> bool:
        return bool(self._before)

    def undo(self) -> Plan | None:
        """Go back to the choice before this one, None where there is none."""
        if not self._before:
            return self.plan
        with self._planning:
            before = self._before.pop()
            self.plan = self._planned(before)
            self.choice = before
            return self.plan

    # compress

    @property
    def is_current(self) -> bool:
        """Whether the compressed copy is that of the plan on show, and of its calibration."""
        if self.compressed is None or self.compressed.plan.choice != self.choice:
            return False
        return not self.choice.method.needs_inputs or self.calibrated_on == self.calibration

    @property
    def is_made(self) -> bool:
        """Whether compressing would make the copy that is here already, layer by layer."""
        if self.compressed is None or self.plan is None or not self.is_current:
            return False
        return self.plan.is_exact and self.compressed.plan.assignments == self.plan.assignments

    def compress(self) -> Generator[Event, None, Compressed]:
        """Carry the plan out into a folder ready for export, fetching the model first where it is not here.

        What was measured of an earlier copy of the same plan still holds. Raises UserError; the compressed copy before
        it then stays. Raises Cancelled, too, when another model was opened meanwhile.
        """
        self._check_can_predict(self._model())
        checkpoint = yield from self.fetch()
        while True:
            ranked = self.choice
            if ranked.is_mixed:
                yield from self.rank()
            with self._planning:
                if not self._is_still(checkpoint):
                    raise Cancelled
                self.plan = plan = self._planned(self.choice)
            if plan.is_exact or plan.choice == ranked:  # else a control was moved, to what is not ranked yet
                break
        text = self.calibration
        made = job_digest(checkpoint, plan), text if plan.choice.method.needs_inputs else None
        tokens, read = None, ""
        if plan.choice.method.needs_inputs:
            tokens = yield from self._calibration_tokens(checkpoint, text)
            count, length = tokens.shape
            read = f"{BUILTIN if text is None else text.name}: {count} x {length} tokens, {digest(tokens)}"
        name = self.export_name(plan)
        self._check_disk(plan.compressed_bytes)
        place = self.workspace / uuid.uuid4().hex
        compressed = None
        with unfinished(job_digest(checkpoint, plan), self.workspace) as file:
            try:
                compressed = yield from self._relay(
                    "compress",
                    in_worker(compress, checkpoint, plan, file, tokens, is_unwanted=self._stops["compress"].is_set),
                    lambda step: Event("compress", step.done / step.total, step.layer),
                    checkpoint,
                )
                yield Event("finish", 1.0)
                self._heed("compress")
                folder = export.write_folder(checkpoint, compressed, place / name, read)
                if not self._is_still(checkpoint):
                    raise Cancelled
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                if compressed is not None:  # whole, but without a folder: nothing to go on with
                    compressed.file.unlink(missing_ok=True)
                raise
        self._forget_compressed()
        self.compressed, self.folder, self.calibrated_on = compressed, folder, text
        self._made, self.drift = made, self._drifts.get(made)
        self.conversation.forget()
        give_back()
        return compressed

    def export_name(self, plan: Plan) -> str:
        """Return the name of the exported folder: the model's and the scheme's."""
        base = self._model().title
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in base)[:80].strip(".-") or "model"
        return f"{safe}-{plan.choice.primary}"

    def archive(self, folder: Path, target: str = targets.DEFAULT) -> Generator[Event, None, Path]:
        """Write the compressed model as one file in the new ``folder``, which goes with the next one or the session.

        Raises ModelError while nothing is compressed, SchemeError for what the target cannot hold or where there is no
        such target, ResourceError for a full disk.
        """
        into = targets.target_named(target)
        if self.folder is None or self.compressed is None:
            raise ModelError("nothing_compressed")
        held = sum(member.stat().st_size for member in self.folder.iterdir())
        self._check_disk(max(held, into.size(self.compressed.plan)))
        self._forget_archive()
        self._archive = folder
        folder.mkdir(parents=True)
        packing = targets.one_file(into, self.folder, folder)
        return (yield from self._relay("export", packing, lambda step: Event("export", step[0] / step[1])))

    # drift

    def measure_drift(self) -> Generator[Event, None, Drift]:
        """Compare the compressed copy, as it answers, with the original; what is found is in ``drift`` as it comes.

        Raises ModelError while nothing is compressed or for a model that writes no text, TextError, ResourceError;
        Cancelled, too, when the copy is gone.
        """
        checkpoint, folder, made, text = self._model(), self.folder, self._made, self.evaluation
        if folder is None:
            raise ModelError("nothing_to_measure")
        self._heed("drift")
        yield Event("load")
        if self.folder != folder:
            raise Cancelled
        ids = text_windows(checkpoint, None if text is None or text.file is None else read_text(text.file))
        column = compressed_column(folder)
        with POOL.borrow(column.key, column.need, column.load) as model:

            def sharpened(drift: Drift) -> Event:
                self._heed("drift")
                if self.folder != folder:
                    raise Cancelled
                self.drift = drift
                return drift_event(drift)

            name, is_unwanted = "" if text is None else text.name, self._stops["drift"].is_set
            steps = model.run(drift_of, checkpoint, ids, name, is_unwanted=is_unwanted)
            whole = yield from relayed(steps, sharpened)
        if self.folder != folder:
            raise Cancelled
        self.drift = self._drifts[made] = whole
        return whole

    # chat

    def chat(
        self, prompt: str, sampling: Sampling, system: str = "", kv_bits: int = 16, again: bool = False
    ) -> Iterator[Event | Answers]:
        """Yield the answers of the original and of the compressed model, side by side, as they grow.

        Without a compressed copy the original answers alone; where both do not fit in memory the compressed model does,
        and the original reads its answer afterwards. The turn joins the conversation when it ends, also when it was
        stopped; ``again``: in the place of the last one. Raises PromptError for an empty or endless prompt.
        """
        checkpoint = self._model()
        if not prompt.strip():
            raise PromptError("empty_prompt")
        if len(prompt) + len(system) > MAX_PROMPT:
            raise PromptError(
                "prompt_too_many_characters", count=f"{len(prompt) + len(system):,}", limit=f"{MAX_PROMPT:,}"
            )
        if not checkpoint.can_chat:
            raise ModelError("cannot_chat", architecture=checkpoint.architecture)
        if checkpoint.folder is None:
            raise ModelError("compress_first")
        self._heed("chat")
        try:
            yield from self.conversation.answer(
                POOL,
                self._columns(),
                prompt,
                sampling,
                system,
                kv_bits,
                again,
                checkpoint,
                self._stops["chat"].is_set,
            )
        finally:
            self.begin("chat")  # a wish to stop ends with what it stopped

    @property
    def conversations(self) -> tuple[list[Message], list[Message]]:
        """What was said in each column."""
        return self.conversation.messages(0), self.conversation.messages(1)

    def clear_chat(self) -> None:
        """Forget what was said; an answer that is being given ends, and is not remembered."""
        self.conversation.forget()

    # the end

    def close(self) -> None:
        """Give back what the session holds on disk and in memory."""
        for job in JOBS:
            self.stop(job)
        self.conversation.forget()
        self._forget_compressed()
        self._forget_archive()
        shutil.rmtree(self.workspace, ignore_errors=True)

    def fetch(self) -> Generator[Event, None, Checkpoint]:
        """Bring the model's files to this machine. Raises HubError, ModelError or ResourceError."""
        before = self._model()
        fetched = yield from self._relay("compress", open_model.fetch(before), source_event, before)
        with self._planning:
            if not self._is_still(before):
                raise Cancelled
            self.checkpoint = fetched
        return fetched

    def _forget_compressed(self) -> None:
        if self.folder is not None:
            POOL.drop(str(self.folder))
            shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.compressed = self.folder = self.drift = None

    def _forget_archive(self) -> None:
        if self._archive is not None:
            shutil.rmtree(self._archive, ignore_errors=True)
        self._archive = None

    def _check_disk(self, need: int) -> None:
        self.workspace.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.workspace).free
        if need + DISK_MARGIN > free:
            raise ResourceError("export_disk_too_small", need=format_bytes(need + DISK_MARGIN), free=format_bytes(free))

    def _columns(self) -> list[Callable[[], Column]]:
        """Return what makes each column; a column that cannot be made fails by itself."""
        checkpoint, folder = self._model(), self.folder
        columns = [lambda: original_column(checkpoint)]
        if folder is not None:
            columns.append(lambda: compressed_column(folder))
        return columns


def _sample_of(checkpoint: Checkpoint) -> tuple[Sample, int]:
    """Return what an earlier sample tells of a model that is not on this machine, and how many bytes one reads."""
    if checkpoint.folder is not None:
        return {}, 0
    return sampled_survey.recall(checkpoint), sum(draw.nbytes for draw in sampled_survey.draws(checkpoint))
