"""A config is made of a GGUF file's metadata, and a value that no model has is said of the file."""

from pathlib import Path
from typing import Any

import pytest

from tests.gguf_models import Written, refusal


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({".context_length": 0}, "max_position_embeddings = 0"),
        ({".rope.freq_base": -1.0}, "rope_theta = -1.0"),
        ({".attention.head_count": 0}, "num_attention_heads = 0"),
    ],
)
def test_a_value_that_no_model_has_is_said_of_this_file(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.metadata |= changes
    sentence = refusal(written.file()).sentence()
    assert sentence.startswith(f"“m.gguf” says {named}, but it must be ")
    assert sentence.endswith("pick another model.")
