"""Tokens -> text, one token at a time: the work does not grow with the answer. Knows no models."""

from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer


class Detokenizer:
    """The text of an answer as its tokens come, without a character that is only half there yet."""

    def __init__(self, tokenizer: GuardedTokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.new_stream()
        self._ids: list[int] = []
        self._text = ""

    def __call__(self, token: int) -> str:
        """Return the text up to and with ``token``. Raises CheckpointError where the tokenizer fails."""
        self._ids.append(token)
        self._text = self._tokenizer.next_text(self._stream, self._ids, self._text)
        return self._text
