"""What a visitor decides by: where the model is to run, in which program, by which preset; and what follows from it.

Knows the plan, what is known of its loss, and nothing of pages.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from studio.base.errors import SchemeError
from studio.chat.roofline import figures_of
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.figures import Evaluation
from studio.evaluation.first_choice import differing_share
from studio.export import runners
from studio.export.target import Target
from studio.export.targets import DEFAULT as DEFAULT_TARGET
from studio.export.targets import TARGETS
from studio.planning import hosts
from studio.planning.bytes_read import read_per_token
from studio.planning.choice import Choice
from studio.planning.hosts import Fit
from studio.planning.layer_figure import planned_sum
from studio.planning.plan import Plan, make_plan
from studio.planning.presets import CUSTOM, PRESETS, preset_choice
from studio.planning.settled import cache_bytes, longest_context, settled
from studio.quantization.methods import Method
from studio.session.planner import Planner
from studio.session.reference import points_of
from studio.session.runs import Runs

Source = Literal["measured", "shipped", "predicted"]


@dataclass(frozen=True)
class Loss:
    """How far a plan's model is from the original, and where that is known from."""

    kld: float
    """Nats a token."""
    standard_error: float | None
    differs: float
    """Share of tokens whose likeliest next one is another."""
    source: Source
    is_bound: bool = False
    """Whether it is predicted of rounding to nearest, while the plan's method loses less."""


@dataclass(frozen=True)
class Option:
    """A preset, as it would be for the model."""

    preset: str
    plan: Plan
    nbytes: int
    """Of its weights in the program's file."""
    loss: Loss | None


class Decision:
    """Where, in what, and how small."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.turn = threading.Lock()
        """Held while a decision is taken and what follows from it is found, so that the next one comes after it."""
        self.runs = Runs()
        self.host = hosts.HOSTS[hosts.DEFAULT]
        self.context = hosts.DEFAULT_CONTEXT
        """Tokens, before what the model takes at most is heeded."""
        self.program = runners.PROGRAMS[runners.DEFAULT]
        self.picked = CUSTOM
        """The preset that was asked for last; a session begins with its own choice."""
        self.key = ""
        """Under which the runs are kept for this visitor's browser."""
        self.addressed: frozenset[str] = frozenset()
        """What the page's address said, by name: it counts for more than what the browser remembers."""
        self._kept: tuple[tuple[object, ...], dict[str, Plan]] | None = None
        self.asked: Choice | None = None
        """What the model that is opened next is to begin with: the choice of an address."""

    @property
    def target(self) -> Target:
        """The form that the program loads; the studio's own where there is none for it."""
        return self.program.form or TARGETS[DEFAULT_TARGET]

    @property
    def preset(self) -> str:
        """The preset on show: the one that was asked for, as long as the plan is still its."""
        checkpoint = self._planner.model.checkpoint
        if self.picked == CUSTOM or checkpoint is None:
            return self.picked
        return self.picked if self._preset_plans()[self.picked].choice == self._planner.choice else CUSTOM

    def choice_of(self, preset: str, checkpoint: Checkpoint) -> Choice:
        """Return a preset's choice for a model, of what the program's target holds."""
        return preset_choice(self.target.presets[preset], checkpoint.layers, checkpoint.can_chat)

    def pick(self, preset: str) -> None:
        """Plan by a preset; ``"custom"`` leaves the plan as it is."""
        self.picked = preset if preset in self.target.presets else CUSTOM
        self._follow()

    def run_in(self, program: str, is_made: bool = False) -> None:
        """Go on with another program: the same preset of what it loads, or a plan of one's own with what it needs;
        not where ``is_made`` says that a copy was made of it, which a look at another program would make stale."""
        before = self.preset
        self.program = runners.known().get(program, self.program)
        if before != CUSTOM:
            self._follow()
        elif self._planner.plan is not None and self.target.needs and not is_made:
            with suppress(SchemeError):  # a budget that is no longer met
                self._planner.choose(Choice.of(**self._planner.choice.words() | dict(self.target.needs)))

    def _follow(self) -> None:
        checkpoint = self._planner.model.checkpoint
        if checkpoint is None or self.picked == CUSTOM:
            return
        choice = self.choice_of(self.picked, checkpoint)
        if choice != self._planner.choice:
            self._planner.choose(choice)

    def begin(self, checkpoint: Checkpoint) -> Choice | None:
        """Return the choice that a model just opened begins with, None where it is the one before."""
        asked, self.asked = self.asked, None
        if self.picked != CUSTOM:
            return self.choice_of(self.picked, checkpoint)
        if asked is not None:
            with suppress(SchemeError):  # an address may say what this model cannot have
                make_plan(checkpoint.layers, settled(asked, checkpoint))
                return asked
        return None

    # what follows

    @property
    def longest_context(self) -> int | None:
        """Tokens that the model takes at most, None where its config is not here."""
        checkpoint = self._planner.model.checkpoint
        return None if checkpoint is None else longest_context(checkpoint)

    @property
    def tokens(self) -> int:
        """The context asked for, or all that the model takes."""
        return min(self.context, self.longest_context or self.context)

    def nbytes(self, plan: Plan) -> int:
        """Return the bytes of the weights in the program's file, where it holds the plan, else in the studio's."""
        checkpoint = self._planner.model.checkpoint
        if checkpoint is None or self.target.refusal(plan, checkpoint) is not None:
            return plan.compressed_bytes
        return self.target.size(plan)

    def fit(self, plan: Plan | None = None) -> Fit | None:
        """Return what the plan takes on the host; None without a plan."""
        plan = self._planner.plan if plan is None else plan
        checkpoint = self._planner.model.checkpoint
        if plan is None or checkpoint is None:
            return None
        figures = figures_of(checkpoint)
        cache = cache_bytes(checkpoint, self.tokens) or 0
        experts = None if figures is None else figures.called_experts
        return Fit(self.host, self.nbytes(plan), cache, read_per_token(plan, experts))

    def loss(self, plan: Plan | None = None) -> Loss | None:
        """Return what is known of a plan's loss, the best that there is: measured, shipped, predicted.

        By default of the plan on show; None while nothing is known.
        """
        plan, checkpoint = self._planner.plan if plan is None else plan, self._planner.model.checkpoint
        if plan is None or checkpoint is None:
            return None
        for run in reversed(self.runs.lines):
            if run.choice == plan.choice and run.model == checkpoint.name and run.evaluation is not None:
                return measured(run.evaluation)
        known = self.shipped(plan.choice)
        if known is not None:
            return known
        kld = planned_sum(plan, self._planner.model.damages)
        if kld is None:
            return None
        is_bound = plan.choice.method is not Method.NEAREST
        return Loss(kld, None, differing_share(kld), "predicted", is_bound)

    def plans(self) -> list[Plan]:
        """Return what every preset would be for the model; none before one is open."""
        return list(self._preset_plans().values())

    def _preset_plans(self) -> dict[str, Plan]:
        """Return every preset's plan; the same ones as long as nothing more is known of the model."""
        model = self._planner.model
        if model.checkpoint is None:
            return {}
        known = (model.checkpoint, self.target, model.figures, model.scores, model.sampled)
        if self._kept is None or any(a is not b for a, b in zip(self._kept[0], known, strict=True)):
            plans = {name: model.plan(self.choice_of(name, model.checkpoint)) for name in PRESETS}
            self._kept = known, plans
        return self._kept[1]

    def options(self) -> list["Option"]:
        """Return every preset with its plan and what is known of its loss; none before a model is open."""
        plans = self._preset_plans().items()
        return [Option(name, plan, self.nbytes(plan), self.loss(plan)) for name, plan in plans]

    def shipped(self, choice: Choice) -> Loss | None:
        """Return what a choice was found to lose of this model before it was shipped."""
        for point in points_of(self._planner.model.checkpoint):
            if point.choice == choice:
                return Loss(point.kld, point.standard_error, 1 - point.same_top, "shipped")
        return None


def measured(found: Evaluation) -> Loss:
    """Return an evaluation as a loss."""
    return Loss(found.kld.mean, found.kld.standard_error, 1 - found.same_top.mean, "measured")
