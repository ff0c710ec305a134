"""What a session does that takes its time, and what it says meanwhile: the events a page or a terminal shows."""

from dataclasses import dataclass
from typing import Literal

from studio.chat import Reply, Speaker
from studio.decoder import Reason, Way
from studio.drift import Drift
from studio.parting import Parting
from studio.source import Step
from studio.units import format_bytes
from studio.verdict import Verdict

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
class Voice:
    """What a column says of the model that answers in it."""

    way: Way
    reason: Reason
    weight_bytes: int
    """Memory the weights take."""
    step_bytes: int
    """Of these, what one token reads."""
    is_slow: bool
    """Whether this machine has no packed product for some of its weights."""
    kv_bits: tuple[int, ...]
    context: int

    @classmethod
    def of(cls, speaker: Speaker) -> "Voice":
        """Return what there is to say of a loaded model."""
        known = speaker.decoder
        return cls(
            known.way, known.reason, known.weight_bytes, known.step_bytes, known.is_slow, known.kv_bits, known.context
        )


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
