"""``estimate``, ``survey`` and ``compress``: what a plan would be, why, and doing it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.base.text import text
from studio.base.typed_paths import typed_path
from studio.cli.options import AsJson, Calibrate, Chosen, ModelName, app, with_choice
from studio.cli.terminal import Terminal, language, say, terminal
from studio.planning.choice import Choice

if TYPE_CHECKING:
    from studio.checkpoint.checkpoint import Checkpoint
    from studio.compression.compress import Compressed
    from studio.session.session import Session


@app.command(help=say("help_estimate"))
@with_choice("method")  # which changes no size
def estimate(model: ModelName, chosen: Chosen, as_json: AsJson = False) -> None:
    with terminal(as_json) as here:
        from studio.cli.report import heading, model_facts, plan_facts, plan_rows
        from studio.session.estimate import estimate

        group_size_said = "group_size" in chosen
        checkpoint, plan = here.follow(estimate(model, Choice.of(**chosen), keep_group_size=group_size_said))
        _note_part(here, checkpoint)
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
            found = here.follow(session.measurements.sample(runs))
            facts = model_facts(checkpoint) | {"sample_bytes": read} | sample_facts(checkpoint, found)
            here.answer(facts, heading(checkpoint), sample_rows(found))
            return
        here.follow(session.fetch())
        here.follow(session.measurements.survey())
        facts = survey_facts(checkpoint, session.model.known)
        here.answer(model_facts(checkpoint) | facts, heading(checkpoint), survey_rows(session.model.known))


@app.command(help=say("help_compress"))
@with_choice()
def compress(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help=say("help_out"), show_default=False)],
    chosen: Chosen,
    calibrate: Calibrate = "builtin",
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.cli.report import heading, model_facts, plan_facts, plan_rows, result_rows
        from studio.export.target_folder import move_in, workspace_for

        target = typed_path(out).resolve()
        with workspace_for(target) as workspace:
            keep_groups = "group_size" in chosen
            session, checkpoint, done = compressed(here, model, Choice.of(**chosen), calibrate, workspace, keep_groups)
            assert session.copy.folder is not None
            move_in(session.copy.folder, target)
        facts = model_facts(checkpoint) | plan_facts(done.plan, done.relative_error)
        rows = plan_rows(done.plan) + result_rows(done.relative_error, done.seconds, target)
        more = {"seconds": done.seconds, "path": str(target), "unreached": done.unreached, "stacks": done.stacks}
        here.answer(facts | more, heading(checkpoint), rows)


def compressed(
    here: Terminal, model: str, choice: Choice, calibrate: str, workspace: Path, keep_groups: bool
) -> "tuple[Session, Checkpoint, Compressed]":
    """Return a session in which a model is compressed, the model, and what was done."""
    from studio.calibration.dataset import is_dataset
    from studio.calibration.texts import BUILTIN, GENERATED
    from studio.session.session import Session

    is_calibrated = choice.method.needs_inputs and choice.mode.bits < 8
    here.interrupted = "interrupted_anew" if is_calibrated else "interrupted"
    session = Session(paths=True, choice=choice, workspace=workspace)
    if calibrate != BUILTIN:  # before a model is fetched for nothing
        is_named = calibrate == GENERATED.name or is_dataset(calibrate)
        session.texts.calibrate_on(calibrate if is_named else typed_path(calibrate))
    checkpoint = _open(here, session, model, keep_groups)
    done = here.follow(session.compress())
    if done.unreached:
        here.note(say("unreached", layers=", ".join(done.unreached)))
    if done.stacks:
        here.note(text("method.stacks", language(), count=len(done.stacks)))
    return session, checkpoint, done


def _open(here: Terminal, session: "Session", model: str, keep_groups: bool) -> "Checkpoint":
    """Make ``model`` the session's; a group size the user named must fit, another may give way to one that does."""
    from studio.session.estimate import taken

    choice = session.choice
    checkpoint = here.follow(session.open(model))
    # A model that is opened drops what does not fit it; here all but the group size was asked for by name.
    session.planner.choose(taken(choice, checkpoint, keep_groups))
    _note_part(here, checkpoint)
    return checkpoint


def _note_part(here: Terminal, checkpoint: "Checkpoint") -> None:
    """Say where a model is only part of what its files hold."""
    if checkpoint.part:
        here.note(text(f"model.note_part_{checkpoint.part}", language()))
