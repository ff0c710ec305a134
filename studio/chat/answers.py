"""Every column of a chat as far as it has come. Knows nothing of who shows it."""

from dataclasses import dataclass

from studio.chat.answer import ModelInfo, Reply
from studio.chat.divergence import Divergence
from studio.chat.judge import ReferenceScore


@dataclass(frozen=True)
class Answers:
    """Every column of the chat as far as it has come: the original's first, then the compressed model's."""

    replies: tuple[Reply, ...]
    infos: tuple[ModelInfo | None, ...]
    """None for a model that could not be loaded."""
    divergence: Divergence | None = None
    """Where the two part, as soon as they do."""
    is_compared: bool = False
    """Whether both were asked the same: the message and all that was said before it."""
    is_compressed_only: bool = False
    """Whether the compressed model answers alone, for the original does not fit beside it."""
    reference_score: ReferenceScore | None = None
    """What the original, run afterwards, says of that answer."""

    @property
    def weight_bytes(self) -> tuple[int | None, ...]:
        return tuple(None if info is None else info.weight_bytes for info in self.infos)

    @property
    def is_slow(self) -> tuple[bool, ...]:
        return tuple(info is not None and info.is_slow for info in self.infos)
