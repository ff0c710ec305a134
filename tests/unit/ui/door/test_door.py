"""What passes the door, and what does not."""

import json
from collections import Counter
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from studio.base.limits import Limits
from studio.base.text import LANGUAGES, text
from studio.session.visitor import Visitor
from studio.ui.door.asked import COOKIE
from studio.ui.door.door import VISITOR, Door, House
from studio.ui.door.names import Names

HOST = "127.0.0.1:7860"
ADDRESS = f"http://{HOST}"
JOIN = "/gradio_api/queue/join"
TIGHT = Limits(
    session_calls=2, visitor_calls=3, address_calls=4, visitor_tabs=5, address_tabs=7, calls_per_minute=20,
    body_bytes=1024, upload_bytes=1024, visitor_uploads_per_hour=2, address_uploads_per_hour=3,
)  # fmt: skip


@dataclass
class Calls:
    """Calls that wait, by what a test says."""

    waiting: dict[str, str] = field(default_factory=dict)

    def in_flight(self) -> Mapping[str, int]:
        return Counter(self.waiting.values())

    def session_of(self, call: str) -> str | None:
        return self.waiting.get(call)

    def knows(self, function: object) -> bool:
        return function in (3, "predict", "visit", "compress")


class Page:
    """What stands behind the door: it says what came."""

    def __init__(self) -> None:
        self.came: list[tuple[str, Visitor, bytes]] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        self.came.append((scope["path"], scope[VISITOR], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"page"})


@dataclass
class Server:
    """A door with a page behind it, and browsers before it."""

    page: Page
    calls: Calls
    door: Door
    strangers: list[bool]

    def browser(self, address: str = "127.0.0.1", has_cookie: bool = True, **headers: str) -> TestClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        browser = TestClient(self.door, ADDRESS, client=(address, 1), headers={"host": HOST} | named)
        if has_cookie:
            assert browser.get("/").status_code == 200
        return browser


def server(limits: Limits = TIGHT, bound: str = "127.0.0.1", more: tuple[str, ...] = (), **house: Any) -> Server:
    page, calls, strangers = Page(), Calls(), list[bool]()
    of = House(Names.of(bound, more), limits, calls, on_stranger=lambda: strangers.append(True), **house)
    return Server(page, calls, Door(page, of), strangers)


@pytest.fixture
def ours() -> Server:
    return server()


@pytest.fixture
def public() -> Server:
    return server(access="public")


# names


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "localhost.evil.example", "10.0.0.1", "", "a b"])
@pytest.mark.parametrize("path", ["/", "/config", "/health", JOIN, "/gradio_api/upload", "/gradio_api/queue/data"])
def test_a_page_that_is_called_by_another_name_does_not_answer(ours: Server, host: str, path: str) -> None:
    browser = ours.browser(has_cookie=False, host=host)
    for answer in (browser.get(path), browser.post(path, content=b"{}")):
        assert answer.status_code == 421
        assert "page" not in answer.text.replace("This page is not called", "")
    assert ours.page.came == []
    assert ours.strangers == []


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1"])
def test_the_script_of_another_page_is_refused(ours: Server, origin: str) -> None:
    browser = ours.browser(has_cookie=False, origin=origin)
    for answer in (browser.get("/config"), browser.post(JOIN, json={}), browser.post("/gradio_api/upload")):
        assert answer.status_code == 403
    assert ours.page.came == []


def test_its_own_script_is_not(ours: Server) -> None:
    assert ours.browser(has_cookie=False, origin=ADDRESS).post(JOIN, json={}).status_code == 200


def test_a_picture_in_another_page_is_refused_and_a_link_from_there_is_not(ours: Server) -> None:
    held = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    browser = ours.browser(has_cookie=False)
    assert browser.get("/gradio_api/file=x", headers=held).status_code == 403
    assert browser.get("/", headers=held | {"sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_refusal_is_one_sentence_in_the_visitors_language(ours: Server, language: str) -> None:
    browser = ours.browser(has_cookie=False, host="evil.example", accept_language=language)
    said = text("door.host", language, host="evil.example")
    assert browser.get("/").text == said + "\n"
    assert json.loads(browser.post(JOIN).text) == {"detail": said, "error": said}


def test_what_the_page_does_not_need_is_not_there(ours: Server) -> None:
    browser = ours.browser()
    api = ("component_server", "vibe-code/", "proxy=http://127.0.0.1:1/", "process_recording", "stream/x", "dev/reload")
    for path in ("/monitoring/summary", "/docs", "/openapi.json", "/runs", *(f"/gradio_api/{each}" for each in api)):
        assert browser.get(path).status_code == 404
        assert browser.post(path).status_code == 404
    assert len(ours.page.came) == 1


def test_signing_in_is_let_through_where_visitors_can() -> None:
    there, not_there = server(has_login=True).browser(), server().browser()
    for path in ("/login/huggingface", "/login/callback?code=1", "/logout"):
        assert there.get(path).status_code == 200
        assert not_there.get(path).status_code == 404
    for path in ("/login", "/login/other", "/monitoring"):
        assert there.get(path).status_code == 404


def test_names_of_exports_that_are_made_up_wash_no_session_away(ours: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.ui.door.visitors.MAX_EXPORTS", 3)
    monkeypatch.setattr("studio.ui.door.visitors.MAX_NAMES", 3)
    one, other = ours.browser("192.0.2.1"), ours.browser("192.0.2.2")
    assert one.post(JOIN, json={"session_hash": "mine"}).status_code == 200
    for number in range(9):
        other.get(f"/gradio_api/file=/tmp/{number}-{number:032x}/x.zip")
    assert other.post(JOIN, json={"session_hash": "mine"}).status_code == 403


def test_health_is_said_without_anything_else(ours: Server) -> None:
    well = server(health=lambda: {"status": "ok", "version": "1"}).browser(has_cookie=False).get("/health")
    assert (well.status_code, well.json()) == (200, {"status": "ok", "version": "1"})
    assert server(health=lambda: {"status": "failing"}).browser(has_cookie=False).get("/health").status_code == 503


# who is the owner


def owner_of(server: Server) -> bool:
    return server.page.came[-1][1].is_owner


def test_the_owner_is_who_opens_the_page_at_its_machine(ours: Server) -> None:
    ours.browser(has_cookie=False).get("/")
    assert owner_of(ours)
    assert ours.strangers == []


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "studio.example.org"},
        {"x_forwarded_for": "127.0.0.1"},
        {"x_forwarded_proto": "https"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
        {"origin": "https://studio.example.org"},
    ],
    ids=str,
)
def test_whoever_comes_through_a_proxy_is_a_stranger(headers: dict[str, str]) -> None:
    proxied = server(more=("studio.example.org",))
    proxied.browser(has_cookie=False, **headers).get("/")
    assert not owner_of(proxied)
    assert proxied.strangers == [True]


@pytest.mark.parametrize(
    ("access", "bound", "is_owner"),
    [("auto", "127.0.0.1", True), ("auto", "0.0.0.0", False), ("private", "0.0.0.0", True), ("public", "::1", False)],
)
def test_the_settings_say_who_is_the_owner(access: str, bound: str, is_owner: bool) -> None:
    one = server(bound=bound, access=access)
    one.browser(has_cookie=False).get("/")
    assert owner_of(one) is is_owner


# sessions


def test_a_browser_gets_one_name_that_scripts_cannot_read(ours: Server) -> None:
    browser = ours.browser(has_cookie=False)
    said = browser.get("/").headers["set-cookie"]
    assert COOKIE.match(said)
    assert said.endswith("; Path=/; HttpOnly; SameSite=Lax")
    assert "set-cookie" not in browser.get("/").headers


def test_a_space_within_another_page_gets_one_that_is_kept_there() -> None:
    space = server(more=("a.hf.space",), framed_by=("https://huggingface.co",), has_proxy=True)
    answer = space.browser(has_cookie=False, host="a.hf.space", x_forwarded_proto="https").get("/")
    assert answer.headers["set-cookie"].endswith("; HttpOnly; Secure; SameSite=None; Partitioned")
    assert answer.headers["content-security-policy"] == "frame-ancestors 'self' https://huggingface.co"


def test_another_visitor_cannot_use_a_session(ours: Server) -> None:
    one, other = ours.browser(), ours.browser()
    nobody = ours.browser(has_cookie=False)
    assert one.post(JOIN, json={"session_hash": "mine"}).status_code == 200
    ours.calls.waiting["call-of-mine"] = "mine"
    came = len(ours.page.came)
    for thief in (other, nobody):
        for path in (JOIN, "/gradio_api/run/predict", "/gradio_api/call/visit", "/gradio_api/cancel"):
            assert thief.post(path, json={"session_hash": "mine"}).status_code == 403
            assert thief.post(path, json={"event_id": "call-of-mine", "session_hash": "theirs"}).status_code == 403
        for path in ("queue/data?session_hash=mine", "heartbeat/mine", "call/visit/mine", "call/visit/call-of-mine"):
            assert thief.get(f"/gradio_api/{path}").status_code == 403
        assert thief.get("/presence/mine").status_code == 403
    assert len(ours.page.came) == came
    assert one.get("/gradio_api/queue/data?session_hash=mine").status_code == 200
    assert one.get("/presence/mine").status_code == 200


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"session_hash": 1}', b'{"session_hash": "../x"}', b"[" * 1000])
def test_what_cannot_be_read_does_not_pass(ours: Server, body: bytes) -> None:
    assert ours.browser(has_cookie=False).post(JOIN, content=body).status_code == 400
    assert ours.page.came == []


@pytest.mark.parametrize("function", [4, -1, "3", True, 3.5, [], {}, 1 << 80], ids=str)
def test_what_is_no_function_is_not_looked_up(ours: Server, function: object) -> None:
    """Gradio would answer with an error of its own, and fill the log with it."""
    browser = ours.browser()
    for path in (JOIN, "/gradio_api/run/predict", "/gradio_api/cancel"):
        assert browser.post(path, json={"session_hash": "a", "fn_index": function}).status_code == 400
    assert browser.post(JOIN, json={"session_hash": "a", "fn_index": 3}).status_code == 200
    for path in ("run/nothing", "api/nothing/", "call/nothing", "call/v2/nothing"):
        assert browser.post(f"/gradio_api/{path}", json={"session_hash": "a"}).status_code == 400


def spelled(change: str, cookie: str) -> str:
    name, _, value = cookie.partition("=")
    return {
        "nothing": "", "no value": f"{name}=", "another name": f"studio_visitor_00000000={value[::-1]}",
        "one letter": f"{name}={value[:-1]}{'A' if value[-1] != 'A' else 'B'}", "cut": f"{name}={value[:-1]}",
        "other case": f"{name}={value.swapcase()}", "longer": f"{name}=A{value[:-1]}", "quoted": f'{name}="{value}x"',
        "fifth of five": "; ".join([*(f"studio_visitor_0000000{i}={str(i) * 32}" for i in range(4)), cookie]),
    }[change]  # fmt: skip


SPELLINGS = (
    "nothing", "no value", "another name", "one letter", "cut", "other case", "longer", "quoted", "fifth of five"
)  # fmt: skip


@pytest.mark.parametrize("change", SPELLINGS)
def test_a_cookie_that_is_nearly_anothers_opens_nothing(ours: Server, change: str) -> None:
    """It is not signed: it is 192 random bits, and believed only where it is whole."""
    victim = ours.browser(has_cookie=False)
    cookie = victim.get("/").headers["set-cookie"].partition(";")[0]
    assert len(cookie.partition("=")[2]) * 6 >= 128
    assert victim.post(JOIN, json={"session_hash": "mine"}).status_code == 200
    thief = ours.browser(has_cookie=False, cookie=spelled(change, cookie))
    assert thief.post(JOIN, json={"session_hash": "mine"}).status_code == 403
    assert thief.get("/gradio_api/queue/data?session_hash=mine").status_code == 403
    assert victim.post(JOIN, json={"session_hash": "mine"}).status_code == 200


def test_no_two_browsers_get_one_name(ours: Server) -> None:
    names = {ours.browser(has_cookie=False).get("/").headers["set-cookie"].partition(";")[0] for _ in range(200)}
    assert len({name.partition("=")[2] for name in names}) == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"session_hash": "own", "session_hash": "mine"}',
        '{"session_hash": "mine"}'.encode("utf-16"),
        '{"session_hash": "mine"}'.encode("utf-32-be"),
        b'{"session_h\\u0061sh": "mi\\u006ee"}',
        b'\xef\xbb\xbf{"session_hash": "mine"}',
    ],
    ids=["twice", "utf-16", "utf-32", "escaped", "marked"],
)
def test_a_session_that_is_spelled_otherwise_is_still_anothers(ours: Server, body: bytes) -> None:
    """By the same reader as the page's."""
    one, other = ours.browser(), ours.browser()
    assert one.post(JOIN, json={"session_hash": "mine"}).status_code == 200
    assert other.post(JOIN, content=body).status_code in (400, 403)
    assert len(ours.page.came) == 3


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/heartbeat/%6dine", "/gradio_api/heartbeat/mine/", "/gradio_api//heartbeat/mine",
        "/gradio_api/./heartbeat/mine", "/gradio_api/queue/data?session_hash=own&session_hash=mine",
        "/gradio_api/queue/data?session%5fhash=mine", "/x/gradio_api/heartbeat/mine",
        "/gradio_api/call/visit/mine?session_hash=own",
    ],
)  # fmt: skip
def test_a_session_is_anothers_however_its_path_is_spelled(ours: Server, path: str) -> None:
    one, other = ours.browser(), ours.browser()
    assert one.post(JOIN, json={"session_hash": "mine"}).status_code == 200
    assert other.get(path).status_code in (403, 404)


def test_a_call_of_no_session_is_refused_since_nobody_would_have_to_answer_for_it(ours: Server) -> None:
    browser = ours.browser(has_cookie=False)
    assert browser.post("/gradio_api/call/compress", json={"data": []}).status_code == 400
    assert browser.post("/gradio_api/call/compress", json={"data": [], "session_hash": "mine"}).status_code == 200


def test_what_came_is_what_was_read(ours: Server) -> None:
    body = json.dumps({"session_hash": "mine", "data": ["é"]}).encode()
    ours.browser().post(JOIN, content=body)
    assert ours.page.came[-1][2] == body


def test_an_export_is_fetched_by_one_visitor(public: Server) -> None:
    one, other = public.browser(), public.browser()
    path = f"/gradio_api/file=/tmp/gradio/12-{'0a' * 16}/model.gguf"
    assert one.get(path).status_code == 200
    assert other.get(path).status_code == 403
    assert one.get(path).status_code == 200


# pace


def waiting(server: Server, session: str, count: int) -> None:
    server.calls.waiting |= {f"{session}-{number}": session for number in range(count)}


def test_a_tab_a_visitor_and_an_address_have_so_many_calls_in_flight(ours: Server) -> None:
    one, other, far = ours.browser(), ours.browser(), ours.browser("203.0.113.7")
    for browser, session in ((one, "a"), (one, "b"), (other, "c"), (far, "d")):
        assert browser.post(JOIN, json={"session_hash": session}).status_code == 200
    waiting(ours, "a", 2)
    refused = one.post(JOIN, json={"session_hash": "a"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert one.post(JOIN, json={"session_hash": "b"}).status_code == 200
    waiting(ours, "b", 1)
    assert one.post(JOIN, json={"session_hash": "b"}).status_code == 429
    assert other.post(JOIN, json={"session_hash": "c"}).status_code == 200
    waiting(ours, "c", 1)
    assert other.post(JOIN, json={"session_hash": "c"}).status_code == 429
    assert far.post(JOIN, json={"session_hash": "d"}).status_code == 200
    ours.calls.waiting.clear()
    assert one.post(JOIN, json={"session_hash": "a"}).status_code == 200


def test_a_stranger_calls_and_opens_so_often(public: Server) -> None:
    one = public.browser()
    tabs = [one.post(JOIN, json={"session_hash": f"tab-{number}"}).status_code for number in range(6)]
    assert tabs == [200] * 5 + [429]
    calls = [one.post(JOIN, json={"session_hash": "tab-0"}).status_code for _ in range(16)]
    assert calls == [200] * 15 + [429]


def test_the_owner_has_no_limit_by_time(ours: Server) -> None:
    one = ours.browser()
    assert {one.post(JOIN, json={"session_hash": f"tab-{n}"}).status_code for n in range(30)} == {200}


# bodies


def form(*files: bytes, boundary: str = "XyZ") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'.encode()
        + each
        + b"\r\n"
        for each in files
    ]
    kind = {"content-type": f"multipart/form-data; xboundary=nothing; boundary={boundary}"}
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), kind


UPLOAD = "/gradio_api/upload"


def test_one_file_can_be_sent(ours: Server) -> None:
    body, kind = form(b"x" * 1000)
    assert ours.browser().post(UPLOAD, content=body, headers=kind).status_code == 200
    assert ours.page.came[-1][2] == body


def test_files_that_are_many_or_long_are_refused(ours: Server) -> None:
    browser = ours.browser()
    body, kind = form(*[b"x"] * 200)
    assert browser.post(UPLOAD, content=body, headers=kind).status_code == 413
    body, kind = form(b"x" * 100_000)
    assert browser.post(UPLOAD, content=body, headers=kind).status_code == 413
    assert browser.post(JOIN, content=b"x" * 2000).status_code == 413
    assert len(ours.page.came) == 1


def test_a_stranger_sends_so_many_in_an_hour(public: Server) -> None:
    body, kind = form(b"x")
    one, other = public.browser(), public.browser()
    answers = [
        browser.post(UPLOAD, content=body, headers=kind).status_code for browser in (one, one, one, other, other)
    ]
    assert answers == [200, 200, 429, 200, 429]


def test_a_page_has_no_sockets(ours: Server) -> None:
    from starlette.websockets import WebSocketDisconnect

    with (
        pytest.raises(WebSocketDisconnect),
        ours.browser(has_cookie=False).websocket_connect("/gradio_api/queue/join"),
    ):
        pass
