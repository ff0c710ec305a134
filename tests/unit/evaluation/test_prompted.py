"""Checks that are asked as a chat asks: both languages, the right answer among them, behind its template."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer
from studio.evaluation.evaluate import Original, flips_of, predictor
from studio.evaluation.prompted import CHECKS, prompted, prompted_options
from studio.runtime.decoder import GeneralDecoder
from studio.runtime.model import load_original
from tests.conftest import TEMPLATE
from tests.steps import finish


@pytest.mark.parametrize("check", CHECKS)
def test_both_languages_have_as_many_and_no_conversation_twice(check: str) -> None:
    for part in prompted(check).values():
        languages = [each.question.language for each in part]
        assert languages.count("en") == languages.count("zh") >= 10
        assert len({str(each.messages) for each in part}) == len(part)
        for each in part:
            assert each.messages[-1]["role"] == "user"
            assert len(set(each.question.options)) == len(each.question.options) > each.question.answer


def test_every_request_to_decline_has_a_harmless_look_alike() -> None:
    parts = prompted("safety")
    assert len(parts["decline"]) == len(parts["help"])
    assert {each.question.answer for each in parts["decline"]} == {0}
    assert {each.question.answer for each in parts["help"]} == {1}


def test_an_answer_comes_behind_the_models_own_template(tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model("llama")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    asked = prompted("dialogue")["dialogue"][:1]
    (batch,) = prompted_options(of_folder(folder), asked).batches
    tokenizer = load_tokenizer(folder)
    prompt = tokenizer.prompt_ids(asked[0].messages)
    assert len(batch) == len(asked[0].question.options)
    for option, answer in zip(batch, asked[0].question.options, strict=True):
        assert option.ids[: option.start].tolist() == prompt
        assert option.ids[option.start :].tolist() == tokenizer.continued(answer)


def test_the_original_changes_none_of_its_own_answers(tiny_model: Callable[[str], Path], own_cache: Path) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    tried = prompted_options(checkpoint, prompted("safety")["help"][:6])
    predict = predictor(GeneralDecoder(load_original(checkpoint).float()))
    flips = finish(flips_of(Original(checkpoint), predict, tried))
    assert flips is not None
    assert (flips.questions, flips.flipped) == (6, 0)
    other = finish(flips_of(Original(checkpoint), lambda ids: (-1e3 * logits for logits in predict(ids)), tried))
    assert other is not None
    assert other.flipped == 6  # what it held likeliest it now holds least likely


def test_logits_are_read_where_the_answer_stands(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    (batch,) = prompted_options(checkpoint, prompted("safety")["decline"][:1]).batches
    assert all(0 < option.start < len(option.ids) for option in batch)
    assert all(option.ids.dtype == torch.int64 for option in batch)
