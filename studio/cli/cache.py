"""``cache``: what is kept on this machine, how large, used when; and removing it. Knows nothing of what is kept.

Imports no torch, so that it answers at once.
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from studio.base import cache as kept
from studio.base.cache_budget import budget, make_room
from studio.base.errors import UserError
from studio.base.settings import settings
from studio.base.units import format_bytes, parse_bytes
from studio.cli.options import AsJson, app
from studio.cli.terminal import say, terminal

ALL = "all"


@app.command(help=say("help_cache"))
def cache(
    removed: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar=f"NAME|{'|'.join(kept.KINDS)}|{ALL}", help=say("help_cache_remove")),
    ] = None,
    keep: Annotated[str | None, typer.Option("--keep", metavar="10GB", help=say("help_cache_keep"))] = None,
    as_json: AsJson = False,
) -> None:
    with terminal(as_json) as here:
        limit = None if keep is None else _bytes(keep)
        found, gone, stays = kept.entries(), list[kept.Entry](), list[kept.Entry]()
        for name in removed or ():
            for entry in _named(name, found):
                (gone if kept.remove(entry) else stays).append(entry)
        if limit is not None:
            gone += make_room(keep=limit)
        for entry in stays:
            here.note(say("cache_in_use", name=entry.name))
        left = kept.entries() if gone else found
        facts = {"folder": str(settings().cache_dir), "budget": budget(), "bytes": kept.total(left)}
        lists = {"entries": _facts(left), "removed": _facts(gone), "in_use": [entry.name for entry in stays]}
        heading = say(
            "cache_holds",
            size=format_bytes(kept.total(left)),
            folder=settings().cache_dir,
            budget=format_bytes(budget()),
        )
        if gone:
            heading = say("cache_removed", size=format_bytes(kept.total(gone)), count=len(gone)) + "\n" + heading
        here.answer(facts | lists, heading, [(_label(entry), _described(entry)) for entry in left])


def _named(name: str, found: Sequence[kept.Entry]) -> list[kept.Entry]:
    """Return what is meant by a name, a kind, or ``all``. Raises UserError for what is not there."""
    named = [entry for entry in found if name in (ALL, entry.kind, entry.name)]
    if not named and name != ALL and name not in kept.KINDS:
        raise UserError("cache_unknown", name=name, kinds=", ".join(kept.KINDS))
    return named


def _bytes(said: str) -> int:
    try:
        return parse_bytes(said)
    except ValueError as error:
        raise UserError("cache_bad_size", size=said[:40]) from error


def _facts(found: Sequence[kept.Entry]) -> list[dict[str, Any]]:
    return [
        {"kind": entry.kind, "name": entry.name, "bytes": entry.nbytes, "used": round(entry.used)} for entry in found
    ]


def _label(entry: kept.Entry) -> str:
    return entry.name if entry.name == entry.kind else f"{entry.kind}: {entry.name}"


def _described(entry: kept.Entry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    return f"{format_bytes(entry.nbytes):>8}  {used}"
