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


SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}[I] {{ m.content }} [/I]{% else %} {{ m.content }}"
    "{% endif %}{% endfor %}"
)
"""Llama 2's way: an answer stands behind a space."""
LINES = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
ALONE = "{% if messages|length > 1 %}{{ raise_exception('one') }}{% endif %}{{ messages[0].content }}"
SEAMS = {"a space": (SPACED, "▁Paris"), "a line": (LINES, "Paris"), "no more said": (ALONE, "▁Paris")}


@pytest.mark.parametrize(("template", "first"), SEAMS.values(), ids=SEAMS)
@pytest.mark.parametrize("scheme", ["always", "first"])
def test_a_tokenizer_that_begins_texts_with_a_space_begins_no_answer_so(
    template: str, first: str, scheme: str, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [(letter, -9.0) for letter in sorted(set("▁[]/IWhereis?\nPa"))]
    words = [("<unk>", 0.0), ("Paris", -2.0), ("▁Paris", -2.0), *letters]
    made = Tokenizer(models.Unigram(words, 0, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", chat_template=template).save_pretrained(tmp_path)
    tokenizer, messages = load_tokenizer(tmp_path), [{"role": "user", "content": "Where is?"}]
    [(ids, start)] = tokenizer.answered_ids(messages, ["Paris"])
    assert ids[:start] == tokenizer.prompt_ids(messages)[:start]
    places = {word: place for place, (word, _) in enumerate(words)}
    assert ids[start:] == [places[first]]
    assert tokenizer.continued("Paris") == [places["▁Paris"]], "which is what the answer alone would be"


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
