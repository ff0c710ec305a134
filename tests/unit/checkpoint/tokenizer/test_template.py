"""Strangers' templates: what is wrong with them is a sentence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import PromptError
from studio.chat.prompt import prompt_ids
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer, load_tokenizer
from tests.conftest import TEMPLATE
from tests.tokenizer_folders import HELLO, edit, error_of

BRIEF = [{"role": "system", "content": "Be brief."}, *HELLO]


def with_template(folder: Path, template: str) -> GuardedTokenizer:
    (folder / "chat_template.jinja").write_text(template)
    return load_tokenizer(folder)


def prompt_error(tokenizer: GuardedTokenizer, messages: Sequence[dict[str, str]] = HELLO) -> PromptError:
    with pytest.raises(PromptError) as caught:
        prompt_ids(tokenizer, messages)
    return caught.value


PARTS = (
    "{% for m in messages %}{{ m['role'] }}: {% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}|{% endfor %}"
)


def test_a_template_that_wants_parts_is_given_parts(folder: Path) -> None:
    tokenizer = with_template(folder, PARTS)
    assert tokenizer.decode(prompt_ids(tokenizer, BRIEF)) == "system: Be brief.|user: Hello|"


@pytest.mark.parametrize(
    ("template", "messages", "key"),
    [
        ("{{ 5 }}", HELLO, "template_drops_message"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", BRIEF, "system_prompt_dropped"),
        ("{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}{{ messages[-1].content }}",
         BRIEF, "system_prompt_refused"),
        ("{{ messages[-1].content }}{{ '\\ud800' }}", HELLO, "template_failed"),
        ("{{ raise_exception('no') }}", BRIEF, "template_failed"),
        ("{{ messages[-1].content * 10**9 }}", HELLO, "template_memory"),
        ("{# nothing #}", HELLO, "template_failed"),
    ],
    ids=["number", "drops-system", "refuses-system", "surrogate", "raises", "memory", "nothing"],
)  # fmt: skip
def test_a_template_that_cannot_serve_is_one_sentence(
    folder: Path, template: str, messages: Sequence[dict[str, str]], key: str
) -> None:
    error = prompt_error(with_template(folder, template), messages)
    assert error.key == key
    assert "chat_template.jinja" in error.sentence()


def test_a_message_that_is_changed_is_not_lost(folder: Path) -> None:
    tokenizer = with_template(folder, "{% for m in messages %}{{ m.content | trim | upper }}|{% endfor %}")
    assert tokenizer.decode(prompt_ids(tokenizer, BRIEF)) == "BE BRIEF.|HELLO|"


@pytest.mark.parametrize("value", [5, [5], {"default": 5}, [{"name": "default"}]], ids=repr)
def test_a_template_that_is_no_text_is_named(folder: Path, value: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    edit(folder, lambda t: t.update(chat_template=value), "tokenizer_config.json")
    error = error_of(folder)
    assert error.key == "tokenizer_setting"
    assert "chat_template" in error.sentence()


def test_a_template_is_found_wherever_it_stands(folder: Path) -> None:
    expected = prompt_ids(load_tokenizer(folder), HELLO)
    (folder / "chat_template.jinja").unlink()
    assert prompt_ids(load_tokenizer(folder), HELLO) != expected
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert prompt_ids(load_tokenizer(folder), HELLO) == expected
    (folder / "chat_template.json").unlink()
    named = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": TEMPLATE}]
    edit(folder, lambda t: t.update(chat_template=named), "tokenizer_config.json")
    assert prompt_ids(load_tokenizer(folder), HELLO) == expected


def test_half_a_character_in_a_prompt_or_a_text_is_replaced(sound: Path) -> None:
    tokenizer = load_tokenizer(sound)
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\N{REPLACEMENT CHARACTER}b"
    asked = prompt_ids(tokenizer, [{"role": "user", "content": "a\ud800b \ud83d\ude80"}])
    assert "a\N{REPLACEMENT CHARACTER}b \N{ROCKET}" in tokenizer.decode(asked)
