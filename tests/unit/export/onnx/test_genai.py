"""What GenAI is told, of configs that say one thing, many or nonsense."""

from typing import Any

import pytest
import transformers as tf

from studio.checkpoint.architecture import empty_model
from studio.export.onnx.genai import genai_config
from studio.runtime.decoder.llama_like import shape_of
from studio.runtime.decoder.shape import DecoderShape

SIZES = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
    "num_hidden_layers": 3, "vocab_size": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def shape() -> DecoderShape:
    found = shape_of(empty_model(tf.LlamaConfig(**SIZES)))
    assert found is not None
    return found


def test_sizes_are_those_of_the_graph(shape: DecoderShape) -> None:
    found = genai_config(shape, 77, {}, "onnx/model.onnx")
    decoder = found["model"]["decoder"]
    assert (decoder["num_hidden_layers"], decoder["num_key_value_heads"], decoder["head_size"]) == (3, 2, 16)
    assert decoder["filename"] == "onnx/model.onnx"
    assert decoder["inputs"]["past_key_names"] == "past_key_values.%d.key"
    assert decoder["outputs"]["present_value_names"] == "present.%d.value"
    assert (found["model"]["context_length"], found["search"]["max_length"]) == (77, 77)


SAID: list[tuple[dict[str, Any], list[int], int, int]] = [
    ({"eos_token_id": 7, "bos_token_id": 3, "pad_token_id": 0}, [7], 3, 0),
    ({"eos_token_id": [7, 8]}, [7, 8], 7, 7),
    ({"eos_token_id": [7, 1000, "x", None, True], "pad_token_id": -1}, [7], 7, 7),
    ({}, [0], 0, 0),
]


@pytest.mark.parametrize(("said", "ends", "bos", "pad"), SAID, ids=["one", "many", "nonsense", "none"])
def test_tokens_are_those_of_the_vocabulary(
    said: dict[str, Any], ends: list[int], bos: int, pad: int, shape: DecoderShape
) -> None:
    model = genai_config(shape, 77, said, "")["model"]
    assert (model["eos_token_id"], model["bos_token_id"], model["pad_token_id"]) == (ends, bos, pad)


def test_how_it_generates_is_told_where_it_is_sound(shape: DecoderShape) -> None:
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 1, "repetition_penalty": float("nan")}
    search = genai_config(shape, 77, said, "")["search"]
    assert search["do_sample"] is True
    assert (search["temperature"], search["top_k"], search["top_p"], search["repetition_penalty"]) == (0.6, 20, 1, 1.0)
    odd = genai_config(shape, 77, {"do_sample": "yes", "top_k": 2.5, "temperature": "hot"}, "")["search"]
    assert (odd["do_sample"], odd["top_k"], odd["temperature"]) == (False, 50, 1.0)
