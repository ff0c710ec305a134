"""What a model that is lent does beside answering, in the process where it lies. Knows nothing of who asked."""

from collections.abc import Generator

from torch import Tensor

from studio.calibration import self_generated
from studio.chat.answer import Speaker
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.drift import Drift, drift
from studio.evaluation.evaluate import predictor


def drift_of(speaker: Speaker, checkpoint: Checkpoint, ids: Tensor, text: str) -> Generator[Drift, None, Drift]:
    """Yield and return how far ``speaker`` has drifted from the original, as :func:`drift` does."""
    return drift(checkpoint, predictor(speaker.decoder), ids, text)


def own_words(speaker: Speaker, checkpoint: Checkpoint, count: int) -> Generator[self_generated.Written, None, Tensor]:
    """Yield while ``speaker``, the original, writes a text to be calibrated on; return its windows, int64 [W, T]."""
    return self_generated.write(checkpoint, speaker.decoder, speaker.tokenizer, count)
