"""Every column of a chat as far as it has come. Knows nothing of who shows it."""

from dataclasses import dataclass

from studio.chat.answer import Reply, Voice
from studio.chat.divergence import Parting
from studio.chat.judge import Verdict


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
