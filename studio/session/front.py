"""Size against loss, point by point: plans that a budget gives, llama.cpp's mixes, and files that others made.

What is predicted says so; what is measured was carried out and compared with the original on the same windows of text,
so that any two of it can be compared in pairs. Knows no pages and no terminals; brings torch.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from studio.base.errors import SchemeError
from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.evaluation.drift import Drift
from studio.evaluation.figures import Evaluation, WindowMean, paired
from studio.export.targets import TARGETS
from studio.planning.allotment import bounds
from studio.planning.choice import Choice
from studio.planning.mixes import MIXES
from studio.planning.palettes import DEFAULT as STUDIO
from studio.planning.palettes import PALETTES
from studio.planning.plan import Plan
from studio.planning.predicted_loss import predicted_loss
from studio.quantization.methods import BEST, Method
from studio.session import referee
from studio.session.session import Session
from studio.session.texts import windows_about
from studio.session.whole_jobs import fetched

Kind = Literal["plan", "mix", "other"]
KINDS: tuple[Kind, ...] = ("plan", "mix", "other")
GGUF = "gguf"
"""The target that mixes are of."""
POINTS = 12
FEWEST, MOST = 1, 40
"""Points that can be asked for."""


@dataclass(frozen=True)
class FrontPoint:
    """One model on the front."""

    kind: Kind
    name: str
    """``"4.57bpw"``, ``"Q4_K_M"``, or the file's."""
    nbytes: int
    """Of its weights in the target, or in the file."""
    bits_per_weight: float
    command: tuple[str, ...]
    """What the terminal is told to have it, or to measure it."""
    predicted: float | None = None
    """Nats a token, by the method that it is carried out by; None of a file of others."""
    choice: Choice | None = None
    """None of a file of others."""
    evaluation: Evaluation | None = None
    """None of what is predicted alone."""

    @property
    def kld(self) -> float:
        """Nats a token, measured where it was, else predicted."""
        if self.evaluation is not None:
            return self.evaluation.kld.mean
        return self.predicted or 0.0


@dataclass(frozen=True)
class Pair:
    """Two points on the same windows of text."""

    better: FrontPoint
    worse: FrontPoint
    gain: WindowMean
    """How much less the first loses, nats a token."""
    windows: int


@dataclass(frozen=True)
class Front:
    """All points of a model, the smallest first."""

    model: str
    weights: int
    original_bytes: int
    points: tuple[FrontPoint, ...]
    floor: Evaluation | None = None
    """What running the original at bf16 instead of fp32 costs; None where it was not asked for."""

    def pairs(self) -> list[Pair]:
        """Return those that were measured in pairs, each with the next larger one."""
        found = []
        for one, other in pairwise(point for point in self.points if point.evaluation is not None):
            pair = compared(one, other)
            if pair is not None:
                found.append(pair)
        return found


@dataclass(frozen=True)
class Asked:
    """What a front is to hold."""

    target: str = GGUF
    """Whose schemes the plans are of."""
    method: Method = BEST
    """By which they are rounded."""
    points: int = POINTS
    """How many plans."""
    measure: int = 0
    """How many of them are carried out."""
    others: tuple[str, ...] = ()
    """Files and folders that others made, or the studio before."""
    is_whole: bool = False
    """Whether all windows of the texts are read, and the floor is measured; by default a few windows."""


def compared(one: FrontPoint, other: FrontPoint) -> Pair | None:
    """Return which of two loses less, by how much on the windows that both read; None where one was not measured."""
    if one.evaluation is None or other.evaluation is None:
        return None
    read = one.evaluation.kld_of_windows, other.evaluation.kld_of_windows
    gain, windows = paired(*read), min(map(len, read))
    if gain is None:
        return None
    if gain.mean < 0:
        return Pair(other, one, replace(gain, mean=-gain.mean), windows)
    return Pair(one, other, gain, windows)


def front(session: Session, name: str, asked: Asked) -> Generator[Progress, None, Front]:
    """Yield where it stands, and return the front of the model called ``name``.

    Files of others are looked at first: one of another model is refused before anything is measured. Raises UserError.
    """
    original = yield from fetched(session, name)
    others = []
    for given in asked.others:
        others.append((yield from referee.opened_for(original, given, True, session.login)))
    largest = session.planner.choose(_budgeted(asked, f"{bounds(original.layers, PALETTES[asked.target])[1]}B"))
    refused = TARGETS[asked.target].refusal(largest, original)
    if refused is not None:
        raise refused
    mixes = _mix_plans(session, asked)
    session.measurements.predicted = lambda: mixes
    yield from session.measurements.rank()
    plans = _plans(session, asked)
    points = [_point("plan", plan, session) for plan in plans] + [_point("mix", plan, session) for plan in mixes]
    found = [point for point in points if point is not None]
    floor = None
    for number, place in enumerate(spread(len(plans), asked.measure)):
        plan, which = plans[place], f"{number + 1}/{asked.measure}"
        drift = yield from _carried_out(session, plan, which, asked, with_floor=asked.is_whole and not number)
        found = [replace(p, evaluation=drift.evaluation) if p.choice == plan.choice else p for p in found]
        floor = drift.floor or floor
    for other in others:
        judged = yield from session.judge_opened(other, is_short=not asked.is_whole)
        command = ("evaluate", other.given, "--against", name)
        bits = 8 * other.nbytes / original.weights
        found.append(FrontPoint("other", other.title, other.nbytes, bits, command, evaluation=judged.evaluation))
    found.sort(key=lambda point: (point.nbytes, point.kld))
    return Front(name, original.weights, 2 * original.weights, tuple(found), floor)


def spread(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` of ``count`` places, far from each other, all of them where there are no more."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(place * (count - 1) / (wanted - 1)) for place in range(wanted)]


def _budgeted(asked: Asked, budget: str) -> Choice:
    return Choice.of(budget=budget, target=asked.target, method=str(asked.method))


def _mix_plans(session: Session, asked: Asked) -> list[Plan]:
    """Return llama.cpp's mixes by the same method, as far as a GGUF file holds this model."""
    plans = [session.model.plan(Choice.of(mix=mix, method=str(asked.method))) for mix in MIXES]
    return [plan for plan in plans if TARGETS[GGUF].refusal(plan, session.model.chosen) is None]


def _plans(session: Session, asked: Asked) -> list[Plan]:
    """Return the plans of sizes from the smallest to that of every weight in its largest scheme, each size once."""
    layers, weights = session.model.chosen.layers, session.model.chosen.weights
    low, high = bounds(layers, PALETTES[asked.target])
    found: dict[int, Plan] = {}
    for place in range(asked.points):
        share = place / max(1, asked.points - 1)
        bits = -(-800 * low * (high / low) ** share // weights) / 100  # up to a hundredth: words that can be typed
        try:
            plan = session.model.plan(_budgeted(asked, f"{bits:.2f}bpw"))
        except SchemeError:  # a model so small that a hundredth of a bit is beyond its largest
            continue
        found.setdefault(TARGETS[asked.target].size(plan), plan)
    return list(found.values())


def _point(kind: Kind, plan: Plan, session: Session) -> FrontPoint | None:
    """Return a plan with what it is predicted to lose; None where a layer's damage cannot be had."""
    kld = predicted_loss(plan, session.model.damages, windows_about(session.texts.calibration))
    if kld is None:
        return None
    choice = plan.choice
    nbytes = TARGETS[GGUF if kind == "mix" else choice.target].size(plan)
    name = choice.mix.upper() if kind == "mix" else str(choice.budget)
    command = _command(kind, session.model.chosen.name, choice, name)
    return FrontPoint(kind, name, nbytes, 8 * nbytes / plan.weights, command, kld, choice)


def _command(kind: Kind, model: str, choice: Choice, name: str) -> tuple[str, ...]:
    """Return what the terminal is told to make it: nothing that a budget or a mix decides by itself."""
    rest = ("--method", str(choice.method), "--out", "OUT")
    if kind == "mix":
        return ("export", model, "--to", f"{GGUF}:{name}", *rest)
    if choice.target == STUDIO:
        return ("compress", model, "--budget", name, *rest)
    return ("export", model, "--to", choice.target, "--budget", name, *rest)


def _carried_out(
    session: Session, plan: Plan, which: str, asked: Asked, with_floor: bool
) -> Generator[Progress, None, Drift]:
    """Compress by a plan, and compare with the original."""
    session.planner.choose(plan.choice)
    yield from relayed(session.compress(), lambda step: replace(step, detail=f"{which} {step.detail}".strip()))
    steps = session.copy.measure_drift(
        session.model.chosen, session.texts.evaluation, with_floor, is_short=not asked.is_whole
    )
    return (yield from steps)
