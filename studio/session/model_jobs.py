"""What a model that is lent does beside answering, in the process where it lies. Knows nothing of who asked."""

from collections.abc import Generator

from torch import Tensor

from studio.base.progress import Progress
from studio.calibration import self_generated
from studio.chat.answer import LoadedModel
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.drift import Drift, drift
from studio.evaluation.evaluate import predictor


def drift_of(
    loaded: LoadedModel, checkpoint: Checkpoint, ids: Tensor, text: str, with_floor: bool, is_short: bool
) -> Generator[Drift, None, Drift]:
    """Yield and return how far ``loaded`` has drifted from the original, as :func:`drift` does."""
    return drift(checkpoint, predictor(loaded.decoder), ids, text, with_floor, is_short)


def own_words(loaded: LoadedModel, checkpoint: Checkpoint, count: int) -> Generator[Progress, None, Tensor]:
    """Yield while ``loaded``, the original, writes a text to be calibrated on; return its windows, int64 [W, T]."""
    return self_generated.write(checkpoint, loaded.decoder, loaded.tokenizer, count)
