"""What a session finds out of its model, and the plan that follows. Knows nothing of compressed copies or chats.

Each job is a generator of :class:`Event`; closing it cancels, and keeps what was found. A job ends by itself when the
visitor goes on to another model, which none of its figures may reach.
"""

import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from studio.base.errors import Cancelled, ModelError
from studio.base.fair_turns import Turns
from studio.base.progress import JOBS, Event, Job
from studio.base.steps import relayed
from studio.base.units import format_bytes
from studio.base.workers import in_worker
from studio.checkpoint import open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Layer, ratio_defining
from studio.planning.choice import Choice
from studio.planning.figures import DEFAULT, MEASURED
from studio.planning.layer_figure import planned_sum
from studio.planning.layer_losses import Figures, Measured
from studio.planning.plan import Plan, by_damage, fitted_scheme, make_plan
from studio.planning.sampled_survey import RUNS, Sample, sampled_survey
from studio.planning.survey import candidates, sensitivities, survey
from studio.planning.survey_file import Survey
from studio.quantization.scheme import Scheme

Item = TypeVar("Item")
Result = TypeVar("Result")

TURNS = Turns()
"""Of measuring, so that a large model does not keep the others' visitors waiting."""
Figure = str
"""The name of one that is measured."""


@dataclass
class Measuring:
    """A model, what is known of it, and its plan."""

    checkpoint: Checkpoint | None = None
    known: Survey = field(default_factory=Survey)
    """What is known of the model's layers so far."""
    scores: dict[str, float] | None = None
    """NNCF's sensitivities by layer, None until all are known."""
    sampled: Sample = field(default_factory=dict)
    """What a sample tells of layers that are not read as a whole yet: estimates, apart from what is ``known``."""
    sample_bytes: int = 0
    """What such a sample reads of a model that is not on this machine."""
    is_sampling: bool = False
    figures: dict[Figure, Figures] = field(default_factory=dict)
    """Layer -> scheme -> figure, as far as measured."""
    colour: str = DEFAULT
    """The figure that the map shows."""
    looked_at: str = ""
    """The layer, or the pattern of layers, whose costs are on show beneath the map."""
    choice: Choice = field(default_factory=Choice)
    plan: Plan | None = None
    _errors: tuple[Plan, Survey, dict[str, float]] | None = None
    _planning: threading.Lock = field(default_factory=threading.Lock)
    """A survey ends in one thread while the visitor moves a control in another."""
    _stops: dict[Job, threading.Event] = field(default_factory=lambda: {job: threading.Event() for job in JOBS})

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
        if not checkpoint.can_chat:
            return False
        return any(self._missing(figure, checkpoint, plan) for figure in self._figures_wanted)

    @property
    def has_figures(self) -> bool:
        """Whether figures of this model's layers can be had here, once they are asked for."""
        checkpoint = self.checkpoint
        return checkpoint is not None and checkpoint.folder is not None and checkpoint.can_chat

    @property
    def output_errors(self) -> Figures:
        """The output error of each layer in each scheme, as far as measured."""
        return self.figures.get("output", {})

    @property
    def damages(self) -> Figures:
        """The predicted damage of each layer in each scheme, nats a token, as far as measured."""
        return self.figures.get("damage", {})

    @property
    def predicted_drift(self) -> float | None:
        """The KL divergence that the plan is predicted to cost, all weights rounded to nearest, nats a token.

        The sum over linear weights that have a figure; None while one is not measured yet.
        """
        return planned_sum(self.plan, self.damages)

    def measure(self) -> Generator[Event, None, None]:
        """Measure what the map lacks: the survey, then the figures that it shows or the plan goes by."""
        yield from self.survey()
        for figure in self._figures_wanted:
            yield from self.measure_figure(figure)

    def survey(self) -> Generator[Event, None, None]:
        """Measure every layer in every scheme it could take, and in those of the plan; only where the files are here.

        What is found is in ``known`` as it comes; at the end plans with a ratio are exact.
        """
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.folder is None:
            return
        self.begin("survey")
        work = in_worker(survey, checkpoint, self.known, self._wanted(), is_unwanted=self._stops["survey"].is_set)
        steps = TURNS.taken(work)
        try:
            for step in steps:
                self._heed("survey")
                with self._planning:
                    if not self._is_still(checkpoint):
                        return
                    if step.found is not None:
                        self.known = self.known.joined(step.layer, step.found)
                yield Event("survey", step.done / step.total, step.layer, TURNS.jobs > 1)
        finally:
            steps.close()
        with self._planning:
            if self.scores is None and self._is_still(checkpoint):
                self.scores = self.known.sensitivities(checkpoint.layers)
                self.plan = self._planned(self.choice)

    def sample(self, runs: int = RUNS) -> Generator[Event, None, Sample]:
        """Estimate every layer's errors from some of its rows, read from the Hub where the files are not here.

        What is found is in ``sampled`` as it comes; at the end plans with a ratio follow it, as estimates.
        """
        checkpoint = self._model()
        self.begin("sample")
        steps = sampled_survey(checkpoint, open_model.byte_ranges(checkpoint), runs, wanted=self._wanted())
        self.is_sampling = True
        try:
            while True:
                step = next(steps)
                self._heed("sample")
                with self._planning:
                    if not self._is_still(checkpoint):
                        raise Cancelled
                    if step.found is not None:
                        self.sampled = {**self.sampled, step.layer: step.found}
                read = f"{format_bytes(step.done)} / {format_bytes(step.total)}"
                yield Event("sample", step.done / max(1, step.total), read)
        except StopIteration as finished:
            found: Sample = finished.value
        finally:
            self.is_sampling = False
            steps.close()
        with self._planning:
            if self._is_still(checkpoint):
                self.sampled = found
                self.plan = self._planned(self.choice)
        return found

    def rank(self) -> Generator[Event, None, None]:
        """Find out what the plan's ratio goes by, where it is not known yet; only where the files are here.

        Raises ModelError where that is predicted damage, and the model writes no text.
        """
        checkpoint = self._model()
        if self.choice.sensitivity == "damage":
            self._check_can_predict(checkpoint)
            yield from self.measure_figure("damage", "compress")
        elif self.scores is None and checkpoint.folder is not None:
            steps = in_worker(sensitivities, checkpoint, is_unwanted=self._stops["compress"].is_set)
            scores = yield from self._relay(
                "compress", steps, lambda step: Event("rank", step.done / step.total, step.layer), checkpoint
            )
            with self._planning:
                if self._is_still(checkpoint):
                    self.scores = scores

    def _check_can_predict(self, checkpoint: Checkpoint) -> None:
        """Raise ModelError where the ratio goes by damage, which only what writes text has."""
        if self._goes_by_damage and not checkpoint.can_chat:
            raise ModelError("no_damage", model=checkpoint.title)

    def measure_figure(self, figure: Figure, job: Job = "survey") -> Generator[Event, None, None]:
        """Measure a figure of each layer, over a short text; only where the files are here.

        What is found is in ``figures`` as it comes; at the end plans that go by it are exact.
        """
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.folder is None or self.plan is None or not checkpoint.can_chat:
            return
        missing = self._missing(figure, checkpoint, self.plan)
        if not missing:
            return
        if job == "survey":
            self.begin(job)
        steps = TURNS.taken(in_worker(MEASURED[figure], checkpoint, missing, is_unwanted=self._stops[job].is_set))
        try:
            while True:
                step = next(steps)
                self._heed(job)
                with self._planning:
                    if not self._is_still(checkpoint):
                        return
                    if isinstance(step, Measured) and step.errors is not None:
                        self._join(figure, {step.layer: step.errors})
                if isinstance(step, Measured):
                    yield Event(figure, step.done / step.total, step.layer, TURNS.jobs > 1)
                else:
                    yield Event("calibrate", step.done / step.total, "", TURNS.jobs > 1)
        except StopIteration as finished:
            found: Figures = finished.value
            with self._planning:
                if self._is_still(checkpoint):
                    self._join(figure, found)
                    if figure == "damage":
                        self.plan = self._planned(self.choice)
        finally:
            steps.close()

    def _join(self, figure: Figure, found: Mapping[str, Mapping[str, float]]) -> None:
        """Add lines to what is known by now: another job may have measured other schemes meanwhile."""
        now = self.figures.get(figure, {})
        lines = {name: {**now.get(name, {}), **line} for name, line in found.items()}
        self.figures = {**self.figures, figure: {**now, **lines}}

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

        def heeded(step: Item) -> Event:
            self._heed(job)
            if of is not None and not self._is_still(of):
                raise Cancelled
            return event(step)

        return (yield from relayed(steps, heeded))

    def _model(self) -> Checkpoint:
        if self.checkpoint is None:
            raise ModelError("choose_a_model")
        return self.checkpoint

    def _is_still(self, checkpoint: Checkpoint) -> bool:
        """Return whether this is still the session's model, with its files fetched or not."""
        now = self.checkpoint
        return now is not None and (now.name, now.revision) == (checkpoint.name, checkpoint.revision)

    def _planned(self, choice: Choice) -> Plan:
        """Return the plan of a choice as far as the model is known. Raises SchemeError."""
        return planned(self._model(), choice, self.scores, self.sampled, self.damages)

    @property
    def _goes_by_damage(self) -> bool:
        return self.choice.is_mixed and self.choice.sensitivity == "damage"

    @property
    def _figures_wanted(self) -> list[Figure]:
        """What the map shows, or the plan goes by and has not got."""
        waits = self._goes_by_damage and self.plan is not None and not self.plan.is_exact
        return [figure for figure in MEASURED if figure == self.colour or (figure == "damage" and waits)]

    def _wanted(self) -> dict[str, list[Scheme]]:
        """Return what the plan's mode asks of the survey beside the usual, so that its groups too are looked up."""
        wanted: dict[str, list[Scheme]] = {}
        for a in self.plan.assignments if self.plan is not None else ():
            if a.scheme is not None:
                wanted[a.layer.name] = [*candidates(a.layer, self.choice.mode), a.scheme]
        return wanted

    def _missing(self, figure: Figure, checkpoint: Checkpoint, plan: Plan) -> list[Scheme]:
        """Return the schemes in which a layer's figure is yet to be measured."""
        layers = ratio_defining(checkpoint.layers)
        wanted = dict.fromkeys(s for layer in layers for s in candidates(layer))
        wanted |= dict.fromkeys(a.scheme for a in plan.assignments if a.scheme is not None)
        fitted = (fitted_scheme(width, plan.choice) for width in {layer.matrix[1] for layer in layers})
        wanted |= dict.fromkeys(scheme for scheme in fitted if scheme is not None)
        return [scheme for scheme in wanted if not all(self._has(figure, layer, scheme) for layer in layers)]

    def _has(self, figure: Figure, layer: Layer, scheme: Scheme) -> bool:
        """Return whether this figure need not be measured: it is known, or there is none."""
        line = self.figures.get(figure, {}).get(layer.name)
        return line is not None and (not line or str(scheme) in line or not scheme.fits(layer.matrix[1]))


def planned(
    checkpoint: Checkpoint,
    choice: Choice,
    scores: Mapping[str, float] | None,
    sampled: Sample,
    damages: Figures | None = None,
) -> Plan:
    """Return the plan of a choice: by predicted damage where it says so, else by NNCF's scores or, while they are not
    known, by what a sample of all layers tells.

    Raises SchemeError.
    """
    if choice.sensitivity == "damage":
        return make_plan(checkpoint.layers, choice, by_damage(checkpoint.layers, choice, damages or {}))
    if scores is not None or not all(layer.name in sampled for layer in ratio_defining(checkpoint.layers, True)):
        return make_plan(checkpoint.layers, choice, scores)
    bounds = {name: line.sensitivity for name, line in sampled.items()}
    return make_plan(checkpoint.layers, choice, bounds, are_estimates=True)
