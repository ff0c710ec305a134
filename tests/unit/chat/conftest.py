"""A tiny model's folder, and the model loaded."""

from pathlib import Path
from typing import Any

import pytest

from studio.chat.answer import LoadedModel
from studio.checkpoint.checkpoint import of_folder
from studio.runtime.decoder import Decoder, GeneralDecoder, open_original
from studio.runtime.decoder.cpu import is_available
from studio.runtime.model import load_original, load_tokenizer
from tests.conftest import TEMPLATE, save_tiny_model
from tests.conversations import Counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a long context that never ends an answer."""
    place = tmp_path_factory.mktemp("talk") / "tiny"
    save_tiny_model("llama", place, max_position_embeddings=2048, eos_token_id=None, head_dim=32)
    (place / "chat_template.jinja").write_text(TEMPLATE)
    return place


@pytest.fixture(params=["native", "general"])
def loaded(request: pytest.FixtureRequest, folder: Path) -> LoadedModel:
    checkpoint = of_folder(folder)
    if request.param == "native":
        assert is_available()
        decoder: Decoder[Any] = open_original(checkpoint)
    else:
        decoder = GeneralDecoder(load_original(checkpoint))
    return LoadedModel(Counted(decoder), load_tokenizer(folder))  # type: ignore[arg-type]


@pytest.fixture
def tokenizer(builtin: Any) -> Any:
    return load_tokenizer(builtin.path)
