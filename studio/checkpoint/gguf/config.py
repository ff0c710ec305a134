"""A GGUF file's metadata -> transformers' config. Knows no weights.

transformers' own reader gives the words it knows; what it leaves out (rotations, an epsilon, a head's width) is filled
in from the file, and what the model of that config does not have at all is refused by name.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from studio.base.errors import CheckpointError, ModelError, UserError
from studio.checkpoint.config import load_config
from studio.checkpoint.config_values import check_counts
from studio.checkpoint.gguf.header import Array, Value, shown
from studio.checkpoint.gguf.model import EMBEDDING, GgufModel
from studio.checkpoint.gguf.rope import FACTOR_TENSORS, Factors, Rope, read_rope, refused

HEAD = "output.weight"
EPSILONS = ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
FOLLOWED: dict[str, tuple[str, ...]] = {
    "attention.layer_norm_rms_epsilon": EPSILONS,
    "attention.layer_norm_epsilon": EPSILONS,
    "attention.key_length": ("head_dim",),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "logit_scale": ("logit_scale",),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_weights_norm": ("norm_topk_prob",),
    "use_parallel_residual": ("use_parallel_residual",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}
"""Metadata that transformers' reader does not pass on for every architecture -> what configs call them."""
NEEDED: dict[str, tuple[float, ...]] = {
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "expert_weights_scale": (0, 1),
    "attention.scale": (0,),
    "attention.clamp_kqv": (0,),
    "attention.causal": (1,),
}
"""Such metadata that no model may pass by, and the values at which they change nothing."""
MANY_ROTATIONS = "full_attention"
"""Whose rotation is stretched where kinds of layers have their own."""
OWN_HEADS = frozenset({"gemma4_text", "t5", "umt5"})
"""Models whose heads' width and rotation the metadata say in words of their own, which transformers reads itself."""
BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
"""Settings that a file says by having a tensor."""
BY_WHOLE_WIDTH = {"gemma2": 46, "gemma3": 62}
"""Architectures whose largest model, known by its layers, divides scores by the root of another number."""
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
ENDS_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
"""What ends a turn where the file does not say so: as in llama.cpp, the token of this name."""


def config_of(model: GgufModel, factors: Mapping[str, Factors]) -> tuple[Any, Rope | None]:
    """Return transformers' config, and the rotation that its model must have; None where there is none to compare.

    ``factors`` are the values of the file's tensors that belong to the rotation. Raises CheckpointError or ModelError
    for a model that transformers has not, or not with these settings.
    """
    words = {**_words(model), "vocab_size": model.tensors[EMBEDDING][1].shape[0]}
    words["tie_word_embeddings"] = HEAD not in model.tensors
    words.pop("rope_scaling", None)
    try:
        config = load_config(words)
        check_counts(config, len(model.tensors))
    except ModelError as error:
        raise CheckpointError("gguf_architecture", file=model.file.name, architecture=model.architecture) from error
    except UserError as error:
        raise of_file(error, model.file) from error
    changed = _followed(model, config) | _unsaid(model, config)
    if changed:
        config = type(config).from_dict({**config.to_dict(), **changed})
    return _rotating(model, config, dict(factors))


def end_tokens(model: GgufModel) -> list[int]:
    """Return the tokens that end an answer, the file's own first; needs the tokens kept."""
    ids = [model.metadata.get(f"tokenizer.ggml.{key}") for key in END_KEYS]
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    if ids[1] is None and isinstance(tokens, list):
        ids.append(next((tokens.index(name) for name in ENDS_OF_TURN if name in tokens), None))  # type: ignore[arg-type]
    return list(dict.fromkeys(each for each in ids if type(each) is int))


def _words(model: GgufModel) -> dict[str, Any]:
    """Return what transformers' reader makes of the metadata."""
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS, get_gguf_config
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    try:
        if model.architecture in GGUF_CONFIG_ARCHS:
            counted = {key: _counted(value) for key, value in model.metadata.items()}
            return dict(get_gguf_config(counted, tuple(model.tensors)))
        with tempfile.TemporaryDirectory() as folder:
            skeleton = Path(folder) / "metadata.gguf"
            _write_skeleton(model, skeleton)
            return dict(load_gguf_checkpoint(skeleton, return_tensors=False)["config"])
    except KeyError as error:
        raise CheckpointError("gguf_key_missing", file=model.file.name, key=shown(str(error.args[0]))) from error
    except ValueError as error:
        if "not supported" in str(error):
            raise CheckpointError("gguf_architecture", file=model.file.name, architecture=model.architecture) from error
        raise


def _counted(value: Value) -> Any:
    """Return a value as transformers' reader gives it: of an array of strings, how many there are."""
    if isinstance(value, Array):
        return value.length
    return len(value) if isinstance(value, list) and value and isinstance(value[0], str) else value


def _write_skeleton(model: GgufModel, path: Path) -> None:
    """Write a GGUF file with the metadata and the tensors' names alone: all parts', a vocabulary left out.

    transformers' reader takes seconds for a vocabulary, of which the config needs nothing.
    """
    from gguf import GGUFValueType, GGUFWriter

    kinds = {
        bool: GGUFValueType.BOOL,
        int: GGUFValueType.INT64,
        float: GGUFValueType.FLOAT64,
        str: GGUFValueType.STRING,
    }
    writer = GGUFWriter(path, model.architecture)
    for key, value in model.metadata.items():
        if key == "general.architecture" or isinstance(value, Array) or key.startswith("split."):
            continue
        if isinstance(value, list):
            if value and not isinstance(value[0], str):
                writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kinds[type(value)])
    for name in model.tensors:
        writer.add_tensor(name, np.zeros(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _followed(model: GgufModel, config: Any) -> dict[str, Any]:
    """Return what the config has to say otherwise. Raises CheckpointError for what it has no word for."""
    changed: dict[str, Any] = {}
    for key, names in FOLLOWED.items():
        value = model.setting(key)
        known = next((name for name in names if getattr(config, name, None) is not None), None)
        if known is None or isinstance(value, list | str | Array) or value is None:
            continue
        if key == "attention.key_length" and config.model_type in OWN_HEADS:
            continue
        if getattr(config, known) != value:
            changed[known] = value
    if model.setting("attention.key_length") is None and getattr(config, "head_dim", None) is not None:
        heads, hidden = model.setting("attention.head_count"), model.setting("embedding_length")
        if type(heads) is int and type(hidden) is int and heads > 0 and config.model_type not in OWN_HEADS:
            changed["head_dim"] = hidden // heads  # not the width that rotates, which can be less
    pattern, kinds = model.setting("attention.sliding_window_pattern"), getattr(config, "layer_types", None) or ()
    if pattern is not None and "sliding_attention" in kinds:
        if type(pattern) is int:
            slides = [pattern > 0 and (index + 1) % pattern > 0 for index in range(len(kinds))]
        elif isinstance(pattern, list) and len(pattern) == len(kinds):
            slides = [bool(each) for each in pattern]
        else:
            model.refuse(f"{model.architecture}.attention.sliding_window_pattern", pattern)
        changed["layer_types"] = ["sliding_attention" if each else "full_attention" for each in slides]
    for key, nothing in NEEDED.items():
        value = model.number(key) if not isinstance(model.setting(key), bool) else int(bool(model.setting(key)))
        has_word = any(getattr(config, name, None) is not None for name in FOLLOWED.get(key, ()))
        if value is not None and value not in nothing and not has_word:
            raise CheckpointError(
                "gguf_setting", file=model.file.name, key=f"{model.architecture}.{key}", value=value,
                architecture=model.architecture,
            )  # fmt: skip
    return changed


def _unsaid(model: GgufModel, config: Any) -> dict[str, Any]:
    """Return what llama.cpp knows without being told, in the config's words."""
    found: dict[str, Any] = {
        name: True
        for name, tensor in BIASES.items()
        if getattr(config, name, None) is False and tensor in model.tensors
    }
    if model.architecture in BY_WHOLE_WIDTH and getattr(config, "query_pre_attn_scalar", None) is not None:
        is_largest = config.num_hidden_layers == BY_WHOLE_WIDTH[model.architecture]
        head = model.number("attention.key_length") or config.head_dim
        found["query_pre_attn_scalar"] = config.hidden_size // config.num_attention_heads if is_largest else int(head)
    return found


def _rotating(model: GgufModel, config: Any, factors: dict[str, Factors]) -> tuple[Any, Rope | None]:
    """Return the config with the file's rotation, and that rotation."""
    old = getattr(config, "rope_parameters", None)
    if old is None or config.model_type in OWN_HEADS:
        said = next((key for key in model.metadata if ".rope.scaling." in key), next(iter(factors), None))
        if said is not None:
            raise refused(model, said, config.model_type)
        return config, None
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = int(model.number("rope.dimension_count") or head)
    if width % 2 or not 0 < width <= head:
        model.refuse(f"{model.architecture}.rope.dimension_count", width)
    rope = read_rope(model, width, factors)
    is_nested = any(isinstance(value, Mapping) for value in old.values())
    kept = dict(old.get(MANY_ROTATIONS, {})) if is_nested else dict(old)
    kept = {key: value for key, value in kept.items() if key.startswith(("mrope", "partial"))}
    if "partial_rotary_factor" in kept:
        kept["partial_rotary_factor"] = width / head
    elif width != head:
        raise refused(model, f"{model.architecture}.rope.dimension_count", f"{width} / {head}")
    parameters: dict[str, Any] = {**kept, **rope.parameters}
    if is_nested:
        parameters = {**old, MANY_ROTATIONS: parameters}
        other = model.number("rope.freq_base_swa")
        if other is not None:
            parameters["sliding_attention"] = {**dict(old["sliding_attention"]), "rope_theta": other}
    changed: dict[str, Any] = {"rope_parameters": parameters}
    original = rope.parameters.get("original_max_position_embeddings")
    if original is not None and getattr(config, "original_max_position_embeddings", None) is not None:
        changed["original_max_position_embeddings"] = original
    return type(config).from_dict({**config.to_dict(), **changed}), rope


def of_file(error: UserError, file: Path) -> UserError:
    """Return what is wrong with a config as said of the file that it was read from, which has no config.json."""
    return type(error)(error.key, **{**error.values, "file": file.name})


def cause(error: BaseException) -> str:
    """Return what was at the bottom of an error, in its own words."""
    cause = error.__cause__ or error
    return shown(str(cause)) or type(cause).__name__


def factor_names(model: GgufModel) -> list[str]:
    """Return the tensors that belong to the rotation."""
    return [name for name in FACTOR_TENSORS if name in model.tensors]
