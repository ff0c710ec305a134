"""Session -> what a sample tells of a model whose weights are not here, and the offer to draw one. Pure.

Nothing here was measured: it is drawn hollow, with a "~" and the interval in which the true figure lies.
"""

from collections.abc import Mapping
from html import escape

from studio.base.text import text
from studio.base.units import format_bytes
from studio.planning import weight_error
from studio.planning.plan import Plan
from studio.planning.sampled_survey import Interval
from studio.session.session import Session

Estimates = Mapping[str, Interval]
"""Layer -> its weight error in the plan's scheme, as far as a sample tells."""


def estimates(session: Session, measured: Mapping[str, float] | None) -> dict[str, Interval]:
    """Return the estimate of each layer in the plan's scheme that is sampled and not among the ``measured``."""
    return weight_error.estimates(session.plan, session.model.sampled, measured)


def is_offered(session: Session, measured: Mapping[str, float] | None) -> bool:
    """Return whether a sample would tell something: of a model that is not here, in the plan's schemes."""
    checkpoint, plan = session.checkpoint, session.plan
    if checkpoint is None or checkpoint.folder is not None or plan is None:
        return False
    told = {**(measured or {}), **estimates(session, measured)}
    schemes = ((a.layer.name, a.scheme) for a in plan.assignments if a.scheme is not None)
    return any(name not in told and not scheme.mode.needs_whole for name, scheme in schemes)


def offer(session: Session, language: str) -> str:
    """Return what the button says: what will be read, before it is."""
    whole = 0 if session.checkpoint is None else session.checkpoint.source_bytes
    read = format_bytes(session.model.sample_bytes)
    return text("map.estimate_button", language, read=read, all=format_bytes(whole))


def needs_whole(session: Session, language: str) -> str:
    """Return why a layer has no estimate: some modes have numbers that only a whole layer gives. Often nothing."""
    checkpoint, plan = session.checkpoint, session.plan
    if checkpoint is None or checkpoint.folder is not None or plan is None or not _modes(plan):
        return ""
    sentence = text("map.estimate_needs_whole", language, modes=", ".join(_modes(plan)))
    return f'<p class="hint">{escape(sentence)}</p>'


def _modes(plan: Plan) -> list[str]:
    modes = {a.scheme.mode for a in plan.assignments if a.scheme is not None}
    return sorted(mode.value for mode in modes if mode.needs_whole)
