"""Pushing from the page: as the visitor who signed in, as the owner on a page of their own, as nobody else."""

import threading
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import huggingface_hub
import pytest
from gradio.helpers import special_args

from studio.base.settings import settings
from studio.base.text import text
from studio.export import push
from studio.planning.choice import Choice
from studio.ui import login
from studio.ui.page import Page
from studio.ui.push_handlers import PushHandlers
from tests.hub_server import LocalHub
from tests.page_visitor import Visitor

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
REPO, SERVERS = "owner/small", "hf_of_the_server"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", SERVERS)
        monkeypatch.delenv("OAUTH_CLIENT_ID", raising=False)
        server.account.place = tmp_path / "hub"
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def ready(visitor: Visitor, models: dict[str, str]) -> Visitor:
    """A visitor with a compressed copy that MLX holds."""
    visitor.do("open_model", models["first"])
    visitor.session.decision.run_in("mlx")
    visitor.session.planner.choose(Choice.of(mode="int4_affine", group_size=32))
    visitor.compress()
    return visitor


def pushed(visitor: Visitor) -> str:
    return visitor.says(visitor.page.export.pushed)


def visitors(token: str) -> gr.OAuthToken:
    return gr.OAuthToken(token=token, scope="contribute-repos", expires_at=2**40)


def test_the_owner_of_a_page_of_this_machine_pushes(server: LocalHub, ready: Visitor) -> None:
    server.account.token = SERVERS
    ready.do("push", f" {REPO} ", False, False)
    assert f"{server.url}/{REPO}" in pushed(ready)
    assert {"config.json", "model.safetensors", "README.md"} <= set(server.models[REPO].blobs)
    assert server.account.private == {REPO}
    ready.do("push", REPO, False, False)
    assert text("error.push_taken", repo=REPO) in pushed(ready)
    assert ready.shown[ready.page.export.push]["interactive"]


def test_a_visitor_who_signed_in_pushes_as_themselves(
    server: LocalHub, ready: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OAUTH_CLIENT_ID", "a-space")
    server.account.token = "hf_of_the_visitor"
    ready.do("push_as", REPO, True, False, visitors("hf_of_the_visitor"))
    assert f"{server.url}/{REPO}" in pushed(ready)
    assert all(SERVERS not in (request.authorization or "") for request in server.requests)


def test_a_visitor_is_never_given_the_server_s_login(
    server: LocalHub, ready: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.account.token = SERVERS  # which may
    monkeypatch.setenv("OAUTH_CLIENT_ID", "a-space")
    ready.do("push_as", REPO, False, False, None)
    assert text("error.push_log_in") in pushed(ready)
    ready.do("push", REPO, False, False)  # whatever a client asks for
    assert text("error.push_no_token") in pushed(ready)
    ready.do("push_as", REPO, False, False, visitors("hf_expired"))
    assert text("error.push_token_refused") in pushed(ready)
    monkeypatch.delenv("OAUTH_CLIENT_ID")
    monkeypatch.setattr(settings(), "host", "0.0.0.0")
    assert not login.can_push()
    ready.do("push", REPO, False, False)
    assert text("error.push_no_token") in pushed(ready)
    assert server.models == {}


def test_gradio_hands_over_the_token_of_the_request(page: Page) -> None:
    """It looks for the annotation, through what wraps the handler."""
    given = ["session", "en", REPO, False, False]
    inputs, *_ = special_args(PushHandlers(page).push_as, inputs=list(given), token=visitors("hf_x"))
    assert inputs[:5] == given
    assert inputs[5].token == "hf_x"


def test_before_anything_is_compressed_it_says_so(server: LocalHub, visitor: Visitor, models: dict[str, str]) -> None:
    visitor.do("open_model", models["first"])
    visitor.do("push", REPO, False, False)
    assert text("error.nothing_compressed") in pushed(visitor)
    assert not [request for request in server.requests if request.path != "/api/models"]


def test_stop_ends_it_with_nothing_there(server: LocalHub, ready: Visitor) -> None:
    server.account.token = SERVERS
    for _ in ready.steps("push", REPO, False, False):
        ready.do("stop_push")
    assert text("stage.stopped") in pushed(ready)
    assert server.account.commits == []


def test_stopped_while_the_commit_is_made_it_does_not_say_that_nothing_is_there(
    server: LocalHub, ready: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", lambda *_, **__: is_over.wait())
    monkeypatch.setattr(push, "STOP_SECONDS", 0)
    server.account.token = SERVERS
    for _ in ready.steps("push", REPO, False, False):
        if text("stage.push_commit") in pushed(ready):
            ready.do("stop_push")
    is_over.set()
    assert text("error.push_unknown", url=f"{server.url}/{REPO}") in pushed(ready)
