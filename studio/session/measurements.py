"""What a session finds out of its model's layers. Knows nothing of compressed copies or chats.

Each job is a generator of :class:`Progress`; closing it cancels, and keeps what was found. A job ends by itself when
the visitor goes on to another model.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial

from studio.base.errors import Cancelled, ModelError
from studio.base.progress import Job, Progress
from studio.base.workers import in_worker
from studio.chat.model_pool import Pool
from studio.checkpoint import open_model
from studio.planning.figures import MEASURED
from studio.planning.layer_losses import Figures
from studio.planning.layer_measured import LayerMeasured, progress_of
from studio.planning.plan import Plan
from studio.planning.sampled_survey import RUNS, Sample, sampled_survey
from studio.planning.survey import candidates, sensitivities, survey
from studio.planning.survey_file import LayerSurvey
from studio.quantization.scheme import Scheme
from studio.session.admission import measuring, surveying
from studio.session.jobs import Jobs
from studio.session.opened_model import Figure
from studio.session.planner import Planner


class Measurements:
    """The jobs that measure the layers of a planner's model; what they find is the model's, and the plan follows it."""

    def __init__(
        self, planner: Planner, jobs: Jobs, pool: Pool | None = None, login: Callable[[], str | None] = lambda: None
    ) -> None:
        """``pool``: whose memory is asked for; ``login``: returns the visitor's own for the Hub."""
        self._planner, self._jobs, self._pool = planner, jobs, Pool() if pool is None else pool
        self._login = login
        self.is_sampling = False
        self.predicted: Callable[[], Sequence[Plan]] | None = None
        """The plans whose loss is to be predicted beside the one on show, also where neither map nor ranking asks for
        it; None where nobody wants to know."""

    def is_lacking(self, colour: str) -> bool:
        """Return whether :meth:`measure` has something to do: the map lacks figures that can be had here."""
        model, plan = self._planner.model, self._planner.plan
        if not model.is_here or plan is None:
            return False
        if model.scores is None or not self._planner.is_surveyed:
            return True
        if not model.has_figures:
            return False
        if any(model.missing(figure, plan) for figure in self._asked_figures(colour)):
            return True
        return self.predicted is not None and any(model.lacks("damage", each) for each in (plan, *self.predicted()))

    def measure(self, colour: str) -> Generator[Progress, None, None]:
        """Measure what the map lacks: the survey, then the figures that it shows or the plan is ranked by."""
        yield from self.survey()
        for figure in self._wanted_figures(colour):
            yield from self.measure_figure(figure)

    def survey(self) -> Generator[Progress, None, None]:
        """Measure every layer in every scheme it could take, and in those of the plan; only where the files are here.

        What is found is the model's ``known`` as it comes; at the end plans with a ratio are exact. Raises
        ResourceError where there is no memory for it.
        """
        model = self._planner.model
        if not model.is_here:
            return
        self._jobs.clear_stop("survey")
        is_unwanted = self._jobs.should_stop("survey")
        steps = in_worker(survey, model.chosen, model.known, self._wanted_schemes(), is_unwanted=is_unwanted)

        def noted(step: Progress | LayerMeasured[LayerSurvey]) -> Progress:
            if isinstance(step, LayerMeasured):
                model.add_survey(step.layer, step.result)
            return progress_of(step)

        memory = surveying(self._pool, model.chosen)
        with memory, closing(self._jobs.in_turn("survey", steps, noted)) as told:
            for step in told:
                if not self._planner.is_of(model):
                    return
                yield step
        if model.scores is None and self._planner.is_of(model):
            model.rank()
            self._planner.replan(model)

    def sample(self, runs: int = RUNS) -> Generator[Progress, None, Sample]:
        """Estimate every layer's errors from some of its rows, read from the Hub where the files are not here.

        What is found is the model's ``sampled`` as it comes; at the end plans with a ratio follow it, as estimates.
        """
        model = self._planner.model
        checkpoint = model.chosen
        self._jobs.clear_stop("sample")
        steps = sampled_survey(
            checkpoint, open_model.byte_ranges(checkpoint, self._login()), runs, wanted=self._wanted_schemes()
        )
        self.is_sampling = True
        try:
            while True:
                step = next(steps)
                self._jobs.raise_if_stopped("sample")
                if not self._planner.is_of(model):
                    raise Cancelled
                if isinstance(step, LayerMeasured):
                    model.add_sampled(step.layer, step.result)
                yield progress_of(step)
        except StopIteration as finished:
            sample: Sample = finished.value
        finally:
            self.is_sampling = False
            steps.close()
        model.sampled = sample
        self._planner.replan(model)
        return sample

    def rank(self) -> Generator[Progress, None, None]:
        """Measure the sensitivities that rank the plan's layers, unless they are known; only where the files are here.

        Raises ModelError where that is predicted damage, and the model writes no text.
        """
        model = self._planner.model
        checkpoint = model.chosen
        if self._planner.choice.sensitivity == "damage":
            self.check_can_predict()
            yield from self.measure_figure("damage", "compress")
        elif model.scores is None and model.is_here:
            steps = in_worker(sensitivities, checkpoint, is_unwanted=self._jobs.should_stop("compress"))
            is_current = partial(self._planner.is_of, model)
            model.scores = yield from self._jobs.in_turn("compress", steps, progress_of, is_current)

    @property
    def is_damage_needed(self) -> bool:
        """Whether ranking the plan's layers measures damages that are not known yet, once the files are here."""
        return self._planner.is_ranked_by_damage and bool(self._missing("damage"))

    def check_can_predict(self) -> None:
        """Raise ModelError where layers are ranked by damage and the model writes no text."""
        checkpoint = self._planner.model.chosen
        if self._planner.is_ranked_by_damage and not checkpoint.can_chat:
            raise ModelError("no_damage", model=checkpoint.title)

    def measure_figure(self, figure: Figure, job: Job = "survey") -> Generator[Progress, None, None]:
        """Measure a figure of each layer, over a short text; only where the files are here.

        Results are put into the model's ``figures`` as they come; at the end plans that are ranked by them are exact.
        Raises ResourceError, with the arithmetic, where there is no memory for it.
        """
        model, plan = self._planner.model, self._planner.plan
        missing = [] if plan is None or not model.has_figures else self._missing(figure)
        if not missing:
            return
        if job == "survey":
            self._jobs.clear_stop(job)
        steps = in_worker(MEASURED[figure], model.chosen, missing, is_unwanted=self._jobs.should_stop(job))

        def noted(step: Progress | LayerMeasured[Mapping[str, float]]) -> Progress:
            if isinstance(step, LayerMeasured):
                model.add_figures(figure, {step.layer: step.result})
            return progress_of(step)

        memory = measuring(self._pool, model.chosen)
        with memory, closing(self._jobs.in_turn(job, steps, noted)) as told:
            while True:
                try:
                    step = next(told)
                except StopIteration as finished:
                    figures: Figures = finished.value
                    break
                if not self._planner.is_of(model):
                    return
                yield step
        model.add_figures(figure, figures)
        if figure == "damage":
            self._planner.replan(model)

    def _wanted_figures(self, colour: str) -> list[Figure]:
        """Return the figures that the map shows, and those that a ranking or a prediction still lacks."""
        asked = self._asked_figures(colour)
        return [figure for figure in MEASURED if figure in asked or (figure == "damage" and self.predicted is not None)]

    def _asked_figures(self, colour: str) -> list[Figure]:
        """Return the figures that the map shows, and those that the plan's ranking still lacks."""
        plan = self._planner.plan
        waits = self._planner.is_ranked_by_damage and plan is not None and not plan.is_exact
        return [figure for figure in MEASURED if figure == colour or (figure == "damage" and waits)]

    def _missing(self, figure: Figure) -> list[Scheme]:
        """Return the schemes in which a layer's figure is yet to be measured, for the plans that are asked about."""
        model, plan = self._planner.model, self._planner.plan
        plans = [] if plan is None else [plan]
        plans += self.predicted() if figure == "damage" and self.predicted is not None else []
        return list(dict.fromkeys(scheme for each in plans for scheme in model.missing(figure, each)))

    def _wanted_schemes(self) -> dict[str, list[Scheme]]:
        """Return what the plan's mode asks of the survey beside the usual, so that its groups too are looked up."""
        wanted: dict[str, list[Scheme]] = {}
        plan = self._planner.plan
        for a in plan.assignments if plan is not None else ():
            if a.scheme is not None:
                wanted[a.layer.name] = [*candidates(a.layer, self._planner.choice.mode), a.scheme]
        return wanted
