"""``genai_config.json``: what onnxruntime's GenAI is told of a model that it runs. Knows no weights.

Source: ``GenAIConfig`` of onnxruntime-genai 0.18 and what its builder writes. Keys and values are not kept in one
buffer that is as long as the context: their memory grows with the text.
"""

from collections.abc import Mapping
from typing import Any

from studio.runtime.decoder.shape import DecoderShape

GENAI = "genai_config.json"
TYPE = "decoder"
"""Of models that are fed what this graph is, whatever their family."""
PAST, PRESENT = "past_key_values.%d.{part}", "present.%d.{part}"
SEARCH = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}


def genai_config(shape: DecoderShape, context: int, said: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the config of a model of ``context`` tokens whose graph is ``file``; ``said``: how it generates."""
    ends = [token for token in _listed(said.get("eos_token_id")) if _is_token(token, shape)] or [0]
    bos, pad = (token if _is_token(token, shape) else None for token in map(said.get, ("bos_token_id", "pad_token_id")))
    inputs = {name: name for name in ("input_ids", "attention_mask", "position_ids")}
    search = {key: _number(said.get(key), usual) for key, usual in SEARCH.items()}
    return {
        "model": {
            "type": TYPE,
            "vocab_size": shape.vocabulary,
            "context_length": context,
            "bos_token_id": ends[0] if bos is None else bos,
            "eos_token_id": ends,
            "pad_token_id": ends[0] if pad is None else pad,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": file,
                "hidden_size": shape.hidden,
                "head_size": shape.head_dim,
                "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.kv_heads,
                "num_hidden_layers": len(shape.layers),
                "inputs": inputs | {f"past_{part}_names": PAST.format(part=part) for part in ("key", "value")},
                "outputs": {"logits": "logits"}
                | {f"present_{part}_names": PRESENT.format(part=part) for part in ("key", "value")},
            },
        },
        "search": search
        | {"do_sample": said.get("do_sample") is True, "max_length": context, "past_present_share_buffer": False},
    }


def _listed(tokens: object) -> list[object]:
    return tokens if isinstance(tokens, list) else [tokens]


def _is_token(given: object, shape: DecoderShape) -> bool:
    return type(given) is int and 0 <= given < shape.vocabulary


def _number(given: object, usual: float) -> float:
    """Return a setting of the kind that it has; the usual one where it is none."""
    is_one = type(given) is type(usual) or (type(given) is int and isinstance(usual, float))
    return given if is_one and isinstance(given, int | float) and 0 <= given < 1 << 31 else usual
