"""What a session does that takes its time, and what it says meanwhile: the events a page or a terminal shows."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from studio.chat import Reply
from studio.evaluate import Evaluation
from studio.source import Step
from studio.units import format_bytes

Job = Literal["open", "survey", "sample", "compress", "chat", "export"]
"""What can be stopped, each by itself."""
JOBS: tuple[Job, ...] = ("open", "survey", "sample", "compress", "chat", "export")


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


def evaluation_events(steps: Generator[Evaluation, None, Evaluation]) -> Generator[Event, None, Evaluation]:
    """Yield where an evaluation stands, with its first figure, and return it; closing this closes it."""
    try:
        while True:
            step = next(steps)
            yield Event("evaluate", step.done / step.total, f"KLD {step.kld.mean:.3f}")
    except StopIteration as finished:
        result: Evaluation = finished.value
        return result
    finally:
        steps.close()


@dataclass(frozen=True)
class Answers:
    """Every column of the chat as far as it has come: the original's first, then the compressed model's."""

    replies: tuple[Reply, ...]
    weight_bytes: tuple[int | None, ...]
    """Memory the weights take; None for a model that could not be loaded."""
    is_slow: tuple[bool, ...]
    """Whether a column has no packed product on this machine for some of its weights."""
