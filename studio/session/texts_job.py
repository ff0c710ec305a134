"""Which texts the models of a session read, to be calibrated and measured. Knows nothing of what plans become."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from studio.base.errors import ResourceError
from studio.base.progress import Event
from studio.base.workspace import own_folder, sessions_folder
from studio.calibration import self_generated
from studio.calibration.dataset import read_dataset
from studio.calibration.texts import GENERATED, Text, check_has_head, read_text
from studio.chat.columns import original_column
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import well_formed
from studio.compression.sequential import calibration_tokens
from studio.evaluation.evaluate import text_windows
from studio.session.model_jobs import own_words
from studio.session.survey_job import Measuring

POOL = Pool()


@dataclass
class Reading(Measuring):
    """The texts that were chosen; None is the built-in ones."""

    workspace: Path = field(default_factory=lambda: own_folder(sessions_folder()))
    calibration: Text | None = None
    """What a calibrated method reads."""
    evaluation: Text | None = None
    """What drift is measured on."""

    def calibrate_on(self, given: Path | str | None) -> None:
        """Let calibrated methods read a copy of a file, a data set of the Hub, what the model itself writes
        (``"generated"``), or None, the built-in texts.

        Raises TextError for what is no text, or too short for the model, HubError where the Hub does not answer; what
        was chosen before then stays.
        """
        self.calibration = GENERATED if given == GENERATED.name else self._taken(given, calibration_tokens)

    def evaluate_on(self, given: Path | str | None) -> None:
        """Measure drift on a copy of a file, a data set of the Hub, or None, the built-in texts.

        Raises as `calibrate_on` does.
        """
        self.evaluation = self._taken(given, text_windows)

    def _calibration_tokens(self, checkpoint: Checkpoint, text: Text | None) -> Generator[Event, None, Tensor]:
        """Yield while the model writes, and return what it is calibrated on, int64 [W, T].

        Raises ResourceError for a model that writes its own text and does not fit in memory: it would be read from disk
        once for every token.
        """
        check_has_head(checkpoint)
        if text is None or text.file is not None:
            return calibration_tokens(checkpoint, None if text is None or text.file is None else read_text(text.file))
        found = self_generated.recall(checkpoint)
        if found is not None:
            return found
        yield Event("load")
        column = original_column(checkpoint)
        try:
            with POOL.borrow(column.key, column.need, column.load) as model:
                writing = model.run(own_words, checkpoint, self_generated.WINDOWS)
                found = yield from self._relay("compress", writing, _writing, checkpoint)
        except ResourceError as error:
            if error.key != "memory":
                raise
            need, free = error.values["need"], error.values["free"]
            raise ResourceError("own_words_memory", need=need, free=free) from error
        self_generated.keep(checkpoint, found)
        return found

    def _taken(self, given: Path | str | None, check: Callable[[Checkpoint, str], object]) -> Text | None:
        """Return a text of its own that lasts as long as the session. Raises TextError or HubError."""
        if given is None:
            return None
        if isinstance(given, Path):
            name, content = given.name, read_text(given)
        else:
            found = read_dataset(given)
            name, content = found.name, found.text
        checkpoint = self.checkpoint
        if checkpoint is not None and checkpoint.folder is not None and checkpoint.can_chat:
            check(checkpoint, content)
        # by its content: given again, it is the same text, and what was made with it is still current
        file = self.workspace / f"{sha256(content.encode()).hexdigest()[:32]}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(well_formed(content), encoding="utf-8")
        return Text(name, file)


def _writing(step: self_generated.Written) -> Event:
    return Event("generate", step.done / step.total, f"{step.done:,} / {step.total:,}")
