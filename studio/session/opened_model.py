"""A visitor's model, and what is known of its layers so far. Knows nothing of choices that were made, nor of jobs.

Opening another model makes another of these: what a job still finds of the one before reaches that one alone.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from studio.base.errors import ModelError
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.planning import sampled_survey, survey_file
from studio.planning.choice import Choice
from studio.planning.gridded import grid_of
from studio.planning.layer_losses import Figures
from studio.planning.palettes import PALETTES
from studio.planning.plan import Plan, damage_scores, fitted_scheme, make_plan
from studio.planning.sampled_survey import Sample, SampledLayer
from studio.planning.settled import settled
from studio.planning.survey import candidates
from studio.planning.survey_file import LayerSurvey, Survey
from studio.quantization.scheme import Scheme

Figure = str
"""The name of one that is measured."""


@dataclass(eq=False)
class OpenedModel:
    """A model; before a visitor chose one there is no checkpoint, and nothing is known."""

    checkpoint: Checkpoint | None = None
    known: Survey = field(default_factory=Survey)
    """What is known of the model's layers so far."""
    scores: dict[str, float] | None = None
    """NNCF's sensitivities by layer, None until all are known."""
    sampled: Sample = field(default_factory=dict)
    """What a sample tells of layers that are not read as a whole yet: estimates, apart from what is ``known``."""
    sample_bytes: int = 0
    """What such a sample reads of a model that is not on this machine."""
    figures: dict[Figure, Figures] = field(default_factory=dict)
    """Layer -> scheme -> figure, as far as measured."""
    _grid: tuple[Scheme | None] | None = None
    """Once it was looked for."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Two jobs may each add what they found."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "OpenedModel":
        """Return a model with what earlier visits found out of it."""
        known = survey_file.recall(checkpoint)
        sampled: Sample = {}
        cost = 0
        if checkpoint.folder is None:
            sampled = sampled_survey.recall(checkpoint)
            cost = sum(draw.nbytes for draw in sampled_survey.draws(checkpoint))
        return cls(checkpoint, known, known.sensitivities(checkpoint.layers), sampled, cost)

    @property
    def chosen(self) -> Checkpoint:
        """The checkpoint. Raises ModelError before one is chosen."""
        if self.checkpoint is None:
            raise ModelError("choose_a_model")
        return self.checkpoint

    @property
    def grid(self) -> Scheme | None:
        """The scheme of 4 bits on whose grid the weights lie already; None for most models, and until they are here."""
        if not self.is_here:
            return None
        if self._grid is None:
            self._grid = (grid_of(self.chosen),)
        return self._grid[0]

    @property
    def is_here(self) -> bool:
        """Whether its files are on this machine."""
        return self.checkpoint is not None and self.checkpoint.folder is not None

    @property
    def has_figures(self) -> bool:
        """Whether figures of its layers can be had here, once they are asked for."""
        return self.checkpoint is not None and self.is_here and self.checkpoint.can_chat

    @property
    def output_errors(self) -> Figures:
        """The output error of each layer in each scheme, as far as measured."""
        return self.figures.get("output", {})

    @property
    def damages(self) -> Figures:
        """The predicted damage of each layer in each scheme, nats a token, as far as measured."""
        return self.figures.get("damage", {})

    def is_of(self, checkpoint: Checkpoint) -> bool:
        """Return whether this is the same model, with its files fetched or not."""
        now = self.checkpoint
        return now is not None and (now.name, now.revision) == (checkpoint.name, checkpoint.revision)

    def plan(self, choice: Choice) -> Plan:
        """Return the plan of a choice as far as the model is known. Raises SchemeError.

        By predicted damage where the choice says so, else by NNCF's scores or, while they are not known, by what a
        sample of all layers tells.
        """
        layers = self.chosen.layers
        if choice.budget is not None:
            return make_plan(layers, settled(choice, self.chosen), damages=self.damages)
        if choice.sensitivity == "damage":
            return make_plan(layers, choice, damage_scores(layers, choice, self.damages))
        scores, sampled = self.scores, self.sampled
        if scores is not None or not all(layer.name in sampled for layer in ratio_defining(layers, True)):
            return make_plan(layers, choice, scores)
        bounds = {name: line.sensitivity for name, line in sampled.items()}
        return make_plan(layers, choice, bounds, are_estimates=True)

    def missing(self, figure: Figure, plan: Plan) -> list[Scheme]:
        """Return the schemes in which a layer's figure is yet to be measured."""
        layers = ratio_defining(self.chosen.layers)
        wanted = dict.fromkeys(s for layer in layers for s in candidates(layer))
        wanted |= dict.fromkeys(a.scheme for a in plan.assignments if a.scheme is not None)
        fitted = (fitted_scheme(width, plan.choice) for width in {layer.matrix[1] for layer in layers})
        wanted |= dict.fromkeys(scheme for scheme in fitted if scheme is not None)
        if plan.choice.budget is not None:
            wanted |= dict.fromkeys(PALETTES[plan.choice.target].schemes)
        return [scheme for scheme in wanted if not all(self._has(figure, layer, scheme) for layer in layers)]

    def lacks(self, figure: Figure, plan: Plan) -> bool:
        """Return whether a weight's figure is yet to be measured in the scheme that a plan gives it."""
        weights = (
            (a.layer, a.scheme) for a in plan.assignments if a.layer.kind is Kind.LINEAR and a.scheme is not None
        )
        return any(not self._has(figure, layer, scheme) for layer, scheme in weights)

    def add_survey(self, layer: str, line: LayerSurvey) -> None:
        """Join what was measured of a layer."""
        with self._lock:
            self.known = self.known.joined(layer, line)

    def add_sampled(self, layer: str, line: SampledLayer) -> None:
        """Join what a sample tells of a layer."""
        with self._lock:
            self.sampled = {**self.sampled, layer: line}

    def add_figures(self, figure: Figure, more: Mapping[str, Mapping[str, float]]) -> None:
        """Join figures of layers; another job may have measured other schemes meanwhile."""
        with self._lock:
            now = self.figures.get(figure, {})
            lines = {name: {**now.get(name, {}), **line} for name, line in more.items()}
            self.figures = {**self.figures, figure: {**now, **lines}}

    def rank(self) -> None:
        """Find the scores in the survey, where they are not known yet and it is whole."""
        if self.scores is None:
            self.scores = self.known.sensitivities(self.chosen.layers)

    def _has(self, figure: Figure, layer: Layer, scheme: Scheme) -> bool:
        """Return whether this figure need not be measured: it is known, or there is none."""
        line = self.figures.get(figure, {}).get(layer.name)
        return line is not None and (not line or str(scheme) in line or not scheme.fits(layer.matrix[1]))
