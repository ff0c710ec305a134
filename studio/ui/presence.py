"""Who is connected, as the server sees it: a page's open streams, and its own question whether it is still known.

Gradio closes a visitor's running events as soon as the tab does, but keeps what the session holds for an hour, and its
page does not open its heartbeat again after the network was gone: hence a question of our own, now and then. Knows no
components.
"""

import json
import re
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.session.attendance import Attendance
from studio.session.shared import of_this_process

ATTENDANCE = Attendance(of_this_process().pool)
"""Of this process."""
_KEY = "([A-Za-z0-9_-]{1,64})"
_HEARTBEAT = re.compile(f"/gradio_api/heartbeat/{_KEY}")
_QUESTION = re.compile(f"/presence/{_KEY}")
_STREAM = "/gradio_api/queue/data"
"""The paths as the door reads them, no more and no less: what it has not looked at is no presence."""
PRESENCE = """(said) => {
  const visit = said?.key;
  if (!visit) return;
  const root = (window.gradio_config?.root ?? location.origin).replace(/\\/$/, '');
  const prefix = window.gradio_config?.api_prefix ?? '/gradio_api';
  let heart = null, asking = false;
  const ask = async () => {
    if (asking) return;
    asking = true;
    try {
      const answer = await fetch(`${root}/presence/${visit}`, {cache: 'no-store'});
      if (answer.ok) {
        const {known, connected, gone} = await answer.json();
        if (!known || gone) return location.reload();
        if (!connected) {
          heart?.close();
          heart = new EventSource(`${root}${prefix}/heartbeat/${visit}`);
        }
      }
    } catch {}  // no network: it is asked again
    asking = false;
  };
  setInterval(ask, 15000);
  for (const name of ['online', 'pageshow']) addEventListener(name, ask);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) ask(); });
}"""
"""The page asks whether it is still known: a heartbeat that the network or sleep has broken is begun anew, and where
what it holds was let go meanwhile, the page is loaded again, which finds the model, the choices and the runs."""


class Presence:
    """ASGI: counts the streams of each visit as connections, and answers ``GET /presence/VISIT``."""

    def __init__(self, app: ASGIApp, attendance: Attendance) -> None:
        self._app, self._attendance = app, attendance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return await self._app(scope, receive, send)
        asked = _QUESTION.fullmatch(_path(scope))
        if asked is not None:
            return await self._answer(asked[1], scope, send)
        visit = _stream_of(scope)
        if visit is None:
            return await self._app(scope, receive, send)
        try:
            with self._attendance.connected(visit):
                await self._app(scope, receive, send)
        finally:  # else Gradio lets the session go an hour after it began, whoever came back meanwhile
            state = scope["app"].state_holder.session_data.get(visit)
            if state is not None:
                state.is_closed = False

    async def _answer(self, visit: str, scope: Scope, send: Send) -> None:
        found = self._attendance.see(visit)
        held = getattr(scope.get("app"), "state_holder", None)
        is_held = held is None or visit in held.session_data  # Gradio keeps so many states and no more
        said = {"known": found.is_known and is_held, "connected": found.is_connected, "gone": found.is_let_go}
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})


def _path(scope: Scope) -> str:
    """Return the path within the application, wherever a proxy has put it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path") or "") or "/"


def _stream_of(scope: Scope) -> str | None:
    """Return whose stream is asked for, None where it is none."""
    heart = _HEARTBEAT.fullmatch(_path(scope))
    if heart is not None:
        return heart[1]
    if _path(scope) != _STREAM:
        return None
    said = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
    return said if re.fullmatch(_KEY, said) else None


def attend(blocks: gr.Blocks, attendance: Attendance) -> None:
    """Let Gradio hold a visit no longer than the attendance does, and watch from now on."""

    def forgotten(visit: str) -> None:
        held: Any = blocks.state_holder
        held.delete_state(visit)
        with held.lock:
            held.session_data.pop(visit, None)
            held.time_last_used.pop(visit, None)

    attendance.forgotten = forgotten
    attendance.watch()
