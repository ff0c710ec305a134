"""Chat as a visitor's job: both columns answer, each says why it cannot, and a conversation goes on."""

import time
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import PromptError
from studio.chat import answer as chat_module
from studio.chat.answers import Answers
from studio.chat.model_pool import Pool
from studio.chat.prompt import prompt_ids
from studio.checkpoint.tokenizer.guarded_process import PATIENCE
from studio.checkpoint.tokenizer.guarded_tokenizer import SECONDS
from studio.runtime.model import load_tokenizer
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from tests.conftest import save_tiny_model
from tests.steps import finish
from tests.visits import PACKED, QUESTION, SHORT, TinyModel, ask, errors, files, until_answers


def with_template(model: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_the_original_answers_alone_before_there_is_a_copy(opened: Session) -> None:
    answers = ask(opened)
    assert len(answers.replies) == 1
    assert answers.replies[0].tokens == SHORT.max_new_tokens


@pytest.mark.parametrize("prompt", ["", " \n\t "], ids=["empty", "blank"])
def test_a_prompt_with_nothing_in_it_is_refused(talking: Session, prompt: str) -> None:
    with pytest.raises(PromptError) as caught:
        ask(talking, prompt)
    assert caught.value.key == "empty_prompt"
    assert talking.conversation.columns == ([], [])


def test_a_prompt_of_a_book_is_refused_before_it_is_read(talking: Session) -> None:
    with pytest.raises(PromptError) as caught:
        ask(talking, "x" * 100_001)
    assert caught.value.key == "prompt_too_many_characters"


def test_a_prompt_longer_than_the_context_is_refused_and_a_shorter_one_answered(
    session: Session, tmp_path: Path
) -> None:
    save_tiny_model("llama", tmp_path / "short", max_position_embeddings=64)
    finish(session.open(str(tmp_path / "short")))
    finish(session.compress())
    answers = ask(session, "one " * 100)
    assert errors(answers) == ["prompt_too_long"] * 2
    assert answers.replies[0].error is not None
    assert answers.replies[0].error.values["context"] == 64
    assert int(str(answers.replies[0].error.values["tokens"])) > 100
    assert session.conversation.columns == ([], [])
    assert errors(ask(session, "one")) == [None, None]


def test_an_answer_ends_where_the_context_does(session: Session, tmp_path: Path) -> None:
    save_tiny_model("llama", tmp_path / "short", max_position_embeddings=64, eos_token_id=None)
    finish(session.open(str(tmp_path / "short")))
    [reply] = ask(session, "one", Sampling(max_new_tokens=1000)).replies
    assert reply.prompt_tokens + reply.tokens == 64
    assert reply.ended == "length"


def test_a_template_without_end_is_stopped_and_the_next_prompt_answered(
    session: Session, model: Path, tiny_model: TinyModel
) -> None:
    """Its time is waited for once, not once a column; what is beyond it starts the process that renders again."""
    good = tiny_model("llama")
    finish(session.open(str(good)))
    ask(session)  # what processes come from is up, transformers imported
    with_template(model, ENDLESS)
    finish(session.open(str(model)))
    finish(session.compress())
    began = time.monotonic()
    assert errors(ask(session)) == ["template_endless"] * 2
    assert SECONDS <= time.monotonic() - began < 2 * (SECONDS * PATIENCE + 1)
    assert session.conversation.columns == ([], [])
    finish(session.open(str(good)))
    assert errors(ask(session)) == [None]


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('only pirates may speak') }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 'x' * 10**7 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% if %}",
        "{{ messages[7].content }}",
    ],
    ids=["raises", "huge-range", "huge-text", "reaches-out", "no-template", "index-error"],
)
def test_a_template_that_fails_is_one_sentence(opened: Session, model: Path, template: str) -> None:
    with_template(model, template)
    [reply] = ask(opened).replies
    assert reply.error is not None
    assert reply.error.key == "template_failed"
    assert "Traceback" not in reply.error.sentence()
    assert opened.conversation.columns == ([], [])


def test_without_a_template_the_prompt_is_completed(opened: Session, model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    finish(opened.compress())
    answers = ask(opened)
    plain = len(load_tokenizer(model).encode(QUESTION))
    assert [reply.prompt_tokens for reply in answers.replies] == [plain, plain]
    assert all(reply.tokens for reply in answers.replies)


def test_without_a_tokenizer_each_column_says_so(opened: Session, model: Path, workspace: Path) -> None:
    for file in model.glob("*token*"):
        file.unlink()
    finish(opened.compress())
    assert errors(ask(opened)) == ["no_tokenizer"] * 2
    assert opened.conversation.columns == ([], [])
    assert all("tiny-" in str(path) for path in files(workspace))


def test_a_column_that_fails_says_why_and_the_other_answers(talking: Session) -> None:
    assert talking.copy.folder is not None
    (talking.copy.folder / PACKED).unlink()
    answers = ask(talking)
    assert errors(answers) == [None, "missing_file"]
    assert answers.replies[0].tokens == SHORT.max_new_tokens
    assert answers.weight_bytes[1] is None
    assert [len(said) for said in talking.conversation.columns] == [2, 0]


def test_stop_ends_an_answer_early_and_the_conversation_keeps_the_part(talking: Session) -> None:
    steps = talking.chat(QUESTION, Sampling(max_new_tokens=200, repetition_penalty=1.5))
    for item in steps:
        if isinstance(item, Answers) and item.replies[1].tokens >= 3:
            talking.jobs.stop("chat")
            last = item
    assert all(reply.tokens < 6 and not reply.ended for reply in last.replies)
    for said, reply in zip(talking.conversation.columns, last.replies, strict=True):
        assert [turn["content"] for turn in said] == [QUESTION, reply.text]
    assert errors(ask(talking)) == [None, None]


def test_a_visitor_who_leaves_ends_the_answers(talking: Session, pool: Pool) -> None:
    steps = talking.chat(QUESTION, SHORT)
    until_answers(steps)
    assert {held.users for held in pool._models.values()} == {1}
    steps.close()  # type: ignore[attr-defined]
    assert {held.users for held in pool._models.values()} == {0}


def test_the_second_prompt_sees_the_first_and_each_columns_own_answer(talking: Session, model: Path) -> None:
    tokenizer, another = load_tokenizer(model), "And of Italy?"
    first, second = ask(talking), ask(talking, another)
    for said, before, after in zip(talking.conversation.columns, first.replies, second.replies, strict=True):
        assert [turn["content"] for turn in said] == [QUESTION, before.text, another, after.text]
        assert [turn["role"] for turn in said] == ["user", "assistant"] * 2
        assert after.prompt_tokens == len(prompt_ids(tokenizer, said[:3])) > before.prompt_tokens


def test_clear_forgets_what_was_said(talking: Session) -> None:
    first = ask(talking)
    talking.conversation.forget()
    again = ask(talking)
    assert [reply.prompt_tokens for reply in again.replies] == [reply.prompt_tokens for reply in first.replies]
    assert [reply.text for reply in again.replies] == [reply.text for reply in first.replies]


@pytest.mark.usefixtures("here")
def test_a_system_prompt_comes_first_in_both_columns(talking: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def remember(tokenizer: Any, messages: Any, *rest: Any) -> list[int]:
        seen.append([dict(message) for message in messages])
        return prompt_ids(tokenizer, messages, *rest)

    monkeypatch.setattr(chat_module, "prompt_ids", remember)
    assert list(talking.chat(QUESTION, SHORT, "Be brief."))
    assert seen == [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]] * 2


def test_a_seed_repeats_a_sampled_answer(talking: Session) -> None:
    def said(seed: int) -> list[str]:
        talking.conversation.forget()
        return [reply.text for reply in ask(talking, QUESTION, Sampling(16, 1.5, seed=seed)).replies]

    assert said(1) == said(1) != said(2)


def test_a_new_model_begins_a_new_conversation(talking: Session, tiny_model: TinyModel) -> None:
    ask(talking)
    finish(talking.open(str(tiny_model("gpt2"))))
    assert talking.conversation.columns == ([], [])
    assert len(ask(talking).replies) == 1
