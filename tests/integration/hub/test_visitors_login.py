"""What a visitor's own login opens on the Hub is theirs: the owner's login is used for no stranger, and nobody else is
shown what was fetched with another's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.base.errors import HubError, ModelError, UserError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.checkpoint import hub
from studio.checkpoint.hub_client import MODEL, listing
from studio.session import referee
from studio.session.session import Session
from studio.session.visitor import Visitor
from tests.conftest import save_tiny_model
from tests.hub_server import LocalHub
from tests.steps import finish

REPO, LOGIN = "owner/private", "hf_of_the_visitor"
Sessions = list[Session]


@pytest.fixture(autouse=True)
def _public(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A page of strangers, whose owner is logged in."""
    monkeypatch.setenv("STUDIO_ACCESS", "public")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def private(server: LocalHub, tmp_path: Path) -> LocalHub:
    save_tiny_model("llama", tmp_path / "llama")
    server.add(REPO, tmp_path / "llama")
    server.private[REPO] = LOGIN
    return server


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    """One visitor who signed in, and one who did not."""
    made = []
    for number, login in enumerate((LOGIN, None)):
        made.append(Session(workspace=tmp_path / f"work-{number}", visitor=Visitor(number, number, is_owner=False)))
        made[-1].login = login
    yield made
    for session in made:
        session.close()


def logins(server: LocalHub) -> set[str | None]:
    return {request.authorization for request in server.requests if REPO in request.path}


def test_a_private_model_is_opened_and_fetched_by_the_visitors_own_login(private: LocalHub, sessions: Sessions) -> None:
    mine = sessions[0]
    finish(mine.open(REPO))
    finish(mine.measurements.sample(runs=2))
    assert finish(mine.fetch()).folder is not None
    assert logins(private) == {f"Bearer {LOGIN}"}
    assert LOGIN not in repr(vars(mine.model)) + repr(hub.inspect(REPO, login=LOGIN))


def test_nobody_else_is_shown_it_though_it_is_here(private: LocalHub, sessions: Sessions) -> None:
    mine, other = sessions
    finish(mine.open(REPO))
    finish(mine.fetch())
    private.requests.clear()
    with pytest.raises(ModelError) as caught:
        finish(other.open(REPO))
    assert caught.value.key == "model_not_found"
    assert logins(private) == {None}
    assert other.checkpoint is None


def test_nor_while_the_hub_is_silent(private: LocalHub, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = sessions
    finish(mine.open(REPO))
    finish(mine.fetch())
    monkeypatch.setattr(hub, "reachable", lambda: False)
    private.status = 503
    with pytest.raises(UserError) as caught:
        finish(other.open(REPO))
    assert isinstance(caught.value, HubError | ModelError)
    assert other.checkpoint is None


def test_another_login_opens_nothing(private: LocalHub, sessions: Sessions) -> None:
    other = sessions[1]
    other.login = "hf_of_somebody"
    with pytest.raises(ModelError):
        finish(other.open(REPO))
    assert logins(private) == {"Bearer hf_of_somebody"}


def test_a_visitors_login_follows_to_no_other_host(private: LocalHub, sessions: Sessions) -> None:
    private.elsewhere = True
    mine = sessions[0]
    finish(mine.open(REPO))
    finish(mine.fetch())
    elsewhere = [request for request in private.requests if request.path.startswith("/stored/")]
    assert elsewhere
    assert {request.authorization for request in elsewhere} == {None}


def test_what_everybody_may_see_is_nobodys_while_the_hub_is_silent(
    private: LocalHub, sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody who signed in fetched it."""
    private.add("owner/open", tmp_path / "llama")
    mine, other = sessions
    finish(mine.open("owner/open"))
    finish(mine.fetch())
    monkeypatch.setattr(hub, "reachable", lambda: False)
    private.status = 503
    assert finish(other.open("owner/open")).folder is not None


def test_what_is_gated_or_private_is_not_everybodys(private: LocalHub, tmp_path: Path) -> None:
    private.add("owner/open", tmp_path / "llama")
    private.add("owner/gated", tmp_path / "llama", gated=True)
    seen = {name: listing(name, None, MODEL, LOGIN).is_open for name in ("owner/open", "owner/gated", REPO)}
    assert seen == {"owner/open": True, "owner/gated": False, REPO: False}


def test_a_private_model_is_judged_by_the_visitors_own_login(private: LocalHub, sessions: Sessions) -> None:
    mine = sessions[0]
    original = finish(mine.open(REPO))
    finish(mine.fetch())
    private.requests.clear()
    assert finish(referee.opened_for(mine.model.chosen, REPO, False, LOGIN)).given == REPO
    judged: list[referee.Other] = []

    def note(other: referee.Other) -> Iterator[Progress]:
        judged.append(other)
        yield Progress("drift")

    mine.judge_opened = note  # type: ignore[assignment, method-assign]
    finish(mine.judge(REPO))
    assert [other.title for other in judged] == [original.title]
    assert logins(private) == {f"Bearer {LOGIN}"}
