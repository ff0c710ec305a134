"""Where fetching a model and measuring drift stand, as events that a page or a terminal shows."""

from typing import TYPE_CHECKING

from studio.base.progress import Event
from studio.base.units import format_bytes
from studio.checkpoint.open_model import Step

if TYPE_CHECKING:  # brings torch, which opening a model can do without
    from studio.evaluation.drift import Drift


def source_event(step: Step) -> Event:
    """Return where fetching a model stands."""
    detail = f"{format_bytes(step.done)} / {format_bytes(step.total)}" if step.total else ""
    return Event(step.name, step.done / step.total if step.total else None, detail)


def drift_event(drift: "Drift") -> Event:
    """Return where an evaluation stands, with its figure once there is one; the floor comes last."""
    if drift.found is None:
        return Event("evaluate", 0.0)
    stage = "evaluate" if drift.fraction < 1 or drift.floor is None else "floor"
    return Event(stage, drift.fraction, f"KLD {drift.found.kld.mean:.4f}")
