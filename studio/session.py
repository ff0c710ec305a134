"""What one visitor holds, and the stages called in order: the only mutable object. Knows nothing of pages.

Each long job is a generator of :class:`Event`; closing it cancels. What it changes, it changes at its end, so a job
that fails or is cancelled leaves the session as it was.
"""

import shutil
import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from studio import export, output_error, source
from studio.architecture import Layer, ratio_defining
from studio.chat import Reply, Sampling, side_by_side
from studio.checkpoint import Checkpoint
from studio.columns import Column, borrowed, compressed_column, original_column
from studio.compress import Compressed, compress, job_digest
from studio.errors import Cancelled, ModelError, PromptError, ResourceError, SchemeError
from studio.jobs import JOBS, Answers, Event, Job, source_event
from studio.model import slow_schemes
from studio.plan import Choice, Pin, Plan, group_sizes, make_plan
from studio.pool import Pool
from studio.sample import SampledLayer, sampled_survey
from studio.scheme import Scheme
from studio.survey import Survey, candidates, recall, sensitivities, survey
from studio.template import Message
from studio.turns import Turns
from studio.unfinished import unfinished
from studio.units import format_bytes
from studio.workspace import own_folder, sessions_folder

Item = TypeVar("Item")
Result = TypeVar("Result")

POOL = Pool()
TURNS = Turns()
"""Of measuring, so that a large model does not keep the others' visitors waiting."""
MAX_PROMPT = 100_000
"""Characters."""
DISK_MARGIN = 64 << 20
"""Bytes left free beside what a job writes."""
MAX_UNDO = 100


@dataclass
class Session:
    """One visitor's model, plan, compressed copy and conversation."""

    paths: bool = False
    """Whether a local path is accepted as a model's name."""
    workspace: Path = field(default_factory=lambda: own_folder(sessions_folder()))
    checkpoint: Checkpoint | None = None
    known: Survey = field(default_factory=Survey)
    """What is known of the model's layers so far."""
    scores: dict[str, float] | None = None
    """NNCF's sensitivities by layer, None until all are known."""
    output_errors: output_error.Errors = field(default_factory=dict)
    """Layer -> scheme -> output error, as far as measured."""
    colour: Literal["weight", "output", "bits"] = "weight"
    """What the map shows."""
    choice: Choice = field(default_factory=Choice)
    plan: Plan | None = None
    compressed: Compressed | None = None
    folder: Path | None = None
    """The compressed model as it would be exported."""
    conversations: tuple[list[Message], list[Message]] = field(default_factory=lambda: ([], []))
    _errors: tuple[Plan, Survey, dict[str, float]] | None = None
    _before: list[Choice] = field(default_factory=list)
    _planning: threading.Lock = field(default_factory=threading.Lock)
    """A survey ends in one thread while the visitor moves a control in another."""
    _archive: Path | None = None
    _stops: dict[Job, threading.Event] = field(default_factory=lambda: {job: threading.Event() for job in JOBS})

    # model

    def open(self, name: str) -> Generator[Event, None, Checkpoint]:
        """Make ``name`` the session's model: from headers alone where it is on the Hub.

        Raises ModelError, HubError or CheckpointError; the model before it then stays.
        """
        checkpoint = yield from self._relay("open", source.open_model(name, self.paths), source_event)
        current = self.checkpoint
        if current is not None and (current.name, current.revision) == (checkpoint.name, checkpoint.revision):
            return current  # chosen again: what was made of it stays
        known = recall(checkpoint)
        scores = known.sensitivities(checkpoint.layers)
        choice = _fitting(self.choice, checkpoint)
        plan = make_plan(checkpoint.layers, choice, scores)
        with self._planning:  # what still works for the model before it sees that it is gone, and ends
            self.checkpoint, self.known, self.scores, self.choice, self.plan = checkpoint, known, scores, choice, plan
            self.output_errors = {}
            self._before.clear()
        self._forget_compressed()
        self.conversations = ([], [])
        return checkpoint

    def survey(self) -> Generator[Event, None, None]:
        """Measure every layer in every scheme it could take, and in those of the plan; only where the files are here.

        What is found is in ``known`` as it comes; at the end plans with a ratio are exact.
        """
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.folder is None:
            return
        self.begin("survey")
        steps = TURNS.taken(survey(checkpoint, self.known, self._wanted()))
        try:
            for step in steps:
                self._heed("survey")
                if self.checkpoint is not checkpoint:
                    return  # the visitor went on to another model
                with self._planning:
                    if step.found is not None and self.checkpoint is checkpoint:
                        self.known = self.known.joined(step.layer, step.found)
                yield Event("survey", step.done / step.total, step.layer, TURNS.jobs > 1)
        finally:
            steps.close()
        with self._planning:
            if self.scores is None and self.checkpoint is checkpoint:
                self.scores = self.known.sensitivities(checkpoint.layers)
                self.plan = make_plan(checkpoint.layers, self.choice, self.scores)

    def _wanted(self) -> dict[str, list[Scheme]]:
        """Return what the plan's mode asks of the survey beside the usual, so that its groups too are looked up."""
        wanted: dict[str, list[Scheme]] = {}
        for a in self.plan.assignments if self.plan is not None else ():
            if a.scheme is not None:
                wanted[a.layer.name] = [*candidates(a.layer, self.choice.mode), a.scheme]
        return wanted

    def rank(self) -> Generator[Event, None, None]:
        """Find out NNCF's sensitivities alone, where a survey has not; only where the files are here."""
        checkpoint = self._model()
        if self.scores is None and checkpoint.folder is not None:
            steps = sensitivities(checkpoint)
            scores = yield from self._relay(
                "compress", steps, lambda step: Event("rank", step.done / step.total, step.layer), checkpoint
            )
            with self._planning:
                if self._is_still(checkpoint):
                    self.scores = scores

    def sample(self, runs: int) -> Generator[Event, None, dict[str, SampledLayer]]:
        """Survey a few rows of each layer; nothing of it is kept."""
        self.begin("survey")
        steps = sampled_survey(self._model(), runs)
        return (
            yield from self._relay("survey", steps, lambda step: Event("sample", step.done / step.total, step.layer))
        )

    @property
    def errors(self) -> dict[str, float]:
        """The weight error of each layer in the plan's scheme, as far as it is known; looked up once a plan."""
        plan, known = self.plan, self.known
        if plan is None:
            return {}
        if self._errors is None or self._errors[0] is not plan or self._errors[1] is not known:
            self._errors = plan, known, known.errors(plan.assignments)
        return self._errors[2]

    @property
    def is_surveyed(self) -> bool:
        """Whether the error of every layer in the plan's scheme is known."""
        return self.plan is not None and len(self.errors) == self.plan.compressed_layers

    @property
    def is_unmeasured(self) -> bool:
        """Whether :meth:`measure` has something to do: the map lacks figures that can be had here."""
        checkpoint, plan = self.checkpoint, self.plan
        if checkpoint is None or checkpoint.folder is None or plan is None:
            return False
        if self.scores is None or not self.is_surveyed:
            return True
        return self.colour == "output" and checkpoint.can_chat and bool(self._outputs_missing(checkpoint, plan))

    def measure(self) -> Generator[Event, None, None]:
        """Measure what the map lacks: the survey, then the output errors where it shows them."""
        yield from self.survey()
        if self.colour == "output":
            yield from self.measure_outputs()

    def measure_outputs(self) -> Generator[Event, None, None]:
        """Measure what each layer's output loses, over a short text; only where the files are here."""
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.folder is None or self.plan is None or not checkpoint.can_chat:
            return
        missing = self._outputs_missing(checkpoint, self.plan)
        if not missing:
            return
        self.begin("survey")
        before = self.output_errors
        steps = TURNS.taken(output_error.measure(checkpoint, missing))
        try:
            while True:
                step = next(steps)
                self._heed("survey")
                if self.checkpoint is not checkpoint:
                    return
                if isinstance(step, output_error.Measured):
                    if step.errors is not None:
                        line = {**before.get(step.layer, {}), **step.errors}
                        self.output_errors = {**self.output_errors, step.layer: line}
                    yield Event("outputs", step.done / step.total, step.layer, TURNS.jobs > 1)
                else:
                    yield Event("calibrate", step.done / step.total, "", TURNS.jobs > 1)
        except StopIteration as finished:
            if self.checkpoint is checkpoint:
                found: output_error.Errors = finished.value
                self.output_errors = {name: {**before.get(name, {}), **line} for name, line in found.items()}
        finally:
            steps.close()

    def _outputs_missing(self, checkpoint: Checkpoint, plan: Plan) -> list[Scheme]:
        """Return the schemes in which a layer's output error is yet to be measured."""
        layers = ratio_defining(checkpoint.layers)
        wanted = dict.fromkeys(s for layer in layers for s in candidates(layer))
        wanted |= dict.fromkeys(a.scheme for a in plan.assignments if a.scheme is not None)
        return [scheme for scheme in wanted if not all(self._has_output(layer, scheme) for layer in layers)]

    def _has_output(self, layer: Layer, scheme: Scheme) -> bool:
        """Return whether this output error need not be measured: it is known, or there is none."""
        line = self.output_errors.get(layer.name)
        return line is not None and (not line or str(scheme) in line or not scheme.fits(layer.matrix[1]))

    def choose(self, choice: Choice) -> Plan:
        """Set the choice and return its plan. Raises SchemeError; the plan before it then stays."""
        with self._planning:
            plan = make_plan(self._model().layers, choice, self.scores)
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
            self.plan = make_plan(self._model().layers, before, self.scores)
            self.choice = before
            return self.plan

    # compress

    @property
    def is_current(self) -> bool:
        """Whether the compressed copy is that of the plan on show."""
        return self.compressed is not None and self.compressed.plan.choice == self.choice

    def _is_still(self, checkpoint: Checkpoint) -> bool:
        """Return whether this is still the session's model, with its files fetched or not."""
        now = self.checkpoint
        return now is not None and (now.name, now.revision) == (checkpoint.name, checkpoint.revision)

    def compress(self) -> Generator[Event, None, Compressed]:
        """Carry the plan out into a folder ready for export, fetching the model first where it is not here.

        Raises UserError; the compressed copy before it then stays. Raises Cancelled, too, when another model was opened
        meanwhile.
        """
        checkpoint = yield from self.fetch()
        if self.choice.is_mixed:
            yield from self.rank()
        with self._planning:
            if not self._is_still(checkpoint):
                raise Cancelled
            self.plan = plan = make_plan(checkpoint.layers, self.choice, self.scores)
        name = self.export_name(plan)
        self._check_disk(plan.compressed_bytes)
        place = self.workspace / uuid.uuid4().hex
        compressed = None
        with unfinished(job_digest(checkpoint, plan), self.workspace) as file:
            try:
                compressed = yield from self._relay(
                    "compress",
                    compress(checkpoint, plan, file),
                    lambda step: Event("compress", step.done / step.total, step.layer),
                    checkpoint,
                )
                yield Event("finish", 1.0)
                self._heed("compress")
                folder = export.write_folder(checkpoint, compressed, place / name)
                if not self._is_still(checkpoint):
                    raise Cancelled
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                if compressed is not None:  # whole, but without a folder: nothing to go on with
                    compressed.file.unlink(missing_ok=True)
                raise
        self._forget_compressed()
        self.compressed, self.folder = compressed, folder
        self.conversations = ([], [])
        return compressed

    def export_name(self, plan: Plan) -> str:
        """Return the name of the exported folder: the model's and the scheme's."""
        base = self._model().title
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in base)[:80].strip(".-") or "model"
        return f"{safe}-{plan.choice.primary}"

    def archive(self, folder: Path) -> Generator[Event, None, Path]:
        """Pack the compressed model into one file in the new ``folder``, which goes with the next one or the session.

        Raises ModelError while nothing is compressed, ResourceError for a full disk.
        """
        if self.folder is None:
            raise ModelError("nothing_compressed")
        self._check_disk(sum(member.stat().st_size for member in self.folder.iterdir()))
        self._forget_archive()
        self._archive = folder
        folder.mkdir(parents=True)
        packing = export.archive(self.folder, folder / f"{self.folder.name}.zip")
        return (yield from self._relay("export", packing, lambda step: Event("export", step[0] / step[1])))

    # chat

    def chat(self, prompt: str, sampling: Sampling, system: str = "") -> Iterator[Event | Answers]:
        """Yield the answers of the original and of the compressed model, side by side, as they grow.

        Without a compressed copy the original answers alone. The turn joins the conversations when it ends, also when
        it was stopped. Raises PromptError for an empty or endless prompt.
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
        conversations = self.conversations
        before: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        turns = [[*before, *said, {"role": "user", "content": prompt}] for said in conversations]
        yield Event("load")
        with borrowed(POOL, self._columns()) as (speakers, failures):
            memory = tuple(None if s is None else s.weight_bytes for s in speakers)
            slow = tuple(s is not None and slow_schemes(s.model) for s in speakers)
            replies = [Reply() if failure is None else Reply(ended="error", error=failure) for failure in failures]
            awake = [i for i, speaker in enumerate(speakers) if speaker is not None]
            yield Answers(tuple(replies), memory, slow)
            try:
                for step in side_by_side([s for s in speakers if s is not None], [turns[i] for i in awake], sampling):
                    for i, reply in zip(awake, step, strict=True):
                        replies[i] = reply
                    yield Answers(tuple(replies), memory, slow)
                    if self._stops["chat"].is_set() or self.conversations is not conversations:
                        break
            finally:
                self.begin("chat")  # a wish to stop ends with what it stopped
                _remember(conversations, prompt, replies)

    def clear_chat(self) -> None:
        """Forget what was said; an answer that is being given ends, and is not remembered."""
        self.conversations = ([], [])

    def stop(self, job: Job) -> None:
        """Ask a job that waits or runs to end at its next step."""
        self._stops[job].set()

    def begin(self, job: Job) -> None:
        """Forget an earlier wish to stop this job: it was asked for anew."""
        self._stops[job].clear()

    def _heed(self, job: Job) -> None:
        if self._stops[job].is_set():
            self.begin(job)
            raise Cancelled

    # the end

    def close(self) -> None:
        """Give back what the session holds on disk and in memory."""
        for job in JOBS:
            self.stop(job)
        self._forget_compressed()
        self._forget_archive()
        shutil.rmtree(self.workspace, ignore_errors=True)

    def _relay(
        self,
        job: Job,
        steps: Generator[Item, None, Result],
        event: Callable[[Item], Event],
        of: Checkpoint | None = None,
    ) -> Generator[Event, None, Result]:
        """Yield a stage's steps as events and return its result; closing this closes the stage.

        Raises Cancelled, with the stage closed, once :meth:`stop` was called for the job, or the model it is ``of`` is
        no longer the session's.
        """
        try:
            while True:
                step = next(steps)
                self._heed(job)
                if of is not None and not self._is_still(of):
                    raise Cancelled
                yield event(step)
        except StopIteration as finished:
            result: Result = finished.value
            return result
        finally:
            steps.close()

    def fetch(self) -> Generator[Event, None, Checkpoint]:
        """Bring the model's files to this machine. Raises HubError, ModelError or ResourceError."""
        before = self._model()
        fetched = yield from self._relay("compress", source.fetch(before), source_event, before)
        with self._planning:
            if not self._is_still(before):
                raise Cancelled
            self.checkpoint = fetched
        return fetched

    def _model(self) -> Checkpoint:
        if self.checkpoint is None:
            raise ModelError("choose_a_model")
        return self.checkpoint

    def _forget_compressed(self) -> None:
        if self.folder is not None:
            POOL.drop(str(self.folder))
            shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.compressed = self.folder = None

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


def _remember(conversations: tuple[list[Message], list[Message]], prompt: str, replies: Sequence[Reply]) -> None:
    """Let the turn join the conversations of the models that answered."""
    for conversation, reply in zip(conversations, replies, strict=False):
        if reply.tokens:
            conversation.append({"role": "user", "content": prompt})
            conversation.append({"role": "assistant", "content": reply.text})


def _fitting(choice: Choice, checkpoint: Checkpoint) -> Choice:
    """Return ``choice`` as far as it can be carried out for another model.

    Without its pins, which were for layers of the one before; with a group size that fits (64 if it can be, else the
    largest up to 128), or else in the default mode.
    """
    sizes = group_sizes(checkpoint.layers)
    size = choice.group_size
    if size not in sizes and choice.misfit == "error":
        size = 64 if 64 in sizes else max((s for s in sizes if s <= 128), default=-1)
    fitting = replace(choice, pins=(), group_size=size)
    try:
        make_plan(checkpoint.layers, fitting)
    except SchemeError:  # a mode whose only group does not divide this model
        return Choice(group_size=-1)
    return fitting
