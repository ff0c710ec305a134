"""Which targets hold a plan: as it is, as another plan that the target names, or not, with the exact bytes of each.

One table before anything is compressed or written. Knows no target by name, and no weights.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from studio.base.errors import SchemeError, UserError
from studio.checkpoint.checkpoint import Checkpoint
from studio.export.target import Target
from studio.export.targets import TARGETS
from studio.planning.choice import Choice
from studio.planning.mixes import NONE
from studio.planning.plan import Plan
from studio.planning.presets import preset_choice
from studio.quantization.scheme import parse_backup

NAMED = ("mix", "mode", "group_size")
"""Words of a choice that a refusal may name as what the plan would become."""
OWN = ("mode", "group_size", "backup", "mix", "budget", "target", "pins")
"""Words of the plan's choice that another one does not take over: they say schemes, and those are what does not go."""
Planned = Callable[[Choice], Plan]
"""What plans the same model by another choice. Raises SchemeError for one that cannot be."""


@dataclass(frozen=True)
class Held:
    """What a target makes of a plan."""

    target: Target
    plan: Plan | None
    """What it holds: the plan itself, of those that it might become the nearest in bytes, None where there is none."""
    reason: UserError | None
    """Why it does not hold the plan as it is."""
    nbytes: int | None
    """Of all weights as the target stores them, to the byte where ``plan`` is exact; None where it holds none."""
    cautions: tuple[UserError, ...] = ()
    """What some of its programs will not load of what it holds."""

    @property
    def is_lossless(self) -> bool:
        """Whether the numbers that were measured are those of the file."""
        return self.reason is None

    @property
    def becomes(self) -> Choice | None:
        """The choice by which the original has to be compressed for it; None where it holds the plan, or none."""
        return None if self.plan is None or self.is_lossless else self.plan.choice

    @property
    def bits_per_weight(self) -> float | None:
        """All bytes there, x 8 / weights."""
        return None if self.plan is None or self.nbytes is None else self.nbytes * 8 / self.plan.weights

    @property
    def arguments(self) -> list[str]:
        """What ``export MODEL`` is told to make what the plan becomes."""
        choice = self.becomes
        if choice is None:
            return []
        if choice.mix != NONE:
            return ["--to", f"{self.target.name}:{choice.mix}"]
        words = [*choice.arguments(repeated=False), *choice.arguments(repeated=True)]
        return ["--to", self.target.name, *words]


def held_by(target: Target, plan: Plan, checkpoint: Checkpoint, planned: Planned) -> Held:
    """Return what a target makes of a plan. ``planned`` plans the same model by another choice."""
    reason = target.refusal(plan, checkpoint)
    if reason is None:
        return Held(target, plan, None, target.size(plan), tuple(target.cautions(plan)))
    found: list[Held] = []
    if isinstance(reason, SchemeError):  # else it is the model that does not go
        for choice in _instead(target, plan.choice, reason, checkpoint):
            with suppress(SchemeError):  # a group that divides no row of this model
                other = planned(choice)
                still = target.refusal(other, checkpoint)
                if still is None:
                    found.append(Held(target, other, reason, target.size(other), tuple(target.cautions(other))))
                elif not isinstance(still, SchemeError):
                    return Held(target, None, still, None)
    return min(found, key=lambda each: _apart(each, plan), default=Held(target, None, reason, None))


def _apart(held: Held, plan: Plan) -> int:
    return abs((held.nbytes or 0) - plan.compressed_bytes)


def every_target(plan: Plan, checkpoint: Checkpoint, planned: Planned) -> list[Held]:
    """Return what each target makes of a plan, in the order of their menu."""
    return [held_by(target, plan, checkpoint, planned) for target in TARGETS.values()]


def _instead(target: Target, choice: Choice, reason: SchemeError, checkpoint: Checkpoint) -> Iterator[Choice]:
    """Yield what a plan might become: what the refusal names, for all weights or the sensitive ones; presets."""
    choice = Choice.of(**choice.words() | dict(target.needs))
    rest = {name: word for name, word in choice.words().items() if name not in OWN}
    if choice.budget is not None:  # what is ranked for a budget is ranked for nothing else
        rest.pop("sensitivity")
    named: Mapping[str, Any] = {name: reason.values[name] for name in NAMED if name in reason.values}
    if choice.mode.is_mixable and "mode" in named:
        with suppress(SchemeError):  # what no backup can be
            yield replace(choice, budget=None, mix=NONE, backup=parse_backup(named["mode"]))
    with suppress(SchemeError):
        yield Choice.of(**rest | dict(target.usual if "mix" not in named else {}) | _said(named))
    for words in (each for each in target.presets.values() if "budget" not in each):  # which takes a solver
        yield preset_choice(words, checkpoint.layers, checkpoint.can_chat)


def _said(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return words as a choice takes them: a whole channel of an 8-bit mode is no group size that anybody chooses."""
    if named.get("mix"):
        return {"mix": named["mix"], "ratio": 1.0}
    return {name: word for name, word in named.items() if name != "group_size" or int(word) > 0}
