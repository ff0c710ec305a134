"""What every request passes before Gradio sees it. Knows no function and no component of the page.

whose page is meant? ........ names         may it come this often? .... pace
who asks? ................... visitors      is it short enough? ........ body
is that session theirs? ..... visitors      a sentence if not .......... refusal
"""

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from python_multipart.multipart import parse_options_header

from studio.base.limits import Limits
from studio.session.visitor import Visitor
from studio.ui.door import body as bodies
from studio.ui.door.asked import Asked
from studio.ui.door.names import Names, is_loopback, name_of
from studio.ui.door.pace import Pace
from studio.ui.door.refusal import Refused, Send
from studio.ui.door.visitors import Visitors, Who

App = Callable[[Any, bodies.Receive, Send], Awaitable[None]]
VISITOR = "studio.visitor"
"""Where a request says, to the page's functions, whose it is."""
ROUTES = re.compile(
    r"(queue/(join|data)|heartbeat/[^/]+|(run|api)/[^/]+/?|call(/v2)?/[^/]+(/[^/]*)?|cancel|reset/?|upload|upload_progress"
    r"|file[=/].+|startup-events|info/?|theme\.css|queue/status)"
)
"""What the page needs of what Gradio offers under its own prefix; the rest is not there."""
CLOSED = re.compile(r"/(monitoring|runs|docs|redoc|openapi\.json|login|logout|dev)(/.*)?")
"""What Gradio and FastAPI offer beside it."""
LOGIN = re.compile(r"/login/(huggingface|callback)|/logout")
"""What Gradio offers to sign in by, where visitors can."""
SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")
EXPORT = re.compile(r"/(\d{1,9}-[0-9a-f]{32})/")
"""The folder of an export, in the path of its file: see ``base/workspace.py``."""
PRESENCE = re.compile(r"/presence/([^/]+)$")
"""Where a page asks whether its session is still known: see ``ui/presence.py``."""
JOINS = re.compile(r"queue/join|(run|api|call)/.*")
NAMED = re.compile(r"(?:run|api|call(?:/v2)?)/([^/]+)/?")
OVERHEAD = 65_536
"""Bytes of an upload beside its file: the names of its parts."""
PAGE_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
READS = ("GET", "HEAD", "OPTIONS")


class Calls(Protocol):
    """The calls of the page that wait or run."""

    def in_flight(self) -> Mapping[str, int]:
        """Return how many each session has."""

    def session_of(self, call: str) -> str | None:
        """Return whose a call is, None for one that is not known."""

    def knows(self, function: object) -> bool:
        """Return whether a number, or a name, is that of a function of the page."""


@dataclass(frozen=True)
class House:
    """What the door stands before."""

    names: Names
    limits: Limits
    calls: Calls
    access: str = "auto"
    """Who counts as the owner: ``auto``, whoever opens the page at its machine; ``private``, all; ``public``, nobody.
    """
    has_proxy: bool = False
    """Whether a proxy of the owner's stands before the page, and says the truth about addresses."""
    has_login: bool = False
    """Whether visitors can sign in with the Hub."""
    framed_by: tuple[str, ...] = ()
    """Origins of pages that may show this one within them."""
    health: Callable[[], Mapping[str, object]] = dict
    on_refused: Callable[[str], None] = lambda _: None
    """Called with the reason of each refusal."""
    on_stranger: Callable[[], None] = lambda: None
    """Called when somebody comes who is not the owner."""


class Door:
    """An ASGI application before another one."""

    def __init__(self, app: App, house: House) -> None:
        self._app, self._house = app, house
        self._visitors = Visitors()
        self._pace = Pace(house.limits, self._visitors, house.calls.in_flight)

    async def __call__(self, scope: MutableMapping[str, Any], receive: bodies.Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        asked = Asked.of(scope)
        with ExitStack() as held:
            try:
                self._check_names(asked)
                if asked.path == "/health":
                    await _say(self._house.health(), send)
                    return
                who = self._who(asked)
                if not who.visitor.is_owner:
                    self._house.on_stranger()
                held.enter_context(self._pace.connected(who))
                if asked.method not in READS:
                    receive = bodies.again(await self._body(asked, scope, receive, who, held), receive)
                elif asked.api is not None:
                    self._check_reading(asked.api, scope, who)
                elif (question := PRESENCE.search(asked.path)) is not None:
                    self._check_session(question[1], who)
                scope[VISITOR] = who.visitor
            except Refused as refused:
                self._house.on_refused(refused.key)
                await refused.answer(asked, send)
                return
            except bodies.Gone:
                return
            await self._app(scope, receive, self._sender(asked, who, send))

    def _check_names(self, asked: Asked) -> None:
        """Raise Refused for a name that is not ours, the script of another page, and what the page does not need."""
        names, host = self._house.names, asked.header("host")
        if not names.is_known(name_of(host)):
            raise Refused(421, "host", host=host)
        for origin in asked.headers.get("origin", ()):
            if not names.is_own_origin(origin, host):
                raise Refused(403, "origin", origin=origin)
        if asked.is_from_another_page:
            raise Refused(403, "origin", origin=asked.header("referer"))
        is_login = self._house.has_login and LOGIN.fullmatch(asked.path)
        if (CLOSED.fullmatch(asked.path) and not is_login) or (
            asked.api is not None and not ROUTES.fullmatch(asked.api)
        ):
            raise Refused(404, "closed")

    def _who(self, asked: Asked) -> Who:
        address = asked.address(self._house.has_proxy)
        return self._visitors.who(asked.cookies, address, self._is_owner(asked))

    def _is_owner(self, asked: Asked) -> bool:
        if self._house.access != "auto":
            return self._house.access == "private"
        said = (asked.header("host"), *(origin.partition("//")[2] for origin in asked.headers.get("origin", ())))
        is_here = is_loopback(asked.peer) and all(is_loopback(name_of(each)) for each in said)
        return is_here and not self._house.names.is_open and not asked.is_forwarded

    async def _body(
        self, asked: Asked, scope: Mapping[str, Any], receive: bodies.Receive, who: Who, held: ExitStack
    ) -> bytes:
        """Read what a request brings, and return it if it may pass. Raises Refused, or Gone."""
        limits, is_upload = self._house.limits, asked.api == "upload"
        if is_upload:
            self._pace.uploaded(who)
        most = limits.upload_bytes * limits.upload_files + OVERHEAD if is_upload else limits.body_bytes
        said = asked.header("content-length")
        if said.isdecimal() and int(said[:20]) > most:
            raise Refused(413, "too_long", most=most)
        try:
            with self._pace.sending(who) as came:
                body = await bodies.read(receive, most, limits.body_seconds, came)
        except bodies.TooLong:
            raise Refused(413, "too_long", most=most) from None
        except bodies.TooSlow:
            raise Refused(408, "too_slow") from None
        if is_upload:
            if _parts(asked.header("content-type"), body) > limits.upload_files:
                raise Refused(413, "too_many_files", most=limits.upload_files)
        elif asked.api is not None:
            self._check_call(asked.api, body, who, held)
        return body

    def _check_call(self, api: str, body: bytes, who: Who, held: ExitStack) -> None:
        """Raise Refused for what names another's session or call, or comes too often."""
        try:
            said = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise Refused(400, "garbled") from None
        if not isinstance(said, dict):
            raise Refused(400, "garbled")
        session = said.get("session_hash")
        if session is not None:
            self._check_session(session, who)
        function, named = said.get("fn_index"), NAMED.fullmatch(api)
        if function is None and named is not None:
            function = named[1]
        if function is not None and not self._house.calls.knows(function):
            raise Refused(400, "garbled")  # Gradio would look it up, and fill the log
        call = said.get("event_id")
        if isinstance(call, str):
            self._check_call_of(call, who)
        if session is None and api.startswith("call/"):
            raise Refused(400, "garbled")  # Gradio would think of a session for it, which is nobody's
        if JOINS.fullmatch(api):
            held.enter_context(self._pace.called(who, session or ""))

    def _check_reading(self, api: str, scope: Mapping[str, Any], who: Who) -> None:
        """Raise Refused for listening to another's session, or fetching another's file."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        for session in query.get("session_hash", ()):
            self._check_session(session, who)
        first, _, rest = api.partition("/")
        if first == "heartbeat":
            self._check_session(rest, who)
        if first == "call":  # Gradio takes what is no call for a session
            last = rest.strip("/").rpartition("/")[2]
            self._check_session(last, who)
            self._check_call_of(last, who)
        export = EXPORT.search(api) if api.startswith("file") else None
        if export and not who.visitor.is_owner and not self._visitors.may_fetch(export[1], who):
            raise Refused(403, "foreign")

    def _check_call_of(self, call: str, who: Who) -> None:
        session = self._house.calls.session_of(call)
        if session is not None:
            self._check_session(session, who)

    def _check_session(self, session: object, who: Who) -> None:
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            raise Refused(400, "garbled")
        if self._visitors.is_new(session):
            self._pace.opened(who)
        if not self._visitors.may_use(session, who):
            raise Refused(403, "foreign")

    def _sender(self, asked: Asked, who: Who, send: Send) -> Send:
        """Return what sends an answer, with a name for the browser where it is the page and it has none."""
        if asked.api is not None or asked.method != "GET":
            return send

        async def named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and _is_page(message["headers"]):
                frames = " ".join(("'self'", *self._house.framed_by))
                added = {"content-security-policy": f"frame-ancestors {frames}", **PAGE_HEADERS}
                if not who.has_cookie:
                    added["set-cookie"] = self._cookie(asked)
                pairs = ((name.encode(), value.encode()) for name, value in added.items())
                message["headers"] = [*message["headers"], *pairs]
            await send(message)

        return named

    def _cookie(self, asked: Asked) -> str:
        """Return a new name for a browser, which no script can read and no other site's page brings with it.

        Its own name differs each time: two tabs that are opened at once get two, and both stay.
        """
        is_https = asked.is_https or asked.header("x-forwarded-proto") == "https"
        kind = "; Secure" if is_https else ""
        # Within another site's page, as on a Space, browsers keep only what says that it is meant so.
        kind += "; SameSite=None; Partitioned" if is_https and self._house.framed_by else "; SameSite=Lax"
        return f"studio_visitor_{secrets.token_hex(4)}={secrets.token_urlsafe(24)}; Path=/; HttpOnly{kind}"


def _is_page(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in headers)


def _parts(kind: str, body: bytes) -> int:
    """Return how many parts a form has; 0 where it names nothing that parts them, and Gradio refuses it."""
    boundary = parse_options_header(kind)[1].get(b"boundary")  # as Gradio reads it: another reader may find another
    return max(0, body.count(b"--" + boundary) - 1) if boundary else 0


async def _say(said: Mapping[str, object], send: Send) -> None:
    body = json.dumps(said).encode()
    kind = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    status = 200 if said.get("status", "ok") == "ok" else 503
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": body})


def visitor_of(request: Any) -> Visitor:
    """Return whose a request of Gradio's is. Without a door before the page all are strangers."""
    scope = getattr(request.request, "scope", None) or {}
    found = scope.get(VISITOR)
    return found if isinstance(found, Visitor) else Visitor(is_owner=False)
