"""From a model's name to what was asked of it: the jobs of sessions in a row, as the terminal and the library run them.

Knows neither terminals nor the library's words; brings torch.
"""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from studio.base.errors import ModelError
from studio.base.progress import Progress
from studio.base.typed_paths import typed_path
from studio.calibration.dataset import is_dataset
from studio.calibration.texts import BUILTIN, GENERATED
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import LEFT_OUT, PACKED
from studio.compression.compress import Compressed
from studio.evaluation.drift import Drift
from studio.export.compressed_model import opened
from studio.export.target_folder import move_in, workspace_for
from studio.planning.choice import Choice
from studio.session.compressed_folder import compressed_folder
from studio.session.estimate import taken
from studio.session.referee import check_same
from studio.session.session import Session
from studio.session.shared import of_this_process


def fetched(session: Session, name: str) -> Generator[Progress, None, Checkpoint]:
    """Make a model that can chat the session's and return it, with its files on this machine. Raises UserError."""
    yield from _opened_to_chat(session, name)
    return (yield from session.fetch())


def _opened_to_chat(session: Session, name: str) -> Generator[Progress, None, Checkpoint]:
    checkpoint = yield from session.open(name)
    if not checkpoint.can_chat:  # before it is fetched for nothing
        raise ModelError("cannot_chat", architecture=checkpoint.architecture)
    return checkpoint


def both_fetched(
    session: Session, name: Path | str, against: str
) -> Generator[Progress, None, tuple[Checkpoint, Checkpoint | Path]]:
    """Return the original ``against``, then the session's, and a model or a compressed folder, both on this machine.

    Raises UserError: CheckpointError, before anything is fetched, where their headers say that they are two models.
    """
    folder = compressed_folder(name)
    original = yield from _opened_to_chat(session, against)
    if folder is not None:
        check_same(original, opened(folder).checkpoint)
        return (yield from session.fetch()), folder
    with closing(Session(paths=True)) as other:
        check_same(original, (yield from _opened_to_chat(other, str(name))))
        return (yield from session.fetch()), (yield from other.fetch())


def planned(
    session: Session, name: str, keep_group_size: bool, revision: str | None = None
) -> Generator[Progress, None, Checkpoint]:
    """Make a model the session's, with the choice that the session was made with, and return it.

    A model that is opened drops what does not fit it; here all was asked for by name, but for a group size that
    ``keep_group_size`` says was not. ``revision``: a commit of it on the Hub, the newest by default. Raises UserError.
    """
    choice = session.choice
    checkpoint = yield from session.open(name, revision)
    session.planner.choose(taken(choice, checkpoint, keep_group_size))
    return checkpoint


@contextmanager
def compressing_into(target: Path, choice: Choice, calibrate: str) -> Iterator[Session]:
    """Lend a session that works on the disk of ``target``, with the text to calibrate on. Raises UserError.

    ``calibrate``: ``"builtin"``, ``"generated"`` by the model itself, a file, or a data set of the Hub.
    """
    with workspace_for(target) as place, closing(Session(paths=True, choice=choice, workspace=place)) as session:
        if calibrate != BUILTIN:  # before a model is fetched for nothing
            is_named = calibrate == GENERATED.name or is_dataset(calibrate)
            session.texts.calibrate_on(calibrate if is_named else typed_path(calibrate))
        yield session


def compressed_into(session: Session, target: Path) -> Generator[Progress, None, Compressed]:
    """Carry the session's plan out, put the folder in the place of ``target``, and return what was done there.

    Raises ModelError where nothing was compressed, and what :meth:`Session.compress` raises.
    """
    done = yield from session.compress()
    if session.copy.folder is None:
        raise ModelError("nothing_compressed")
    move_in(session.copy.folder, target)
    return replace(done, file=target / PACKED, left_out=None if done.left_out is None else target / LEFT_OUT)


def evaluation_text(session: Session, text: str | None) -> None:
    """Let a session judge on a file or a data set of the Hub, before a model is fetched. Raises UserError."""
    if text is not None:
        session.texts.evaluate_on(text if is_dataset(text) else typed_path(text))


def evaluated(
    name: Path | str, against: str, text: str | None, with_floor: bool = True
) -> Generator[Progress, None, tuple[Checkpoint, Drift]]:
    """Return the original ``against``, and how far a model or a compressed folder has drifted from it.

    ``text``: a file or a data set of the Hub, None for the built-in ones. Raises UserError, as :func:`both_fetched`.
    """
    with closing(Session(paths=True)) as session:
        evaluation_text(session, text)
        original, judged = yield from both_fetched(session, name, against)
        session.copy.place(judged)
        drift = yield from session.copy.measure_drift(original, session.texts.evaluation, with_floor)
        if session.copy.column is not None:  # nobody asks it again
            of_this_process().pool.drop(session.copy.column().key)
        return original, drift
