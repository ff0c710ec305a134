"""Tokens -> text, one token at a time: the work does not grow with the answer."""

from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """The text of an answer as its tokens come, without a character that is only half there yet."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._fast: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._text = ""

    def __call__(self, token: int) -> str:
        """Return the text up to and with ``token``."""
        if isinstance(self._fast, Tokenizer):
            self._text += self._stream.step(self._fast, token) or ""
            return self._text
        self._ids.append(token)
        decoded: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return decoded.rstrip("\N{REPLACEMENT CHARACTER}")
