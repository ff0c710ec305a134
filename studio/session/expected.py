"""About how long work will take on this machine: what a weight cost where it was measured, and how fast it went here.

Knows no pages. A machine that others use too is slower than it was; the last time that the same work took is heeded.
"""

import threading
from dataclasses import dataclass

import torch

from studio.checkpoint.layers import ratio_defining
from studio.evaluation.drift import SHORT_WINDOWS
from studio.evaluation.evaluate import WINDOW
from studio.quantization.methods import Method
from studio.session.samples import LONGEST
from studio.session.session import Session
from studio.session.texts import windows_about

CORES = 2
"""On which the costs were measured."""
STEPS = ("compress", "samples", "drift")
"""What making a plan is made of, in this order."""
RANK_NANOSECONDS = 45
"""To predict the damage of one weight."""
TOKEN_NANOSECONDS = 0.16
"""For one weight to meet one token of an answer, both models together."""
DRIFT_NANOSECONDS = 0.03
"""For one weight to meet one token of a text that is read, both models together."""
WHOLE_WINDOWS = 40
"""Windows that a whole measurement reads, the questions and its floor counted as such."""
OVERHEAD = 2.0
"""Seconds of each step: processes that begin, files that are opened."""
WHOLE = "whole drift"
"""What a whole measurement is noted as."""
_LOCK = threading.Lock()
_SLOWER: dict[str, float] = {}
"""How much longer each step took than expected, the last time; compressing by each method, by :func:`noted_as`."""


@dataclass(frozen=True)
class Expected:
    """Seconds of each step."""

    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def remaining(self, step: str, fraction: float, elapsed: float) -> float:
        """Return the seconds left in ``step``, ``fraction`` of which took ``elapsed`` seconds, and after it."""
        whole = self.seconds[step] if fraction < 0.1 else elapsed / fraction
        later = STEPS[STEPS.index(step) + 1 :]
        return max(0.0, whole - elapsed) + sum(self.seconds[name] for name in later)


def compress_seconds(session: Session, method: Method) -> float:
    """Return about how long rounding by ``method`` takes on this machine's cores, by the text that it will read."""
    nanoseconds = method.rounding.nanoseconds
    if method.rounding.is_distilled:  # what it does before takes no longer with more text, or hardly
        share = min(1.0, windows_about(session.texts.calibration) / method.rounding.windows)
        before = Method.TWO_SIDED.rounding.nanoseconds
        nanoseconds = before + share * (nanoseconds - before)
    return _scaled(_weights(session) * nanoseconds * 1e-9)


def expected(session: Session, prompts: int) -> Expected:
    """Return about how long making the plan on show takes: compressing, answering, measuring."""
    plan, checkpoint = session.plan, session.checkpoint
    if plan is None or checkpoint is None:
        return Expected(dict.fromkeys(STEPS, 0.0))
    method = _method(session)
    rank = 0.0 if plan.is_exact else _scaled(_weights(session) * RANK_NANOSECONDS * 1e-9)
    found = {"compress": OVERHEAD + compress_seconds(session, method) + rank, "samples": 0.0, "drift": 0.0}
    if checkpoint.can_chat:
        tokens = prompts * LONGEST
        found["samples"] = OVERHEAD + _scaled(checkpoint.weights * tokens * TOKEN_NANOSECONDS * 1e-9)
        found["drift"] = _scaled(checkpoint.weights * SHORT_WINDOWS * WINDOW * DRIFT_NANOSECONDS * 1e-9)
    with _LOCK:
        slower = {step: _SLOWER.get(noted_as(step, session), 1.0) for step in found}
    return Expected({step: seconds * slower[step] for step, seconds in found.items()})


def noted_as(step: str, session: Session) -> str:
    """Return what the time of a step is noted under: compressing by one method says nothing of another's."""
    return f"{step} {_method(session)}" if step == "compress" else step


def whole_drift(session: Session) -> float:
    """Return about how many seconds measuring the whole loss takes on the built-in texts, 0 without a model."""
    if session.checkpoint is None:
        return 0.0
    seconds = OVERHEAD + _scaled(session.checkpoint.weights * WHOLE_WINDOWS * WINDOW * DRIFT_NANOSECONDS * 1e-9)
    with _LOCK:
        return seconds * _SLOWER.get(WHOLE, 1.0)


def took(step: str, seconds: float, was_expected: float) -> None:
    """Note how long a step took, so that the next visitor is told better."""
    if was_expected > 0:
        with _LOCK:
            _SLOWER[step] = min(20.0, max(0.2, _SLOWER.get(step, 1.0) * seconds / was_expected))


def _method(session: Session) -> Method:
    return session.choice.method if session.choice.mode.bits < 8 else Method.NEAREST


def _weights(session: Session) -> int:
    return sum(layer.numel for layer in ratio_defining(session.checkpoint.layers)) if session.checkpoint else 0


def _scaled(seconds: float) -> float:
    return seconds * CORES / torch.get_num_threads()
