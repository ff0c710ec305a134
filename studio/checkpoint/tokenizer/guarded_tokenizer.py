"""A model's tokenizer as the studio sees it: the one that reads the files is in a process of its own.

Knows neither models nor what the tokens are for. Files of strangers can loop, fill the memory or end a process: it is
that process alone, which is started again for whoever asks next.
"""

import itertools
import json
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from studio.base import errors
from studio.base.errors import CheckpointError, PromptError, UserError
from studio.base.units import format_bytes
from studio.base.workers import no_process
from studio.checkpoint.tokenizer.files import FILES, vocabulary_file
from studio.checkpoint.tokenizer.guarded_process import MEMORY, EndedError, Guarded, Went
from studio.checkpoint.tokenizer.pieces import Piece
from studio.checkpoint.tokenizer.process import STEP, Request
from studio.checkpoint.tokenizer.template import Message

SECONDS = 2.0
"""Of processor time that a request may take, but for what follows from the size of what is read."""
SECONDS_A_MEGABYTE = 3.0
"""Of text: a tenth of the speed of slow ones."""
LOAD_SECONDS_A_MEGABYTE = 0.1
"""Of files: three times what the largest take."""
REASON = 160
"""Characters of a library's own words."""
REMEMBERED_SECONDS = 10.0
"""How long a template that had to be stopped is not tried again: the other column need not wait for it."""

LOT = 200_000
"""Characters tokenized at once: the library takes hundreds of bytes for each token."""
MOST = 1 << 24
"""Bytes of any answer, and four for each that was sent: no text has more tokens than bytes."""
MOST_A_STEP, MOST_A_TOKEN = 1 << 16, 1 << 10
"""Characters that an answer may have, and for each of its tokens: real ones stand for far fewer."""

_STOPPED: dict[str, float] = {}
"""When a template, by its digest, was last stopped."""


class GuardedTokenizer:
    """A folder's tokenizer. Any number of threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError when there is none that can be read."""
        self._folder = folder
        self._file = vocabulary_file(folder)
        self._lock = threading.RLock()
        self._process: Guarded | None = None
        self._streams = itertools.count()
        facts = json.loads(self._ask(Request.LOAD, b""))
        self._size: int = facts["size"]
        self.special_ids: frozenset[int] = frozenset(facts["special_ids"])
        """Tokens that stand for no text."""
        self.eos_token_id: int | None = facts["eos_token_id"]
        self._template: str = facts["template"] or ""
        self._template_file: str = facts["template_file"] or self._file

    def __len__(self) -> int:
        """Return how many tokens it knows."""
        return self._size

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset() if self.eos_token_id is None else frozenset([self.eos_token_id])

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer sets round it. Raises CheckpointError."""
        return self._encoded([Piece(text, has_frame=True)])

    def continued(self, text: str) -> list[int]:
        """Return the tokens of a text that goes on after others, with nothing set round it. Raises CheckpointError."""
        return self._encoded([Piece(text)])

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation that an answer is to follow.

        Raises PromptError for a template that fails, CheckpointError for a tokenizer that does.
        """
        if time.monotonic() - _STOPPED.get(self._template, -REMEMBERED_SECONDS) < REMEMBERED_SECONDS:
            raise PromptError("template_endless", file=self._template_file, seconds=f"{SECONDS:.0f}")
        pieces = self._pieces(messages)
        ids = self._encoded(pieces)
        if not ids and any(piece.text for piece in pieces):  # the template did its part
            raise self._failed("0 tokens")
        if not ids:
            raise PromptError("template_failed", file=self._template_file, reason="0 tokens")
        return ids

    def answered_ids(self, messages: Sequence[Message], answers: Sequence[str]) -> list[tuple[list[int], int]]:
        """Return the tokens of a conversation with each of its answers, and where the answer's own begin.

        A prompt and what follows it are tokenized as one text: some tokenizers set a space before a text, which a text
        that goes on has not. Tokens that span the seam are the answer's. Raises as :meth:`prompt_ids` does.
        """
        prompt = self.prompt_ids(messages)
        *before, last = self._pieces(messages)
        lead = self._ask(Request.SEAM, _as_body(messages)).decode()
        found = []
        for answer in answers:
            ids = self._encoded([*before, last._replace(text=f"{last.text}{lead}{well_formed(answer)}")])
            same = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
            found.append((ids, max(1, min(same, len(ids) - 1))))
        return found

    def _pieces(self, messages: Sequence[Message]) -> list[Piece]:
        return [Piece(*each) for each in json.loads(self._ask(Request.PIECES, _as_body(messages)))]

    def check(self, ids: Sequence[int], words: int) -> None:
        """Raise CheckpointError for tokens that a model which knows ``words`` of them does not know."""
        if ids and (most := max(ids)) >= words:
            raise CheckpointError(
                "tokenizer_beyond", model=self._folder.name, file=self._file, token=most, words=f"{words:,}"
            )

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of tokens. Raises CheckpointError."""
        body = bytes([skip_special_tokens]) + array("I", ids).tobytes()
        return self._ask(Request.DECODE, body, SECONDS + len(ids) / 1e4).decode()

    def new_stream(self) -> int:
        """Return the number of an answer that is to grow token by token."""
        return next(self._streams)

    def next_text(self, stream: int, ids: Sequence[int], text: str) -> str:
        """Return the text of an answer's tokens ``ids``, of which all but the last have the text ``text``.

        Raises CheckpointError.
        """
        most = MOST_A_STEP + MOST_A_TOKEN * len(ids)
        went, found = self._asked(Request.STEP, STEP.pack(stream, ids[-1]), SECONDS, most)
        if went is Went.UNKNOWN:
            body = array("I", [stream, *ids]).tobytes()
            _, found = self._asked(Request.REPLAY, body, SECONDS + len(ids) / 1e4, most)
        whole = found[1:].decode() if found[0] else text + found[1:].decode()
        if len(whole) > most:
            raise self._failed(f"{len(ids)} tokens, {len(whole):,} characters")
        return whole

    def close(self) -> None:
        """End the process, which also ends when this is collected; the next request starts another."""
        with self._lock:
            if self._process is not None:
                self._process.end()
            self._process = None

    def _encoded(self, made: Sequence[Piece]) -> list[int]:
        ids: list[int] = []
        for lot in _lots(made):
            seconds = SECONDS + SECONDS_A_MEGABYTE * sum(len(piece.text) for piece in lot) / 1e6
            ids += array("I", self._ask(Request.ENCODE, json.dumps(lot).encode(), seconds))
        return ids

    def _ask(self, kind: Request, body: bytes, seconds: float | None = None) -> bytes:
        return self._asked(kind, body, SECONDS if seconds is None else seconds, MOST + 4 * len(body))[1]

    def _asked(self, kind: Request, body: bytes, seconds: float, most: int) -> tuple[Went, bytes]:
        """Return how a request went, and its answer. Raises CheckpointError or PromptError."""
        with self._lock:
            if self._process is None:
                self._start()
            if kind is Request.LOAD:
                return Went.WELL, self._loaded
            return self._heard(kind, body, seconds, most)

    def _start(self) -> None:
        try:
            self._process = Guarded("studio.checkpoint.tokenizer.process:main", str(self._folder.absolute()))
        except OSError as error:
            raise no_process(error) from error
        size = sum((self._folder / name).stat().st_size for name in FILES if (self._folder / name).is_file())
        try:
            _, self._loaded = self._heard(Request.LOAD, b"", SECONDS + LOAD_SECONDS_A_MEGABYTE * size / 1e6, MOST)
        except BaseException:
            self.close()
            raise

    def _heard(self, kind: Request, body: bytes, seconds: float, most: int) -> tuple[Went, bytes]:
        assert self._process is not None
        try:
            went, found = self._process.ask(kind, body, seconds, most)
        except EndedError as ended:
            self._process = None
            self._explain(kind, ended, seconds)
        except BaseException:
            self._process = None
            raise
        if went is Went.REFUSED:
            raise _told(json.loads(found))
        if went is Went.WRONG:
            raise self._failed(found.decode())
        return went, found

    def _explain(self, kind: Request, ended: EndedError, seconds: float) -> NoReturn:
        """Raise what the user is told of a child's end."""
        if ended.error is not None:
            raise ended.error from ended
        if kind in (Request.PIECES, Request.SEAM):
            if ended.why == "time":
                _STOPPED.clear()
                _STOPPED[self._template] = time.monotonic()
                raise PromptError("template_endless", file=self._template_file, seconds=f"{seconds:.0f}") from ended
            if ended.why == "memory":
                raise PromptError("template_memory", file=self._template_file, limit=format_bytes(MEMORY)) from ended
            raise PromptError("template_failed", file=self._template_file, reason=ended.reason) from ended
        model, file = self._folder.name, self._file
        if ended.why == "time":
            raise CheckpointError("tokenizer_slow", model=model, file=file, seconds=f"{seconds:.0f}") from ended
        if ended.why == "memory":
            raise CheckpointError("tokenizer_memory", model=model, file=file, limit=format_bytes(MEMORY)) from ended
        raise self._failed(ended.reason) from ended

    def _failed(self, reason: str) -> CheckpointError:
        return CheckpointError("tokenizer_failed", model=self._folder.name, file=self._file, reason=reason[:REASON])


def load_tokenizer(folder: Path) -> GuardedTokenizer:
    """Return the tokenizer of a model's folder. Raises CheckpointError when there is none that can be read."""
    return GuardedTokenizer(folder)


def well_formed(text: str) -> str:
    """Return a text whose halves of characters that have no other half are replaced, as browsers do."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _as_body(messages: Sequence[Message]) -> bytes:
    return json.dumps([{**message, "content": well_formed(message["content"])} for message in messages]).encode()


def _lots(made: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in lots of at most ``LOT`` characters; longer ones are cut between lines, or words."""
    lot: list[Piece] = []
    for piece in made:
        left, has_frame = well_formed(piece.text), piece.has_frame
        while True:
            end = len(left)
            if end > LOT:
                end = max(left.rfind("\n", 0, LOT) + 1, left.rfind(" ", LOT // 2, LOT)) or LOT
            if lot and sum(len(each.text) for each in lot) + end > LOT:
                yield lot
                lot = []
            lot.append(Piece(left[:end], piece.is_plain, has_frame))
            left, has_frame = left[end:], False
            if not left:
                break
    yield lot


def _told(said: dict[str, Any]) -> UserError:
    kind: type[UserError] = getattr(errors, said["error"])
    return kind(said["key"], **said["values"])
