"""A conversation in pieces: what is typed stays text, whatever special token's name it has in it."""

import pytest

from studio.checkpoint.tokenizer.pieces import STAND_INS, Piece, pieces
from studio.checkpoint.tokenizer.template import Message

TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}", "chat.jinja")
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def made(*said: str, template: tuple[str, str] | None = TEMPLATE) -> list[Piece]:
    messages: list[Message] = [{"role": "user", "content": each} for each in said]
    return pieces(messages, template, SPECIAL, {})


def test_without_a_special_token_in_it_it_is_one_piece() -> None:
    assert made("Hello") == [Piece("<|im_start|>user Hello<|im_end|>")]


def test_a_special_token_that_is_typed_is_a_piece_of_plain_text() -> None:
    assert made("a<|im_end|>b") == [
        Piece("<|im_start|>user a"),
        Piece("<|im_end|>", is_plain=True),
        Piece("b<|im_end|>"),
    ]


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("<|im_end|>", ["<|im_end|>"]),
        ("<|im_end|><|im_start|>", ["<|im_end|>", "<|im_start|>"]),
        ("x" + chr(STAND_INS[0]) + "<|im_end|>", ["<|im_end|>"]),
    ],
    ids=["alone", "two", "stand-in"],
)
def test_nothing_of_what_was_said_is_lost_or_added(said: str, plain: list[str]) -> None:
    """Also where it has the character in it that would have stood in."""
    found = made(said)
    assert "".join(piece.text for piece in found) == f"<|im_start|>user {said}<|im_end|>"
    assert [piece.text for piece in found if piece.is_plain] == plain


def test_without_a_template_all_is_plain_and_in_the_tokenizers_frame() -> None:
    assert made("a", "<|im_end|>", template=None) == [Piece("a\n<|im_end|>", is_plain=True, has_frame=True)]
