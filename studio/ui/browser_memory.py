"""What a browser remembers of a visitor from one visit to the next, and back. Pure but for finding the kept runs.

What it says is a stranger's: names are looked up, figures checked, and a key that nobody knows opens nothing.
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio.base.text import LANGUAGES, text
from studio.export import runners
from studio.planning import hosts
from studio.session.runs import RunShelf
from studio.session.session import Session
from studio.ui import decision_updates, html
from studio.ui.hosts import host_of
from studio.ui.page import Page
from studio.ui.presence import ATTENDANCE

SHELF = RunShelf()
"""Of this process."""
MAX_KEY = 64


def remembered(session: Session) -> dict[str, Any]:
    """Return what the browser is to remember."""
    decision = session.decision
    return {
        "key": session.decision.key,
        "host": decision.host.name,
        "memory": decision.host.memory / hosts.GB,
        "bandwidth": decision.host.bandwidth / hosts.GB,
        "context": decision.context,
        "program": decision.program.name,
        "language": session.spoken,
    }


def recall(page: Page, session: Session, language: str, kept: Any) -> dict[Block, Any]:
    """Let a session begin as its browser remembers, and return what shows it; the address comes first."""
    said: Mapping[str, Any] = kept if isinstance(kept, dict) else {}
    decision, spoken = session.decision, said.get("language")
    decision.key, decision.runs = SHELF.of(str(said.get("key", ""))[:MAX_KEY])
    before = ATTENDANCE.left_by(decision.key, but=session)
    lost: dict[Block, Any] = {}
    if before is not None and before.has_let_go:
        lost = {page.presets.progress: html.notice(text("make.let_go", spoken if spoken in LANGUAGES else language))}
        before.close()
    elif before is not None:
        session.go_on_from(before)
    if "host" not in decision.addressed and said.get("host"):
        decision.host = host_of(str(said["host"]), said.get("memory"), said.get("bandwidth"))
    if "context" not in decision.addressed and said.get("context") in hosts.CONTEXTS:
        decision.context = int(said["context"])
    if "program" not in decision.addressed:
        decision.program = runners.known().get(str(said.get("program")), decision.program)
    shown: dict[Block, Any] = {
        **lost,
        page.where.host: gr.update(value=decision.host.name),
        page.where.memory: gr.update(value=decision.host.memory / hosts.GB),
        page.where.bandwidth: gr.update(value=decision.host.bandwidth / hosts.GB),
        page.where.own: gr.update(visible=decision.host.name == hosts.OWN),
        page.where.context: gr.update(value=decision.context),
        **decision_updates.program(page, session),
        page.kept: gr.update(value=remembered(session)),
        **decision_updates.runs(page, session, language),
    }
    if spoken in LANGUAGES and spoken != language:
        session.spoken = str(spoken)
        shown[page.header.language] = gr.update(value=spoken)
    return shown
