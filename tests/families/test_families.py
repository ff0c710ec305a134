"""Every language model of transformers either agrees with it, read in any pieces, or is refused for a true reason."""

from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from studio.base.errors import ModelError
from studio.checkpoint.config import load_config
from studio.runtime import model as studio_model
from studio.runtime.decoder import GeneralDecoder, open_compressed
from tests.families import agree
from tests.families.families import EXACT, FAMILIES, TEXT_TWINS, Tiny, bound_of_int8, opened
from tests.families.tiny import VOCABULARY

MADE_OTHERWISE = ("hrm_text", "inkling2_loop_text", "inkling2_text", "lara_mini", "sarvam_moe")
"""Families whose files hold several weights in one tensor."""
ENCODERS = ("xlm",)
"""Families that transformers takes for language models and the studio for encoders."""
REASONS = {
    "xlnet": "reads_both_ways", "cpmant": "reads_both_ways", "reformer": "answers_vary",
    "prophetnet": "length_changes_answers", "gemma4_assistant": "needs_other_model",
    "gemma4_unified_assistant": "needs_other_model", "musicgen": "writes_no_text", "musicgen_melody": "writes_no_text",
    "blt": "reads_patches", "emu3": "needs_its_pictures", "deepseek_v4": "whole_numbers",
} | dict.fromkeys(MADE_OTHERWISE, "made_otherwise")  # fmt: skip
"""The families that are refused, and why."""
TAKEN = [family for family in (*FAMILIES, *TEXT_TWINS) if family not in REASONS and family not in ENCODERS]
TOKENS = 120
PIECES = (37, 1, 50)
"""Then token by token."""
SHORT = (9, 1, 5)
"""Pieces of texts that are read beside each other."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Tiny sizes make transformers warn of tokens beyond the vocabulary."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.share(4)
@pytest.mark.parametrize("family", TAKEN)
def test_a_family_agrees_with_transformers(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp32 it is exact in pieces of odd lengths, token by token and block by block; compressed it is near.

    Texts that share the model know nothing of each other.
    """
    one = opened(family, tmp_path / "model")
    tokens = agree.some_tokens(VOCABULARY, TOKENS)
    expected = agree.reference(one.model, tokens)
    decoder = _in_fp32(one, monkeypatch)
    assert agree.error(agree.in_pieces(decoder, tokens, PIECES), expected) < EXACT
    texts = tokens[: sum(SHORT)], tokens[-sum(SHORT) :]
    alone = [agree.in_pieces(decoder, text, SHORT) for text in texts]
    assert all(map(torch.equal, agree.beside_each_other(decoder, texts, SHORT), alone))
    assert agree.error(agree.by_blocks(one.checkpoint, tokens), expected) < EXACT
    bf16 = agree.middle_error(agree.reference(one.in_bf16(), tokens), expected)
    compressed = open_compressed(agree.packed(one.checkpoint, tmp_path))
    assert agree.middle_error(agree.in_pieces(compressed, tokens, (TOKENS - 8,)), expected) < bound_of_int8(bf16)


def _in_fp32(one: Tiny, monkeypatch: pytest.MonkeyPatch) -> GeneralDecoder:
    with monkeypatch.context() as patch:
        patch.setattr(studio_model, "COMPUTE", torch.float32)
        return GeneralDecoder(studio_model.load_original(one.checkpoint))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", REASONS)
def test_a_family_that_cannot_be_taken_is_refused_for_its_reason(family: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refusal:
        opened(family, tmp_path)
    assert refusal.value.key == REASONS[family]
    assert refusal.value.values["architecture"] == family


def test_a_decoder_that_a_config_calls_none_is_refused() -> None:
    with pytest.raises(ModelError, match="bidirectional"):
        load_config({"model_type": "bert-generation", "is_decoder": False})
