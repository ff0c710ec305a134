"""The studio's public functions, as ``import studio`` has them: each takes names and returns what the stages return.

A model is named as in the terminal: ``"builtin"``, an id of the Hub, a folder with safetensors, or a .gguf file. What
takes its time calls ``progress`` with each :class:`Progress`, and ends where that raises. What goes wrong is a
:class:`UserError`: one sentence. Knows no pages and no terminals; torch is imported by what computes.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

from studio.base.errors import ModelError
from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.base.typed_paths import typed_path
from studio.checkpoint.file_names import PACKED
from studio.checkpoint.recipe import is_compressed
from studio.planning.choice import Choice
from studio.planning.plan import Plan
from studio.planning.survey_file import Survey
from studio.session.estimate import estimate as estimated
from studio.session.estimate import taken

if TYPE_CHECKING:  # what brings torch
    from studio.chat.columns import Column
    from studio.checkpoint.checkpoint import Checkpoint
    from studio.compression.compress import Compressed
    from studio.evaluation.figures import Evaluation
    from studio.session.chat_model import ChatModel
    from studio.session.session import Session

Result = TypeVar("Result")
Follow = Callable[[Progress], object]


class Choices(TypedDict, total=False):
    """What a plan can be asked for by name, as in the terminal; :class:`Choice` says what each means."""

    mode: str
    """``"int4_asym"`` where nothing is said."""
    group_size: int
    """64 where it fits the model and nothing is said; one that is said has to fit."""
    ratio: float
    backup: str
    group_size_fallback: str
    all_layers: bool
    pins: Sequence[str]
    """``"PATTERN=SCHEME"``, or ``"PATTERN=none"`` for 16 bits."""
    method: str
    sensitivity: str


def estimate(model: str, *, progress: Follow | None = None, **choice: Unpack[Choices]) -> Plan:
    """Return what a model would become: a scheme for every tensor, with the exact bytes.

    From headers alone where the model is on the Hub; its sensitivities are found out if a ratio asks for them and the
    files are here, else ``is_exact`` is False. Raises ModelError, HubError, CheckpointError or SchemeError.
    """
    steps = estimated(model, _choice(choice), keep_group_size="group_size" in choice)
    _, plan = _finished(steps, progress)
    return plan


def plan(model: str, *, progress: Follow | None = None, **choice: Unpack[Choices]) -> Plan:
    """Return what :func:`compress` would carry out: as :func:`estimate`, but exact, with the model fetched for it.

    Raises as that, and ResourceError for a full disk.
    """
    from studio.session.session import Session

    with closing(Session(paths=True, choice=_choice(choice))) as session:
        _open(session, model, "group_size" in choice, progress)
        _finished(session.fetch(), progress)
        if session.choice.is_mixed:
            _finished(session.measurements.rank(), progress)
        return session.planner.choose(session.choice)


def survey(model: str, *, progress: Follow | None = None) -> Survey:
    """Return how far every weight moves in every scheme that it could take; fetches the model, and is kept.

    ``survey("builtin").layers["model.layers.0.mlp.up_proj.weight"].errors["int4_asym-g64"]`` is ‖W - Ŵ‖ / ‖W‖. Raises
    ModelError, HubError, ResourceError, or CheckpointError for files that are damaged.
    """
    from studio.session.session import Session

    with closing(Session(paths=True)) as session:
        _finished(session.open(model), progress)
        _finished(session.fetch(), progress)
        _finished(session.measurements.survey(), progress)
        return session.model.known


def compress(
    model: str,
    out: Path | str,
    *,
    calibrate: str = "builtin",
    progress: Follow | None = None,
    **choice: Unpack[Choices],
) -> "Compressed":
    """Compress a model into the folder ``out``, which is new or empty, and return what was done.

    ``calibrate``: what a method that reads a text reads: ``"builtin"``, ``"generated"`` by the model itself, a file, or
    ``"hf://datasets/…"``. ``relative_error`` of the result is ‖W - Ŵ‖ / ‖W‖ by tensor, ``file`` the packed weights in
    ``out``. Raises as :func:`plan` does, TextError for a text that is none, ResourceError for a folder with files.
    """
    from studio.calibration.dataset import is_dataset
    from studio.calibration.texts import BUILTIN, GENERATED
    from studio.export.target_folder import move_in, workspace_for
    from studio.session.session import Session

    target = Path(out).resolve()
    with (
        workspace_for(target) as place,
        closing(Session(paths=True, choice=_choice(choice), workspace=place)) as session,
    ):
        if calibrate != BUILTIN:  # before a model is fetched for nothing
            is_named = calibrate == GENERATED.name or is_dataset(calibrate)
            session.texts.calibrate_on(calibrate if is_named else typed_path(calibrate))
        _open(session, model, "group_size" in choice, progress)
        done = _finished(session.compress(), progress)
        if session.copy.folder is None:
            raise ModelError("nothing_compressed")
        move_in(session.copy.folder, target)
    return replace(done, file=target / PACKED)


def evaluate(
    model: Path | str, against: str, *, text: str | None = None, progress: Follow | None = None
) -> "Evaluation":
    """Return how far a model, or a folder that :func:`compress` made, is from the original ``against``.

    On ``text``, a file or ``"hf://datasets/…"``, else on built-in ones: ``kld.mean`` is the KL divergence in nats a
    token, with its standard error over windows. Raises ModelError for models that write no text, TextError,
    CheckpointError, HubError or ResourceError.
    """
    from studio.calibration.dataset import is_dataset, read_dataset
    from studio.calibration.texts import read_text
    from studio.evaluation.drift import Drift
    from studio.evaluation.evaluate import evaluate as steps_of
    from studio.evaluation.evaluate import predictor, text_windows
    from studio.session.shared import of_this_process

    read = None
    if text is not None:  # before a model is fetched for nothing
        read = read_dataset(text).text if is_dataset(text) else read_text(typed_path(text))
    original, column = _fetched(against, progress), _column(model, progress)
    ids = text_windows(original, read)
    of_this_process().pool.make_room(column.need)
    steps = steps_of(original, predictor(column.open().decoder), ids)
    return _finished(relayed(steps, lambda found: Drift("", found).progress), progress)


def load(model: Path | str, *, progress: Follow | None = None) -> "ChatModel":
    """Return a model, or a folder that :func:`compress` made, in the memory of this process: it answers.

    Raises ModelError for a model that writes no text, CheckpointError, HubError, or ResourceError for lack of memory.
    """
    from studio.session.chat_model import ChatModel
    from studio.session.shared import of_this_process

    column = _column(model, progress)
    of_this_process().pool.make_room(column.need)
    return ChatModel(column.open())


def export_model(folder: Path | str, file: Path | str, *, progress: Follow | None = None) -> Path:
    """Pack a folder that :func:`compress` made into one zip, and return it.

    Raises ModelError for another folder, ResourceError for a full disk.
    """
    from studio.export import archive

    source, target = Path(folder), Path(file)
    if not is_compressed(source):
        raise ModelError("nothing_compressed")
    target.parent.mkdir(parents=True, exist_ok=True)
    return _finished(archive(source, target), progress)


def _choice(choice: Choices) -> Choice:
    """Return a choice by names, checked. Raises SchemeError with the valid ones."""
    return Choice.of(**choice)


def _finished(steps: Generator[Progress, None, Result], progress: Follow | None) -> Result:
    """Run a job to its end."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                result: Result = finished.value
                return result
            if progress is not None:
                progress(step)


def _open(session: "Session", model: str, keep_group_size: bool, progress: Follow | None) -> None:
    """Make ``model`` the session's, with the choice that the session was made with."""
    choice = session.choice
    checkpoint = _finished(session.open(model), progress)
    session.planner.choose(taken(choice, checkpoint, keep_group_size))


def _fetched(model: str, progress: Follow | None) -> "Checkpoint":
    """Return a model that can chat, with its files on this machine."""
    from studio.session.session import Session

    with closing(Session(paths=True)) as session:
        checkpoint = _finished(session.open(model), progress)
        if not checkpoint.can_chat:  # before it is fetched for nothing
            raise ModelError("cannot_chat", architecture=checkpoint.architecture)
        return _finished(session.fetch(), progress)


def _column(model: Path | str, progress: Follow | None) -> "Column":
    """Return what loads a model, or a compressed folder. Raises ModelError for one that writes no text."""
    from studio.chat.columns import compressed_column, original_column
    from studio.checkpoint.config import check_can_chat, load_config
    from studio.checkpoint.file_names import CONFIG
    from studio.checkpoint.json_file import read_json

    folder = typed_path(model)
    if not is_compressed(folder):
        return original_column(_fetched(str(model), progress))
    check_can_chat(load_config(read_json(folder / CONFIG)))
    return compressed_column(folder)
