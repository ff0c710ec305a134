"""What a session does that takes its time, and what it says meanwhile: the events a page or a terminal shows."""

from dataclasses import dataclass
from typing import Literal

from studio.base.units import format_bytes
from studio.chat.answer import Reply
from studio.chat.answer import Voice as Voice
from studio.chat.divergence import Parting
from studio.chat.judge import Verdict
from studio.checkpoint.open_model import Step
from studio.evaluation.drift import Drift

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
    is_shared: bool = False
    """Whether it takes turns with another visitor's."""


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
    voices: tuple[Voice | None, ...]
    """None for a model that could not be loaded."""
    parting: Parting | None = None
    """Where the two part, as soon as they do."""
    is_compared: bool = False
    """Whether both were asked the same: the message and all that was said before it."""
    is_alone: bool = False
    """Whether the compressed model answers alone, for the original does not fit beside it."""
    verdict: Verdict | None = None
    """What the original, run afterwards, says of that answer."""

    @property
    def weight_bytes(self) -> tuple[int | None, ...]:
        return tuple(None if voice is None else voice.weight_bytes for voice in self.voices)

    @property
    def is_slow(self) -> tuple[bool, ...]:
        return tuple(voice is not None and voice.is_slow for voice in self.voices)
