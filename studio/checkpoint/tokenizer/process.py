"""What a tokenizer's own process does: it reads a folder's files, and answers for what stands in them.

Knows no models, and nothing of who asks. A stranger's tokenizer is a program of a kind: it can loop, fill the memory,
or end the process.
"""

import hashlib
import json
import os
import socket
import struct
from array import array
from collections import OrderedDict
from enum import IntEnum
from pathlib import Path
from typing import Any

from studio.base.errors import UserError
from studio.checkpoint.tokenizer.files import chat_template, read_tokenizer
from studio.checkpoint.tokenizer.guarded_process import Went, serve
from studio.checkpoint.tokenizer.pieces import Piece, pieces, seam, special_names

STEP = struct.Struct("<II")
"""A stream's number and a token's."""
STREAMS = 256
"""Answers whose state is kept; of one that was forgotten the tokens are sent again."""
HALF = "\N{REPLACEMENT CHARACTER}"
"""What stands at a text's end while a character's last bytes are to come."""


class Request(IntEnum):
    """What is wanted."""

    LOAD = 0
    PIECES = 1
    """Of messages, in JSON; the answer is JSON."""
    ENCODE = 2
    """Pieces, in JSON; the answer is ids, 32 bits each."""
    DECODE = 3
    """Ids behind a byte that is 1 where special tokens are left out; the answer is text."""
    STEP = 4
    """A stream's next token: the answer is a byte that is 1 where it is the whole text, and the text."""
    REPLAY = 5
    """A stream's number and all its tokens; answered as the last one's step."""
    SEAM = 6
    """Of messages, in JSON; the answer is the text between their prompt and an answer."""


def main(place: socket.socket, folder: str) -> None:
    """Answer until the server's side is closed."""
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1"
    )
    serve(place, _Answering(Path(folder)))


class _Answering:
    """Each kind of request, answered."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._streams: OrderedDict[int, _Stream] = OrderedDict()
        self._tokenizer: Any = None
        self._template: tuple[str, str] | None = None
        self._special: list[str] = []
        self._tokens: dict[str, str] = {}

    def __call__(self, kind: int, body: bytes) -> tuple[Went, bytes]:
        try:
            if kind == Request.STEP:
                number, token = STEP.unpack(body)
                stream = self._streams.get(number)
                return (Went.UNKNOWN, b"") if stream is None else (Went.WELL, stream.step(token))
            return Went.WELL, _KINDS[Request(kind)](self, body)
        except UserError as error:
            said = {"error": type(error).__name__, "key": error.key, "values": error.values}
            return Went.REFUSED, json.dumps(said).encode()

    def _load(self, _: bytes) -> bytes:
        tokenizer = self._tokenizer = read_tokenizer(self._folder)
        self._template = chat_template(self._folder, tokenizer)
        self._special = special_names(tokenizer)
        named = tokenizer.special_tokens_map.items()
        self._tokens = {name: value for name, value in named if isinstance(value, str)}
        end = tokenizer.eos_token_id
        facts = {
            "size": len(tokenizer),
            "special_ids": [token for token in tokenizer.all_special_ids if isinstance(token, int)],
            "eos_token_id": end if isinstance(end, int) else None,
            "template": None if self._template is None else digest(self._template[0]),
            "template_file": None if self._template is None else self._template[1],
        }
        return json.dumps(facts).encode()

    def _pieces(self, body: bytes) -> bytes:
        return json.dumps(pieces(json.loads(body), self._template, self._special, self._tokens)).encode()

    def _seam(self, body: bytes) -> bytes:
        return seam(json.loads(body), self._template, self._special, self._tokens).encode(errors="replace")

    def _encode(self, body: bytes) -> bytes:
        ids = array("I")
        for piece in (Piece(*each) for each in json.loads(body)):
            found = self._tokenizer(
                piece.text, add_special_tokens=piece.has_frame, split_special_tokens=piece.is_plain, verbose=False
            )
            ids.extend(found["input_ids"])
        return ids.tobytes()

    def _decode(self, body: bytes) -> bytes:
        text = self._tokenizer.decode(array("I", body[1:]).tolist(), skip_special_tokens=body[0] == 1)
        return str(text).encode(errors="replace")

    def _replay(self, body: bytes) -> bytes:
        number, *tokens = array("I", body)
        stream = self._streams[number] = _Stream(self._tokenizer)
        while len(self._streams) > STREAMS:
            self._streams.popitem(last=False)
        for token in tokens[:-1]:
            stream.step(token)
        return stream.step(tokens[-1])


def digest(template: str) -> str:
    """Return a name for a template's text."""
    return hashlib.sha256(template.encode(errors="replace")).hexdigest()


_KINDS = {
    Request.LOAD: _Answering._load,
    Request.PIECES: _Answering._pieces,
    Request.SEAM: _Answering._seam,
    Request.ENCODE: _Answering._encode,
    Request.DECODE: _Answering._decode,
    Request.REPLAY: _Answering._replay,
}


class _Stream:
    """An answer as it grows."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer
        from tokenizers.decoders import DecodeStream

        self._tokenizer, self._new = tokenizer, DecodeStream
        fast = getattr(tokenizer, "backend_tokenizer", None)
        self._fast: Any = fast if isinstance(fast, Tokenizer) else None
        self._ids: list[int] = []
        self._stream: Any = None if self._fast is None else DecodeStream(skip_special_tokens=True)

    def step(self, token: int) -> bytes:
        """Return what a step is answered with."""
        self._ids.append(token)
        if self._stream is not None:
            try:
                return b"\0" + (self._stream.step(self._fast, token) or "").encode()
            except Exception:  # bytes that are no text changed what stood before them; the stream gives up on that
                self._stream = None
        decode = self._tokenizer.decode if self._fast is None else self._fast.decode
        text: str = decode(self._ids, skip_special_tokens=True)
        if self._fast is not None and not text.endswith(HALF):
            self._stream = self._new(ids=self._ids, skip_special_tokens=True)
        return b"\1" + text.rstrip(HALF).encode(errors="replace")
