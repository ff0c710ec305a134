"""The house that the settings describe, for the door to stand before. Decides nothing."""

from collections.abc import Callable

import studio
from studio.base import workers
from studio.base.limits import limits
from studio.base.settings import settings
from studio.ui import login
from studio.ui.door.door import Calls, House
from studio.ui.door.names import Names

SPACES = ("https://huggingface.co",)
"""The pages that show a Space within them."""


def house_of(calls: Calls, on_refused: Callable[[str], None]) -> House:
    """Return what the door is to know of this server."""
    here = settings()
    is_space = bool(here.space_host)
    return House(
        names(here.host),
        limits(),
        calls,
        access="public" if here.access == "auto" and here.is_for_others else here.access,
        has_proxy=is_space if here.proxy is None else here.proxy,
        has_login=login.has_login(),
        framed_by=SPACES if is_space else (),
        health=health,
        on_refused=on_refused,
        on_stranger=here.admit_strangers,
    )


def names(bound: str) -> Names:
    """Return how a server of ours that is bound to an address may be called."""
    here = settings()
    return Names.of(bound, (*here.allowed_hosts.split(","), here.space_host))


def health() -> dict[str, object]:
    """Return what anybody may know of whether the server works."""
    are_alive = workers.are_alive() or not settings().isolate
    return {"status": "ok" if are_alive else "failing", "version": studio.__version__, "workers": are_alive}
