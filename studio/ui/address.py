"""The choices in the page's address, and back: a link that is shared leads to the same plan. Pure.

What an address says is a stranger's: every word is checked where choices are, and what is none is left out.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from studio.base.errors import UserError
from studio.checkpoint import open_model
from studio.export import runners
from studio.planning import hosts
from studio.planning.choice import OPTIONS, Choice
from studio.planning.presets import CUSTOM, DEFAULT, PRESETS
from studio.session.session import Session

MAX_WORD = 300
"""Characters of a value."""
_TRUE = "true"


def address(session: Session) -> dict[str, str]:
    """Return what the address says: what is not as it is anyway."""
    decision = session.decision
    said = {"preset": decision.preset, "program": decision.program.name, "context": str(decision.context)}
    usual = {"preset": DEFAULT, "program": runners.DEFAULT, "context": str(hosts.DEFAULT_CONTEXT)}
    said |= {"host": decision.host.name} if decision.host.name in hosts.HOSTS else {}
    usual["host"] = hosts.DEFAULT
    if session.checkpoint is not None:
        said["model"], usual["model"] = session.checkpoint.name, open_model.default_model()
    found = {name: word for name, word in said.items() if word != usual[name]}
    return found | (_words(session.choice) if decision.preset == CUSTOM else {})


def _words(choice: Choice) -> dict[str, str]:
    """Return a choice by its fields, without those that are as they are unsaid."""
    said = {name: word for name, word in choice.words().items() if _is_told(name, word)}
    return {name: _written(word) for name, word in said.items()}


def _is_told(name: str, word: object) -> bool:
    """Return whether a word has to be said: one that is not the default, or that follows from others where unsaid."""
    return name == "mode" or word != OPTIONS[name].default_word or OPTIONS[name].unsaid is not None


def _written(word: object) -> str:
    if isinstance(word, bool):
        return _TRUE
    return ";".join(map(str, word)) if isinstance(word, list | tuple) else str(word)


def follow(session: Session, query: Mapping[str, str]) -> None:
    """Let a new session begin as an address says; a page without one begins with the usual preset."""
    said = {name: str(word)[:MAX_WORD] for name, word in query.items()}
    decision = session.decision
    decision.addressed = frozenset(said)
    decision.host = hosts.HOSTS.get(said.get("host", ""), decision.host)
    decision.program = runners.known().get(said.get("program", ""), decision.program)
    with suppress(ValueError):
        wanted = int(said.get("context", ""))
        decision.context = wanted if wanted in hosts.CONTEXTS else decision.context
    choice = _choice(said)
    decision.picked = CUSTOM if choice is not None else said.get("preset", DEFAULT)
    if decision.picked not in PRESETS:
        decision.picked = CUSTOM
    decision.asked = choice or (Choice() if decision.picked == CUSTOM else None)


def _choice(said: Mapping[str, str]) -> Choice | None:
    """Return the choice of an address that names a mode, None of any other, or one that is wrong."""
    if "mode" not in said:
        return None
    words: dict[str, Any] = {name: _read(name, said[name]) for name in OPTIONS if name in said}
    try:
        return Choice.of(**words)
    except (UserError, ValueError, TypeError):
        return None


def _read(name: str, word: str) -> object:
    option = OPTIONS[name]
    if isinstance(option.default_word, bool):
        return word == _TRUE
    return [each for each in word.split(";") if each] if option.is_repeated else word
