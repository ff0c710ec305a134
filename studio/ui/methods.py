"""The methods of rounding as the plan's panel offers them: names, what each does, how long it takes. Pure."""

import torch

from studio.architecture import ratio_defining
from studio.rounding import METHODS
from studio.scheme import Method
from studio.session import Session
from studio.text import DEFAULT, text

CORES = 2
"""On which the costs were measured."""


def method_choices(language: str = DEFAULT, session: Session | None = None) -> list[tuple[str, str]]:
    """Return the methods, cheapest first, each with about how long it takes for the session's model."""
    choices = []
    for method in Method:
        name = text(f"method.{method}", language)
        if session is not None and session.checkpoint is not None:
            name += f" · {duration(expected_seconds(session, method), language)}"
        choices.append((name, method.value))
    return choices


def method_info(session: Session, language: str) -> str:
    """Return what the chosen method does, and which text it reads."""
    method = session.choice.method
    if session.choice.mode.bits >= 8:
        return text("method.only_below_8", language)
    words = [text(f"method.info_{method}", language)]
    if method.needs_inputs:
        file = session.calibration
        which = text("method.builtin_text", language) if file is None else file.name
        words.append(text("method.reads", language, text=which))
    return " ".join(words)


def expected_seconds(session: Session, method: Method) -> float:
    """Return about how long compressing takes on this machine's cores: what a weight cost where it was measured."""
    layers = ratio_defining(session.checkpoint.layers) if session.checkpoint is not None else []
    weights = sum(layer.numel for layer in layers)
    return weights * METHODS[method].nanoseconds * 1e-9 * CORES / torch.get_num_threads()


def duration(seconds: float, language: str) -> str:
    """Return a rough time: ``"~ 40 s"``, ``"~ 5 min"``, ``"~ 2 h"``."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return text(f"method.{unit}", language, count=round(seconds / size))
    return text("method.s", language, count=max(1, round(seconds)))
