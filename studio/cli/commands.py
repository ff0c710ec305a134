"""The studio from a terminal: ``python -m studio estimate builtin``. Decides nothing that the page would decide.

torch and all that needs it is imported inside the commands, so that help is there at once.
"""

from studio.base import interrupts

interrupts.leave_quietly()  # before the imports below, which take their time

import os
import signal
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.base.errors import ModelError, PromptError, ResourceError
from studio.base.settings import settings
from studio.base.text import text
from studio.base.typed_paths import typed_path
from studio.cli.target_folder import move_in, workspace_for
from studio.cli.terminal import Terminal, language, say, terminal
from studio.quantization.methods import Method
from studio.quantization.scheme import BACKUPS, Mode, parse_mode

if TYPE_CHECKING:
    from studio.checkpoint.checkpoint import Checkpoint
    from studio.session.session import Session

app = typer.Typer(
    help=say("help"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=say("help_model"), show_default=False)]
ModeName = Annotated[str, typer.Option("--mode", help=say("help_mode", modes=", ".join(Mode)))]
GroupSize = Annotated[int | None, typer.Option("--group-size", help=say("help_group_size"), show_default=False)]
Ratio = Annotated[float, typer.Option("--ratio", help=say("help_ratio"))]
Backup = Annotated[
    str | None, typer.Option("--backup", help=say("help_backup", backups=", ".join(BACKUPS)), show_default=False)
]
GroupSizeFallback = Annotated[str, typer.Option("--misfit", help=say("help_misfit"))]
AllLayers = Annotated[bool, typer.Option("--all-layers", help=say("help_all_layers"))]
By = Annotated[str | None, typer.Option("--sensitivity", help=say("help_sensitivity"), show_default=False)]
Pins = Annotated[list[str] | None, typer.Option("--pin", help=say("help_pin"), show_default=False)]
Ignored = Annotated[list[str] | None, typer.Option("--ignore", help=say("help_ignore"), show_default=False)]
MethodName = Annotated[str, typer.Option("--method", help=say("help_method", methods=", ".join(("best", *Method))))]
Calibrate = Annotated[
    str, typer.Option("--calibrate", metavar="builtin|generated|FILE|hf://datasets/…", help=say("help_calibrate"))
]
AsJson = Annotated[bool, typer.Option("--json", help=say("help_json"))]


@app.command(help=say("help_serve"))
def serve(
    host: Annotated[str | None, typer.Option(help=say("help_host"), show_default=False)] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help=say("help_port"), show_default=False)] = None,
) -> None:
    with terminal(as_json=False) as here:
        from studio.checkpoint.open_model import builtin_file

        if builtin_file() is not None:
            _prepare_builtin(here)
        from studio.ui import launch

        try:
            with redirect_stdout(here.out):
                launch(host, port)
        except OSError as error:
            if error.filename is not None:  # a file's fault, not the port's
                raise
            where = f"{host or settings().host}:{settings().port if port is None else port}"
            raise ResourceError("cannot_serve", where=where) from error


@app.command(help=say("help_prepare"))
def prepare(as_json: AsJson = False) -> None:
    with terminal(as_json) as here:
        from studio.cli.report import model_facts

        checkpoint = _prepare_builtin(here)
        facts = model_facts(checkpoint) | {"path": str(checkpoint.path)}
        here.answer(facts, say("prepared", path=checkpoint.path))


@app.command(help=say("help_estimate"))
def estimate(
    model: ModelName,
    mode: ModeName = "int4_asym",
    group_size: GroupSize = None,
    ratio: Ratio = 1.0,
    backup: Backup = None,
    group_size_fallback: GroupSizeFallback = "error",
    all_layers: AllLayers = False,
    sensitivity: By = None,
    pin: Pins = None,
    ignore: Ignored = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        from studio.cli.report import heading, model_facts, plan_facts, plan_rows

        session = _session(mode, group_size, ratio, backup, group_size_fallback, all_layers, sensitivity, pin, ignore)
        checkpoint = _open(here, session, model, group_size is not None)
        if session.choice.is_mixed:
            here.follow(session.rank())
        plan = session.choose(session.choice)
        here.answer(model_facts(checkpoint) | plan_facts(plan), heading(checkpoint), plan_rows(plan))


@app.command(help=say("help_survey"))
def survey(
    model: ModelName,
    sample: Annotated[bool, typer.Option("--sample", help=say("help_sample"))] = False,
    runs: Annotated[int, typer.Option(min=2, max=1000, help=say("help_runs"))] = 8,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        from studio.base.units import format_bytes
        from studio.cli.report import heading, model_facts, sample_facts, sample_rows, survey_facts, survey_rows
        from studio.planning.sampled_survey import draws
        from studio.session.session import Session

        session = Session(paths=True)
        checkpoint = here.follow(session.open(model))
        if sample:
            read = sum(draw.nbytes for draw in draws(checkpoint, runs))
            here.note(say("sample_reads", read=format_bytes(read), all=format_bytes(checkpoint.source_bytes)))
            found = here.follow(session.sample(runs))
            facts = model_facts(checkpoint) | {"sample_bytes": read} | sample_facts(checkpoint, found)
            here.answer(facts, heading(checkpoint), sample_rows(found))
            return
        here.follow(session.fetch())
        here.follow(session.survey())
        facts = survey_facts(checkpoint, session.known)
        here.answer(model_facts(checkpoint) | facts, heading(checkpoint), survey_rows(session.known))


@app.command(help=say("help_compress"))
def compress(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help=say("help_out"), show_default=False)],
    mode: ModeName = "int4_asym",
    group_size: GroupSize = None,
    ratio: Ratio = 1.0,
    backup: Backup = None,
    group_size_fallback: GroupSizeFallback = "error",
    all_layers: AllLayers = False,
    sensitivity: By = None,
    pin: Pins = None,
    ignore: Ignored = None,
    method: MethodName = "nearest",
    calibrate: Calibrate = "builtin",
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        from studio.calibration.dataset import is_dataset
        from studio.calibration.texts import BUILTIN, GENERATED
        from studio.cli.report import heading, model_facts, plan_facts, plan_rows, result_rows

        session = _session(
            mode, group_size, ratio, backup, group_size_fallback, all_layers, sensitivity, pin, ignore, method
        )
        is_calibrated = session.choice.method.needs_inputs and session.choice.mode.bits < 8
        here.interrupted = "interrupted_anew" if is_calibrated else "interrupted"
        target = typed_path(out).resolve()
        with workspace_for(target) as session.workspace:
            if calibrate != BUILTIN:  # before a model is fetched for nothing
                is_named = calibrate == GENERATED.name or is_dataset(calibrate)
                session.calibrate_on(calibrate if is_named else typed_path(calibrate))
            checkpoint = _open(here, session, model, group_size is not None)
            done = here.follow(session.compress())
            assert session.folder is not None
            move_in(session.folder, target)
        facts = model_facts(checkpoint) | plan_facts(done.plan, done.relative_error)
        rows = plan_rows(done.plan) + result_rows(done.relative_error, done.seconds, target)
        if done.unreached:
            here.note(say("unreached", layers=", ".join(done.unreached)))
        if done.stacks:
            here.note(text("method.stacks", language(), count=len(done.stacks)))
        more = {"seconds": done.seconds, "path": str(target), "unreached": done.unreached, "stacks": done.stacks}
        here.answer(facts | more, heading(checkpoint), rows)


@app.command(help=say("help_evaluate"))
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_DIR", help=say("help_evaluated"), show_default=False)],
    against: Annotated[str, typer.Option("--against", metavar="MODEL", help=say("help_against"), show_default=False)],
    given: Annotated[
        str | None, typer.Option("--text", metavar="FILE|hf://datasets/…", help=say("help_text"), show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        from studio.base.steps import relayed
        from studio.calibration.dataset import is_dataset, read_dataset
        from studio.calibration.texts import BUILTIN, read_text
        from studio.chat.columns import compressed_column, original_column
        from studio.checkpoint.checkpoint import read_json
        from studio.checkpoint.config import check_can_chat, load_config
        from studio.checkpoint.recipe import is_compressed, read_recipe
        from studio.cli.report import evaluation_facts, evaluation_rows, heading
        from studio.evaluation.drift import drift, guidance
        from studio.evaluation.evaluate import predictor, text_windows
        from studio.session.events import drift_event
        from studio.session.session import POOL

        name, read = "", None  # before a model is fetched for nothing
        if given is not None and is_dataset(given):
            dataset = read_dataset(given)
            name, read = dataset.name, dataset.text
        elif given is not None:
            name, read = Path(given).name, read_text(typed_path(given))
        folder = typed_path(model)
        if is_compressed(folder):
            check_can_chat(load_config(read_json(folder / "config.json")))
        original = _fetched(here, against)
        column = compressed_column(folder) if is_compressed(folder) else original_column(_fetched(here, model))
        ids = text_windows(original, read)
        POOL.make_room(column.need)
        found = here.follow(relayed(drift(original, predictor(column.open().decoder), ids, name), drift_event))
        facts = {"model": model, "against": against, "text": name or BUILTIN} | evaluation_facts(found)
        here.answer(facts, heading(original), evaluation_rows(found))
        if (
            is_compressed(folder)
            and not as_json
            and (advice := guidance(parse_mode(read_recipe(folder).choices.mode), language()))
        ):
            here.note(advice)


@app.command(help=say("help_chat"))
def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_DIR", help=say("help_chat_model"), show_default=False)],
    prompt: Annotated[str, typer.Option("--prompt", help=say("help_prompt"), show_default=False)],
    max_new_tokens: Annotated[int, typer.Option(min=1, help=say("help_max_new_tokens"))] = 64,
    temperature: Annotated[float, typer.Option(min=0, max=100, help=say("help_temperature"))] = 0.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help=say("help_top_p"))] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 63) - 1, help=say("help_seed"))] = 0,
    system: Annotated[str, typer.Option(help=say("help_system"), show_default=False)] = "",
    kv_bits: Annotated[int, typer.Option("--kv-bits", help=say("help_kv_bits"))] = 16,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        if not prompt.strip():  # before a model is loaded for nothing
            raise PromptError("empty_prompt")
        from studio.chat.answer import Reply, answer
        from studio.chat.columns import compressed_column, original_column
        from studio.checkpoint.checkpoint import read_json
        from studio.checkpoint.config import check_can_chat, load_config
        from studio.checkpoint.file_names import CONFIG
        from studio.checkpoint.recipe import is_compressed
        from studio.cli.report import answer_facts, speed
        from studio.runtime.decoder import KV_BITS
        from studio.runtime.sampling import Sampling
        from studio.session.session import POOL

        if kv_bits not in KV_BITS:
            raise PromptError("unknown_kv_bits", bits=kv_bits, choices=", ".join(map(str, KV_BITS)))
        folder = typed_path(model)
        if is_compressed(folder):
            check_can_chat(load_config(read_json(folder / CONFIG)))
        column = compressed_column(folder) if is_compressed(folder) else original_column(_fetched(here, model))
        messages = [{"role": "system", "content": system}] if system.strip() else []
        messages.append({"role": "user", "content": prompt})
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        reply = Reply()
        POOL.make_room(column.need)
        loaded = column.open()
        for step in answer(loaded, messages, sampling, kv_bits):
            here.stream(step.text[len(reply.text) :])
            reply = step
        facts = {"model": model} | answer_facts(loaded, reply)
        here.answer(facts)
        if not as_json:
            here.note(speed(facts))


def _prepare_builtin(here: Terminal) -> "Checkpoint":
    """Convert the built-in model and find out its sensitivities, once; afterwards it is ready at a touch."""
    from studio.checkpoint.open_model import BUILTIN
    from studio.session.session import Session

    session = Session()
    checkpoint = here.follow(session.open(BUILTIN))
    here.follow(session.survey())
    return checkpoint


def _session(
    mode: str,
    group_size: int | None,
    ratio: float,
    backup: str | None,
    group_size_fallback: str,
    all_layers: bool,
    sensitivity: str | None,
    pins: list[str] | None,
    ignored: list[str] | None,
    method: str = Method.NEAREST,
) -> "Session":
    """Return a session with these choices, which are checked before any model is touched."""
    from studio.planning.choice import Choice
    from studio.session.session import Session

    size = Choice().group_size if group_size is None else group_size
    marks = [*(pins or ()), *(f"{pattern}=none" for pattern in ignored or ())]
    choice = Choice.of(mode, size, ratio, backup, group_size_fallback, all_layers, marks, method, sensitivity)
    return Session(paths=True, choice=choice)


def _open(here: Terminal, session: "Session", model: str, keep_groups: bool) -> "Checkpoint":
    """Make ``model`` the session's; a group size the user named must fit, another may give way to one that does."""
    choice = session.choice
    checkpoint = here.follow(session.open(model))
    # A model that is opened drops what does not fit it; here all but the group size was asked for by name.
    session.choose(choice if keep_groups else replace(choice, group_size=session.choice.group_size))
    if checkpoint.part:
        here.note(text(f"model.note_part_{checkpoint.part}", language()))
    return checkpoint


def _fetched(here: Terminal, model: str) -> "Checkpoint":
    """Return a model that can chat, with its files on this machine."""
    from studio.session.session import Session

    session = Session(paths=True)
    checkpoint = here.follow(session.open(model))
    if not checkpoint.can_chat:  # before it is fetched for nothing
        raise ModelError("cannot_chat", architecture=checkpoint.architecture)
    return here.follow(session.fetch())


def main() -> None:
    """Run a command with nothing on the screen but what the studio says."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    # SIGTERM as an exception, so that what is half written is removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()
