"""``estimate``, ``survey`` and ``compress``: what a plan would be, why, and doing it. Knows not how."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from studio.base.typed_paths import typed_path
from studio.cli.opened import compressing, note_part, note_uncalibrated
from studio.cli.options import AsJson, Calibrate, Chosen, ModelName, app, with_choice
from studio.cli.terminal import say, terminal
from studio.planning.choice import Choice


@app.command(help=say("help_estimate"))
@with_choice("method")  # which changes no size
def estimate(model: ModelName, chosen: Chosen, as_json: AsJson = False) -> None:
    with terminal(as_json) as here:
        from studio.cli.report import heading, model_facts, plan_facts, plan_rows
        from studio.session.estimate import estimate

        group_size_said = "group_size" in chosen
        checkpoint, plan = here.follow(estimate(model, Choice.of(**chosen), keep_group_size=group_size_said))
        note_part(here, checkpoint)
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

        with closing(Session(paths=True)) as session:
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
        from studio.session.whole_jobs import compressed_into

        target = typed_path(out).resolve()
        with compressing(here, model, chosen, calibrate, target) as (session, checkpoint):
            done = here.follow(compressed_into(session, target))
        facts = model_facts(checkpoint) | plan_facts(done.plan, done.relative_error)
        rows = plan_rows(done.plan) + result_rows(done.relative_error, done.seconds, target)
        note_uncalibrated(here, done)
        more = {"seconds": done.seconds, "path": str(target), "unreached": done.unreached, "stacks": done.stacks}
        here.answer(facts | more, heading(checkpoint), rows)
