"""A word to be found far back: where it stands, what is asked last, and what models that know or do not know say."""

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from studio.base.errors import ModelError
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer
from studio.cli.evaluate import SHORTEST_TEXT
from studio.evaluation import long_context
from studio.evaluation.evaluate import predictor
from studio.evaluation.long_context import ASKED, DEPTHS, FILLER, KEYS, keys_found, lengths, long_text
from studio.runtime.decoder import GeneralDecoder
from studio.runtime.model import load_original
from tests.steps import finish
from tests.terminal import run


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths that the tiny models read, in little time."""
    monkeypatch.setattr(long_context, "SHORTEST", 96)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_key_is_said_once_at_its_depth_and_asked_for_at_the_end(
    tiny_model: Callable[[str], Path], depth: float
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    ids, options, right = long_text(checkpoint, 400, depth, 1)
    text = load_tokenizer(checkpoint.path).decode(ids.tolist())
    assert 330 < len(ids) <= 400
    assert text.rstrip().endswith(ASKED)
    assert text.count(ASKED) == 2
    assert abs(text.index(ASKED) / len(text) - depth) < 0.2
    assert len(options) > right >= 0


@pytest.mark.usefixtures("short")
def test_the_original_finds_what_it_finds_and_another_is_counted(
    tiny_model: Callable[[str], Path], own_cache: Path
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    own = predictor(GeneralDecoder(load_original(checkpoint).float()))
    (same,) = finish(keys_found(checkpoint, own, 100))
    assert (same.tokens, same.keys, same.changed) == (96, len(DEPTHS), 0)
    assert same.found == same.original_found

    def knowing(ids: Tensor) -> Iterator[Tensor]:
        told = [option for option in options.tolist() if option in ids.tolist()]
        yield torch.zeros(1, 1000).scatter_(1, torch.tensor([told[:1]]), 1.0)

    _, options, _ = long_text(checkpoint, 96, 0.5, 0)
    (found,) = finish(keys_found(checkpoint, knowing, 100))
    assert found.found == len(DEPTHS)


SAID = tuple(dict.fromkeys(f"▁{word}" for word in " ".join((ASKED, *FILLER)).replace(".", "").split()))


def with_spaces_before(model: Path, folder: Path, known: tuple[str, ...]) -> Path:
    """Copy a model, with a tokenizer like SentencePiece's, which sets a space before any text, of these pieces."""
    shutil.copytree(model, folder)
    known = ("<s>", "</s>", "<unk>", "▁", ".", *known)
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in known], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


def test_words_that_begin_with_the_same_space_are_told_apart(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = of_folder(with_spaces_before(tiny_model("llama"), tmp_path / "m", (*SAID, *KEYS)))
    tokenizer = load_tokenizer(checkpoint.path)
    spaced = tokenizer.continued("amber")
    assert len(spaced) == 2
    assert spaced[0] == tokenizer.continued("cobalt")[0]
    ids, options, right = long_text(checkpoint, 200, 0.5, 1)
    assert [tokenizer.decode([token]).strip() for token in options.tolist()] == list(KEYS)
    assert KEYS[right] == "cobalt"
    assert ids[-1] == spaced[0], "the answer follows the space"
    assert tokenizer.decode(ids.tolist()).rstrip().endswith(ASKED)
    pairs = list(pairwise(ids.tolist()))
    assert (spaced[0], spaced[0]) not in pairs, "no space is doubled"
    assert ids.tolist().count(spaced[0]) == 2


def test_words_that_nothing_tells_apart_are_refused(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = of_folder(with_spaces_before(tiny_model("llama"), tmp_path / "m", ()))
    with pytest.raises(ModelError) as caught:
        long_text(checkpoint, 200, 0.5, 1)
    assert caught.value.key == "keys_alike"


def test_lengths_double_as_far_as_asked_for_and_the_model_reads(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    with pytest.raises(ModelError) as caught:
        lengths(checkpoint, 4096)
    assert (caught.value.key, caught.value.values["most"]) == ("context_too_short", 256)
    with pytest.raises(ValueError, match="1000"):
        lengths(checkpoint, 1000)


def test_the_terminal_takes_no_text_shorter_than_the_shortest() -> None:
    assert SHORTEST_TEXT == long_context.SHORTEST
    assert run("evaluate", "builtin", "--against", "builtin", "--long", "1000", "--json").code == 2


@pytest.mark.usefixtures("short")
def test_the_longest_is_the_models_own(tiny_model: Callable[[str], Path]) -> None:
    assert lengths(of_folder(tiny_model("llama")), 200) == [96, 192]
