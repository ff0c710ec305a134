"""The plan of a visitor's model: what was chosen, what follows from it, and the choices before. Knows no jobs.

One thread measures while the visitor moves a control in another: whatever changes model, choice and plan together does
so under one lock, and a job that is of a model before this one finds that out there.
"""

import threading
from dataclasses import replace

from studio.base.errors import SchemeError
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning.choice import Choice, Pin
from studio.planning.layer_figure import planned_sum
from studio.planning.plan import Plan
from studio.planning.settled import as_far_as_possible
from studio.planning.survey_file import Survey
from studio.quantization.scheme import Scheme
from studio.session.opened_model import OpenedModel

MAX_UNDO = 100


class Planner:
    """A model, a choice and the plan that follows, None before a model is chosen."""

    def __init__(self, choice: Choice | None = None) -> None:
        self.model = OpenedModel()
        self.choice = Choice() if choice is None else choice
        self.plan: Plan | None = None
        self._before: list[Choice] = []
        self._errors: tuple[Plan, Survey, dict[str, float]] | None = None
        self._lock = threading.Lock()

    def take(self, model: OpenedModel, choice: Choice | None = None) -> None:
        """Go on with another model; nothing is left to undo.

        ``choice`` is one that can be carried out for it, by default as much of the present one as can be.
        """
        choice = as_far_as_possible(self.choice, model.chosen) if choice is None else choice
        plan = model.plan(choice)
        with self._lock:  # what still works for the model before it sees that it is gone, and ends
            self.model, self.choice, self.plan = model, choice, plan
            self._before.clear()

    def is_of(self, model: OpenedModel) -> bool:
        """Return whether this is still the model."""
        return self.model is model

    def fetched(self, model: OpenedModel, checkpoint: Checkpoint) -> bool:
        """Let the model be on this machine; return whether it is still the one."""
        with self._lock:
            if self.model is model:
                model.checkpoint = checkpoint
            return self.model is model

    def replan(self, model: OpenedModel) -> Plan | None:
        """Plan anew with what is known by now, and return the plan; None, with nothing changed, where ``model`` is no
        longer the one. Raises SchemeError."""
        with self._lock:
            if self.model is not model:
                return None
            self.plan = model.plan(self.choice)
            return self.plan

    def choose(self, choice: Choice) -> Plan:
        """Set the choice and return its plan. Raises SchemeError; the plan before it then stays."""
        with self._lock:
            plan = self.model.plan(choice)
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
        if not any(pin.takes(layer.name) for layer in self.model.chosen.layers if layer.is_weight):
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
        with self._lock:
            before = self._before.pop()
            self.plan = self.model.plan(before)
            self.choice = before
            return self.plan

    @property
    def is_ranked_by_damage(self) -> bool:
        """Whether the plan's layers are ranked by predicted damage."""
        return self.choice.is_mixed and self.choice.sensitivity == "damage"

    @property
    def errors(self) -> dict[str, float]:
        """The weight error of each layer in the plan's scheme, as far as it is known; looked up once a plan."""
        plan, known = self.plan, self.model.known
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
    def predicted_drift(self) -> float | None:
        """The KL divergence that the plan is predicted to cost, all weights rounded to nearest, nats a token.

        The sum over linear weights that have a figure; None while one is not measured yet.
        """
        return planned_sum(self.plan, self.model.damages)
