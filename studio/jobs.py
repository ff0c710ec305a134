"""What a session does that takes its time, and what it says meanwhile: the events a page or a terminal shows."""

from dataclasses import dataclass
from typing import Literal

from studio.chat import Reply
from studio.drift import Drift
from studio.source import Step
from studio.units import format_bytes

Job = Literal["open", "survey", "sample", "compress", "chat", "drift", "export"]
"""What can be stopped, each by itself."""
JOBS: tuple[Job, ...] = ("open", "survey", "sample", "compress", "chat", "drift", "export")


@dataclass(frozen=True)
class Event:
    """Where a job stands: ``Event("compress", 0.42, "model.layers.3.mlp.up_proj.weight")``."""

    stage: str
    """A key of the catalogue's ``stage`` table."""
    fraction: float | None = None
    """0 to 1, None where nothing can be counted."""
    detail: str = ""


def source_event(step: Step) -> Event:
    """Return where fetching a model stands."""
    detail = f"{format_bytes(step.done)} / {format_bytes(step.total)}" if step.total else ""
    return Event(step.name, step.done / step.total if step.total else None, detail)


def drift_event(drift: Drift) -> Event:
    """Return where an evaluation stands, with its figure once there is one; the floor comes last."""
    if drift.found is None:
        return Event("evaluate", 0.0)
    stage = "evaluate" if drift.fraction < 1 or drift.floor is None else "floor"
    return Event(stage, drift.fraction, f"KLD {drift.found.kld.mean:.4f}")


@dataclass(frozen=True)
class Answers:
    """Every column of the chat as far as it has come: the original's first, then the compressed model's."""

    replies: tuple[Reply, ...]
    weight_bytes: tuple[int | None, ...]
    """Memory the weights take; None for a model that could not be loaded."""
    is_slow: tuple[bool, ...]
    """Whether a column has no packed product on this machine for some of its weights."""
