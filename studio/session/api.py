"""The studio's public functions, as ``import studio`` has them: each takes names and returns what the stages return.

A model is named as in the terminal: ``"builtin"``, an id of the Hub, a folder with safetensors, or a .gguf file. What
takes its time calls ``progress`` with each :class:`Progress`, and ends where that raises. What goes wrong is a
:class:`UserError`: one sentence. Knows no pages and no terminals; torch is imported by what computes.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

from studio.base.errors import ModelError
from studio.base.progress import Progress
from studio.checkpoint.recipe import is_compressed
from studio.planning.choice import Choice
from studio.planning.plan import Plan
from studio.planning.survey_file import Survey
from studio.session.estimate import estimate as estimated

if TYPE_CHECKING:  # what brings torch
    from studio.compression.compress import Compressed
    from studio.evaluation.figures import Evaluation
    from studio.session.chat_model import ChatModel

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
    share_fused: bool
    pins: Sequence[str]
    """``"PATTERN=SCHEME"``, or ``"PATTERN=none"`` for 16 bits."""
    method: str
    sensitivity: str
    mix: str
    budget: str
    """``"5GB"``, ``"60%"`` of the original, ``"4.5bpw"``, ``"fits:8GB@8k"``, or a mix whose bytes are meant."""
    target: str
    """The export target whose schemes a budget is spent on."""


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
    from studio.session.whole_jobs import planned

    with closing(Session(paths=True, choice=_choice(choice))) as session:
        _finished(planned(session, model, "group_size" in choice), progress)
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
    from studio.session.whole_jobs import compressed_into, compressing_into, planned

    target = Path(out).resolve()
    with compressing_into(target, _choice(choice), calibrate) as session:
        _finished(planned(session, model, "group_size" in choice), progress)
        return _finished(compressed_into(session, target), progress)


def evaluate(
    model: Path | str, against: str, *, text: str | None = None, progress: Follow | None = None
) -> "Evaluation":
    """Return how far a model, or a folder that :func:`compress` made, is from the original ``against``.

    On ``text``, a file or ``"hf://datasets/…"``, else on built-in ones: ``kld.mean`` is the KL divergence in nats a
    token, with its standard error over windows. Raises ModelError for models that write no text, TextError,
    CheckpointError, HubError or ResourceError.
    """
    from studio.session.whole_jobs import evaluated

    _, drift = _finished(evaluated(model, against, text, with_floor=False), progress)
    assert drift.evaluation is not None  # it is whole
    return drift.evaluation


def load(model: Path | str, *, progress: Follow | None = None) -> "ChatModel":
    """Return a model, or a folder that :func:`compress` made, in the memory of this process: it answers.

    Raises ModelError for a model that writes no text, CheckpointError, HubError, or ResourceError for lack of memory.
    """
    from studio.chat.columns import compressed_column, original_column
    from studio.session.chat_model import ChatModel
    from studio.session.compressed_folder import compressed_folder
    from studio.session.session import Session
    from studio.session.shared import of_this_process
    from studio.session.whole_jobs import fetched

    folder = compressed_folder(model)
    if folder is not None:
        column = compressed_column(folder)
    else:
        with closing(Session(paths=True)) as session:
            column = original_column(_finished(fetched(session, str(model)), progress))
    of_this_process().pool.make_room(column.need)
    return ChatModel(column.open())


def export_model(
    folder: Path | str, out: Path | str, *, target: str = "studio", progress: Follow | None = None
) -> Path:
    """Write a folder that :func:`compress` made in the form that another program loads, and return where it is.

    ``target`` as the terminal's ``export --to`` has them: ``"studio"`` is the folder in one zip. ``out`` is new. Raises
    SchemeError for what is no target or what it cannot hold, ModelError for another folder, CheckpointError for one
    that is not whole, ResourceError for a full disk or where something is in the way.
    """
    from studio.export import targets

    into, source, place = targets.target_named(target), Path(folder), Path(out).resolve()
    if not is_compressed(source):
        raise ModelError("nothing_compressed")
    return _finished(targets.export(into, source, place, check=True), progress)


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
