"""Which texts the models of a session read, to be calibrated and measured. Knows nothing of what plans become."""

from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from studio.base.errors import ResourceError
from studio.base.progress import Progress
from studio.base.steps import as_it_is
from studio.calibration import self_generated
from studio.calibration.dataset import read_dataset
from studio.calibration.texts import GENERATED, Text, check_has_head, read_text
from studio.chat.columns import original_column
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import well_formed
from studio.compression.sequential import BUILTIN_TEXTS, WINDOW, calibration_tokens
from studio.evaluation.evaluate import text_windows
from studio.quantization.methods import WINDOWS
from studio.session.jobs import Jobs
from studio.session.model_jobs import own_words
from studio.session.planner import Planner

BYTES_A_TOKEN = 4
"""Of text, about: 350 kB are 341 stretches of 256 tokens."""


class Texts:
    """The texts that were chosen; None is the built-in ones."""

    def __init__(self, planner: Planner, workspace: Path) -> None:
        self._planner, self._workspace = planner, workspace
        self.calibration: Text | None = None
        """What a calibrated method reads."""
        self.evaluation: Text | None = None
        """What drift is measured on."""

    def calibrate_on(self, given: Path | str | None) -> None:
        """Let calibrated methods read a copy of a file, a data set of the Hub, what the model itself writes
        (``"generated"``), or None, the built-in texts.

        Raises TextError for what is no text, or too short for the model, HubError where the Hub does not answer; what
        was chosen before then stays.
        """
        self.calibration = GENERATED if given == GENERATED.name else self._copied(given, calibration_tokens)

    def evaluate_on(self, given: Path | str | None) -> None:
        """Measure drift on a copy of a file, a data set of the Hub, or None, the built-in texts.

        Raises as `calibrate_on` does.
        """
        self.evaluation = self._copied(given, text_windows)

    def _copied(self, given: Path | str | None, check: Callable[[Checkpoint, str], object]) -> Text | None:
        """Return a text of its own that lasts as long as the session. Raises TextError or HubError."""
        if given is None:
            return None
        if isinstance(given, Path):
            name, content = given.name, read_text(given)
        else:
            dataset = read_dataset(given)
            name, content = dataset.name, dataset.text
        model = self._planner.model
        if model.has_figures:
            check(model.chosen, content)
        # by its content: given again, it is the same text, and what was made with it is still current
        file = self._workspace / f"{sha256(content.encode()).hexdigest()[:32]}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(well_formed(content), encoding="utf-8")
        return Text(name, file)


def content_of(text: Text | None) -> str | None:
    """Return what a text says, None of the built-in ones."""
    return None if text is None or text.file is None else read_text(text.file)


def windows_about(text: Text | None) -> int:
    """Return about how many stretches a text has, without the model's tokenizer; of the built-in ones, 7."""
    if text is not None and text.file is None:
        return self_generated.WINDOWS
    files = BUILTIN_TEXTS if text is None or text.file is None else (text.file,)
    return int(sum(file.stat().st_size for file in files if file.is_file()) // (WINDOW * BYTES_A_TOKEN))


def calibration_windows(
    checkpoint: Checkpoint,
    text: Text | None,
    pool: Pool,
    jobs: Jobs,
    is_current: Callable[[], bool],
    count: int = WINDOWS,
) -> Generator[Progress, None, Tensor]:
    """Yield while the model writes, where it is to, and return what it is calibrated on, int64 [W, T].

    ``count``: how many windows of a text there are at most; of what the model writes there are always as many.
    Raises ResourceError for a model that writes its own text and does not fit in memory: it would be read from disk
    once for every token.
    """
    check_has_head(checkpoint)
    if text is None or text.file is not None:
        return calibration_tokens(checkpoint, content_of(text), count)
    before = self_generated.recall(checkpoint)
    if before is not None:
        return before
    yield Progress("load")
    column = original_column(checkpoint)
    try:
        with pool.borrow(column.key, column.need, column.load) as model:
            writing = model.run(own_words, checkpoint, self_generated.WINDOWS)
            windows = yield from jobs.in_turn("compress", writing, as_it_is, is_current)
    except ResourceError as error:
        if error.key != "memory":
            raise
        need, free = error.values["need"], error.values["free"]
        raise ResourceError("own_words_memory", need=need, free=free) from error
    self_generated.keep(checkpoint, windows)
    return windows
