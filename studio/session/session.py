"""One visitor's session: the parts it owns, and the stages called in order. Knows nothing of pages or terminals.

    model, choice, plan ........ planner          texts that are read ....... texts
    layers measured ............ measurements     the compressed copy ....... copy
    what was said .............. conversation     wishes to stop ............ jobs
    where it is to run ......... decision         sample questions .......... samples

Each long job is a generator of :class:`Progress`; closing it cancels. What it changes, it changes at its end, so a job
that fails or is cancelled leaves the session as it was.
"""

import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor

from studio.base.errors import Cancelled, ModelError, PromptError
from studio.base.fair_turns import Turns
from studio.base.malloc import release_free_memory
from studio.base.progress import Progress
from studio.base.workspace import own_folder, sessions_folder
from studio.calibration.texts import Text
from studio.chat.answers import Answers
from studio.chat.columns import Column, original_column
from studio.chat.conversation import Conversation
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.recipe import Recipe
from studio.compression.compress import Compressed
from studio.evaluation.drift import Drift
from studio.planning import figures
from studio.planning.choice import Choice
from studio.planning.plan import Plan
from studio.quantization.methods import Method
from studio.runtime.sampling import Sampling
from studio.session import referee
from studio.session.admission import calibrating, check_memory, comparing
from studio.session.compressed_copy import CompressedCopy
from studio.session.decision import Decision
from studio.session.jobs import Jobs
from studio.session.measurements import Measurements
from studio.session.opened_model import OpenedModel
from studio.session.planner import Planner
from studio.session.runs import Judged, Run
from studio.session.samples import Samples
from studio.session.shared import Shared, of_this_process
from studio.session.texts import Texts, calibration_windows
from studio.session.visitor import Visitor

MAX_PROMPT = 100_000
"""Characters."""


class Session:
    """One visitor's model, plan, compressed copy and conversation."""

    def __init__(
        self,
        shared: Shared | None = None,
        *,
        paths: bool = False,
        workspace: Path | None = None,
        choice: Choice | None = None,
        max_prompt: int | None = MAX_PROMPT,
        visitor: Visitor | None = None,
    ) -> None:
        """``shared``: what it shares with other sessions, by default all that this process has. ``paths``: whether a
        local path is accepted as a model's name. ``workspace``: its folder, which goes with it. ``max_prompt``: the
        characters that a message may have, None where only the model says. ``visitor``: whose it is, by default whoever
        sits at this machine."""
        shared = of_this_process() if shared is None else shared
        workspace = own_folder(sessions_folder()) if workspace is None else workspace
        self._pool, self._workspace, self._paths, self._max_prompt = shared.pool, workspace, paths, max_prompt
        self.visitor = Visitor() if visitor is None else visitor
        self.jobs = Jobs(shared.turns, self.visitor.number)
        self._taken_over: list[Path] = []
        """Folders of earlier visits whose copy is this one's now."""
        self._before: Session | None = None
        self.login: str | None = None
        """The visitor's own for the Hub, kept as long as the visit and nowhere else."""
        self.has_let_go = False
        """Whether a copy was let go while its visitor was away."""
        self.planner = Planner(choice)
        self.measurements = Measurements(self.planner, self.jobs, shared.pool, lambda: self.login)
        self.texts = Texts(self.planner, workspace)
        self.copy = CompressedCopy(workspace, shared.pool, self.jobs)
        self.conversation = Conversation()
        self._talks = Turns(places=1)
        """Messages that wait for the answers before them."""
        self.decision = Decision(self.planner)
        self.samples = Samples(shared.pool)
        self.map_figure = figures.DEFAULT
        """The figure that the map shows."""
        self.looks_at_speed = False
        """Whether the picture of the speeds is in sight: one that is drawn unseen does not know how wide it may be."""
        self.looks_at_others = False
        """Whether the table of what every program makes of the plan is in sight."""
        self.selected_layers = ""
        """The layer, or the pattern of layers, whose costs are on show beneath the map."""
        self.spoken: str | None = None
        """The language chosen on the page, in which jobs that run go on; None while it is the browser's."""

    @property
    def model(self) -> OpenedModel:
        """The model as far as it is known."""
        return self.planner.model

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The original, None before one is chosen."""
        return self.planner.model.checkpoint

    @property
    def choice(self) -> Choice:
        return self.planner.choice

    @property
    def plan(self) -> Plan | None:
        return self.planner.plan

    # the original

    def open(self, name: str, revision: str | None = None) -> Generator[Progress, None, Checkpoint]:
        """Make ``name`` the session's model: from headers alone where it is on the Hub, there at ``revision``.

        Raises ModelError, HubError or CheckpointError; the model before it then stays.
        """
        checkpoint = yield from self.jobs.relay("open", open_model.open_model(name, self._paths, revision, self.login))
        if self.checkpoint is not None and self.model.is_of(checkpoint):
            return self.checkpoint  # chosen again: what was made of it stays
        self.planner.take(OpenedModel.of(checkpoint), self.decision.begin(checkpoint))
        self.selected_layers = ""
        before, self._before = self._before, None
        self.copy.let_go()
        self.conversation.forget()
        self.samples.forget()
        if before is not None and before.model.is_of(checkpoint) and not before.has_let_go:
            self._take_over(before)
        elif before is not None:
            before.close()
        return checkpoint

    def go_on_from(self, before: "Session") -> None:
        """Take over what an earlier visit of the same visitor made and said, as soon as the same model is opened."""
        before.jobs.stop_all()
        if before.checkpoint is None and before._before is not None:  # left before its model was open: what it took on
            unopened, before = before, before._before
            unopened._before = None
            unopened.close()
        if self._before is not None:
            self._before.close()
        self._before = before

    def _take_over(self, before: "Session") -> None:
        self.copy, self.conversation, self.samples = before.copy, before.conversation, before.samples
        self.copy.hand_over(self._workspace, self.jobs)
        self._taken_over += [before._workspace, *before._taken_over]

    def fetch(self) -> Generator[Progress, None, Checkpoint]:
        """Bring the model's files to this machine. Raises HubError, ModelError or ResourceError."""
        return (yield from self._fetched(self.model))

    def _fetched(self, model: OpenedModel) -> Generator[Progress, None, Checkpoint]:
        steps = open_model.fetch(model.chosen, self.login)
        fetched = yield from self.jobs.relay("compress", steps, lambda: self.planner.is_of(model))
        if not self.planner.fetched(model, fetched):
            raise Cancelled
        return fetched

    @property
    def is_unmeasured(self) -> bool:
        """Whether :meth:`measure` has something to do: the map lacks figures that can be had here."""
        return self.measurements.is_lacking(self.map_figure)

    def measure(self) -> Generator[Progress, None, None]:
        """Measure what the map lacks."""
        return self.measurements.measure(self.map_figure)

    # the compressed copy

    @property
    def is_copy_of_choice(self) -> bool:
        """Whether the compressed copy was made by the choice on show, and with its calibration text."""
        compressed = self.copy.compressed
        if compressed is None or compressed.plan.choice != self.choice:
            return False
        return not self.choice.method.needs_inputs or self.copy.calibrated_on == self.texts.calibration

    @property
    def is_copy_of_plan(self) -> bool:
        """Whether the compressed copy is what the plan on show would make, layer by layer."""
        compressed = self.copy.compressed
        if compressed is None or self.plan is None or not self.is_copy_of_choice:
            return False
        return self.plan.is_exact and compressed.plan.assignments == self.plan.assignments

    def compress(self) -> Generator[Progress, None, Compressed]:
        """Carry the plan out into a folder ready for export, fetching the model first where it is not here.

        What was measured of an earlier copy of the same plan still holds. Raises UserError; the compressed copy before
        it then stays. Raises Cancelled, too, when another model was opened meanwhile.
        """
        self.measurements.check_can_predict()
        model = self.model
        check_memory(self._pool, model.chosen, self.choice, self.measurements.is_damage_needed)  # before the download
        with self.jobs.begun("compress"):
            checkpoint = yield from self._fetched(model)
            with (yield from self.jobs.placed("compress")):
                plan = yield from self._ranked(model)  # which keeps memory of its own, and gives it back
                with calibrating(self._pool, checkpoint, plan.choice):
                    text, tokens = self.texts.calibration, None
                    if plan.choice.method.needs_inputs:
                        tokens = yield from self.calibration_windows(checkpoint, plan.choice.method)
                    return (yield from self._made(checkpoint, plan, text, tokens))

    def remake(self, recipe: Recipe, plan: Plan, tokens: Tensor | None) -> Generator[Progress, None, Compressed]:
        """Carry out the plan of a recipe of this model, calibrated on ``tokens``. Raises as :meth:`compress` does."""
        return (yield from self._made(self.model.chosen, plan, self.texts.calibration, tokens, recipe))

    def calibration_windows(self, checkpoint: Checkpoint, method: Method) -> Generator[Progress, None, Tensor]:
        """Yield while there is something to write, and return what a method calibrates the model on, int64 [W, T]."""
        model, text, count = self.model, self.texts.calibration, method.rounding.windows
        windows = calibration_windows(checkpoint, text, self._pool, self.jobs, lambda: self.planner.is_of(model), count)
        return (yield from windows)

    def _made(
        self, checkpoint: Checkpoint, plan: Plan, text: Text | None, tokens: Tensor | None, again: Recipe | None = None
    ) -> Generator[Progress, None, Compressed]:
        model = self.model
        compressed = yield from self.copy.make(checkpoint, plan, text, tokens, lambda: self.planner.is_of(model), again)
        self.conversation.forget()
        self.samples.forget()
        release_free_memory()
        return compressed

    def _ranked(self, model: OpenedModel) -> Generator[Progress, None, Plan]:
        """Yield while the layers' sensitivities are measured; return the plan on show then."""
        while True:
            ranked = self.choice
            if ranked.is_mixed:
                yield from self.measurements.rank()
            plan = self.planner.replan(model)
            if plan is None:
                raise Cancelled
            if plan.is_exact or plan.choice == ranked:  # else a control was moved, to what is not ranked yet
                return plan

    def measure_drift(self, is_short: bool = False) -> Generator[Progress, None, Drift]:
        """Compare the compressed copy, as it answers, with the original: see :meth:`CompressedCopy.measure_drift`."""
        checkpoint = self.model.chosen
        memory = nullcontext() if self.copy.column is None else comparing(self._pool, checkpoint)
        with self.jobs.begun("drift"), (yield from self.jobs.placed("drift")), memory:
            return (yield from self.copy.measure_drift(checkpoint, self.texts.evaluation, is_short=is_short))

    def note_run(self) -> Run | None:
        """Keep what is known of the compressed copy as a run; None where nothing was compressed here."""
        compressed, checkpoint, drift = self.copy.compressed, self.checkpoint, self.copy.drift
        if compressed is None or checkpoint is None:
            return None
        text = self.copy.calibrated_on
        return self.decision.runs.keep(
            Run(
                0,
                self.copy.job,
                checkpoint.name,
                compressed.plan,
                self.decision.target.name,
                self.decision.nbytes(compressed.plan),
                compressed.seconds,
                None if text is None else text.name,
                None if drift is None else drift.evaluation,
                "" if drift is None else drift.text,
                self.samples.turns,
            )
        )

    # files of others

    def judge(self, name: str) -> Generator[Progress, None, Judged]:
        """Judge a file, a folder or a repository that others made of this model, on a few windows of text.

        Raises CheckpointError for one of another model, with what differs, and as :meth:`fetch` does.
        """
        if not name.strip():
            raise ModelError("judge_nothing")
        with self.jobs.begun("drift"):
            original = self.model.chosen if self.model.is_here else (yield from self._fetched(self.model))
            steps = referee.opened_for(original, name.strip(), self._paths, self.login)
            return (yield from self.judge_opened((yield from self.jobs.relay("drift", steps))))

    def judge_opened(self, other: referee.Other, is_short: bool = True) -> Generator[Progress, None, Judged]:
        """Judge one that is known to be of this model, and keep what was found among the runs."""
        original, text = self.model.chosen, self.texts.evaluation
        copy = CompressedCopy(self._workspace, self._pool, self.jobs)
        with (yield from self.jobs.placed("drift")), comparing(self._pool, original):
            drift = yield from referee.judged(copy, self._pool, original, other, text, is_short)
        if drift.evaluation is None:
            raise Cancelled
        found = Judged(other.title, original.name, other.nbytes, drift.evaluation, drift.text)
        self.decision.runs.note(found)
        return found

    def ask_samples(self, prompts: Sequence[str]) -> Iterator[Progress]:
        """Yield while both models answer each of ``prompts``, in conversations of their own."""
        checkpoint = self.checkpoint if self.copy.column is not None else self.model.chosen
        self.jobs.raise_if_stopped("chat")
        try:
            columns, is_stopped = self._columns(checkpoint), self.jobs.should_stop("chat")
            yield from self.samples.ask(checkpoint, columns, prompts, is_stopped, self.jobs.visitor)
            self.jobs.raise_if_stopped("chat")
        finally:
            self.jobs.clear_stop("chat")

    # chat

    def chat(
        self, prompt: str, sampling: Sampling, system: str = "", kv_bits: int = 16, again: bool = False
    ) -> Iterator[Progress | Answers]:
        """Yield the answers of the original and of the compressed model, side by side, as they grow.

        Without a compressed copy the original answers alone, and without an original the copy; where both do not fit in
        memory the compressed model answers, and the original reads its answer afterwards. The turn joins the
        conversation when it ends, also when it was stopped; ``again``: in the place of the last one. Raises PromptError
        for an empty or endless prompt, ModelError for a model that has no head to answer with or is not fetched yet.
        """
        checkpoint = self.checkpoint if self.copy.column is not None else self.model.chosen
        if not prompt.strip():
            raise PromptError("empty_prompt")
        count = len(prompt) + len(system)
        if self._max_prompt is not None and count > self._max_prompt:
            raise PromptError("prompt_too_many_characters", count=f"{count:,}", limit=f"{self._max_prompt:,}")
        if checkpoint is not None and not checkpoint.can_chat:
            raise ModelError("cannot_chat", architecture=checkpoint.architecture)
        if checkpoint is not None and checkpoint.folder is None:
            raise ModelError("compress_first")
        self.jobs.raise_if_stopped("chat")
        with self.jobs.begun("chat"), (yield from self.jobs.one_by_one(self._talks, "chat")):
            try:
                yield from self.conversation.answer(
                    self._pool,
                    self._columns(checkpoint),
                    prompt,
                    sampling,
                    system,
                    kv_bits,
                    again,
                    checkpoint,
                    self.jobs.should_stop("chat"),
                    self.jobs.visitor,
                )
            finally:
                self.jobs.clear_stop("chat")  # a wish to stop ends with what it stopped

    def _columns(self, checkpoint: Checkpoint | None) -> list[Callable[[], Column]]:
        """Return what makes each column; a column that cannot be made fails by itself."""
        columns: list[Callable[[], Column]] = []
        if checkpoint is not None:
            columns.append(lambda: original_column(checkpoint))
        if self.copy.column is not None:
            columns.append(self.copy.column)
        return columns

    # the end

    @property
    def is_holding(self) -> bool:
        """Whether it has what :meth:`let_go` gives back."""
        return self.copy.is_holding or self._before is not None

    @property
    def model_keys(self) -> set[str]:
        """What the pool calls the models that it comes back to."""
        original = set() if self.checkpoint is None else {original_column(self.checkpoint).key}
        return original | self.copy.model_keys

    def let_go(self) -> None:
        """Give back what is big, for a visitor who is away: the copy with its files, and what models have read.

        What was found out, chosen, said and measured stays.
        """
        self.jobs.stop_all()
        self.has_let_go |= self.copy.is_holding
        self.conversation.rest(self._pool)
        self.copy.let_go()
        if self._before is not None:
            self._before.close()
            self._before = None
        for folder in self._taken_over:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Give back what the session holds on disk and in memory."""
        self.let_go()
        self.conversation.forget()
        self.copy.close()
        shutil.rmtree(self._workspace, ignore_errors=True)
