"""``push``: an export to the Hub, with the user's own token, in one commit. Knows no target by name."""

from pathlib import Path
from typing import Annotated

import typer

from studio.base.errors import HubError, SchemeError
from studio.base.progress import Progress
from studio.base.typed_paths import typed_path
from studio.cli.export import note_license
from studio.cli.options import AsJson, app
from studio.cli.terminal import say, terminal


@app.command(help=say("help_push"))
def push(
    sources: Annotated[
        list[Path], typer.Argument(metavar="DIR|FILES...", help=say("help_push_sources"), show_default=False)
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help=say("help_push_repo"), show_default=False)],
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="TARGET", help=say("help_push_to"), show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help=say("help_push_public"))] = False,
    existing: Annotated[bool, typer.Option("--existing", help=say("help_push_existing"))] = False,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        here.starting()
        from studio.base.steps import relayed
        from studio.base.units import format_bytes
        from studio.checkpoint.file_names import RECIPE
        from studio.checkpoint.hub_client import own_token
        from studio.checkpoint.recipe import recipe_of
        from studio.export.push import COMMIT, Destination, url_of
        from studio.export.targets import target_named
        from studio.session.pushing import pushing

        targets = [target_named(name) for name in to or ()]
        if len({target.name for target in targets}) < len(targets):
            raise SchemeError("export_twice", targets=", ".join(to or ())[:80])
        token = own_token()
        if token is None:
            raise HubError("push_no_token")
        for source in sources:
            if (typed_path(source) / RECIPE).is_file():
                note_license(here, recipe_of(typed_path(source) / RECIPE).source.license)
        here.interrupted = "push_interrupted"
        where = Destination(repo, public, existing)

        def told(event: Progress) -> Progress:
            if event.stage == COMMIT:
                here.interrupted = "push_interrupted_commit"
                here.interrupted_values = {"url": url_of(repo)}
            return event

        done = here.follow(relayed(pushing([typed_path(each) for each in sources], targets, where, token), told))
        facts = {"repo": done.repo, "url": done.url, "commit": done.commit, "bytes": done.nbytes}
        said = say(
            "pushed_private" if done.is_private else "pushed_public", size=format_bytes(done.nbytes), url=done.url
        )
        here.answer(facts | {"private": done.is_private}, said)
