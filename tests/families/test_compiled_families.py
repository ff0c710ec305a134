"""Each family that is registered for the compiled step takes it, and agrees there with transformers."""

from pathlib import Path

import pytest
from transformers.utils import logging

from studio.checkpoint.checkpoint import of_folder
from studio.runtime.decoder.cpu import NativeDecoder, is_available
from studio.runtime.decoder.families import FAMILIES
from studio.runtime.decoder.open_decoder import open_compressed, open_original
from tests.families import agree, tiny
from tests.families.families import Tiny, bound, bound_of_int8
from tests.families.tiny import VOCABULARY

HIDDEN = 64
"""Four heads of 16 dimensions, the fewest that compiled code takes."""
TOKENS = 60
"""More than the tiny models' windows hold."""


@pytest.mark.skipif(not is_available(), reason="no C compiler")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_registered_family_agrees_with_transformers(family: str, tmp_path: Path) -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = tiny.save(family, tmp_path / "model", hidden_size=HIDDEN)
    one = Tiny(tmp_path / "model", model, of_folder(tmp_path / "model"))
    tokens = agree.some_tokens(VOCABULARY, TOKENS)
    expected = agree.reference(one.model, tokens)
    original, compressed = open_original(one.checkpoint), open_compressed(agree.packed(one.checkpoint, tmp_path))
    assert isinstance(original, NativeDecoder)
    assert isinstance(compressed, NativeDecoder)
    bf16 = agree.error(agree.reference(one.in_bf16(), tokens), expected)
    assert agree.error(agree.in_pieces(original, tokens, (7, 1, 40)), expected) < bound(bf16)
    assert agree.error(agree.in_pieces(compressed, tokens, (7, 1, 40)), expected) < bound_of_int8(bf16)
