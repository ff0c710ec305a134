"""Which families mlx-lm computes as transformers does, and what its config has to say. Knows no weights.

mlx-lm reads a config by its own names and passes by what it does not know: a window, a rotation, an activation. What a
family's code there takes for granted is checked here, for a file cannot say it. Source: ``mlx_lm/models``, 0.32.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.base.errors import ModelError

ROTATIONS = ("default", "linear", "llama3", "yarn")
YARN = {
    "beta_fast": 32, "beta_slow": 1, "truncate": True, "attention_factor": None, "mscale": None, "mscale_all_dim": None,
}  # fmt: skip
"""What mlx-lm takes of it besides factor and length, or does without."""


@dataclass(frozen=True)
class Family:
    """How one of transformers' families is told to mlx-lm."""

    check: Callable[[Any], str | None]
    """Returns the config's key that mlx-lm would pass by, None where there is none."""
    words: Callable[[Any], dict[str, Any]]
    """Returns what its config says by mlx-lm's names."""


def family_of(config: Any) -> Family:
    """Return the family of a config. Raises ModelError, by name, for one that is not there or has what it lacks."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ModelError("to_mlx_family", family=str(config.model_type)[:60], families=", ".join(FAMILIES))
    key = family.check(config)
    if key is not None:
        raise ModelError("to_mlx_setting", family=config.model_type, key=key)
    return family


def _rope(config: Any) -> dict[str, Any]:
    return dict(config.rope_parameters)


def _rope_words(config: Any) -> dict[str, Any]:
    """Return a rotation as configs said it before transformers 5."""
    rope = _rope(config)
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    is_scaled = rope.get("rope_type", "default") != "default"
    return {"rope_theta": rope["rope_theta"], "rope_scaling": scaling if is_scaled else None}


def _odd_rotation(config: Any, kinds: tuple[str, ...] = ROTATIONS, share: bool = False) -> str | None:
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    if kind not in kinds:
        return f"rope_parameters: {kind}"
    if not share and rope.get("partial_rotary_factor", 1.0) != 1.0:
        return "rope_parameters: partial_rotary_factor"
    if kind == "yarn":
        odd = [key for key, usual in YARN.items() if rope.get(key) not in (None, usual)]
        return f"rope_parameters: {odd[0]}" if odd else None
    return None


def _window(config: Any) -> str | None:
    """Return the key of a window that is shorter than the context: mlx-lm has none here."""
    window = getattr(config, "sliding_window", None)
    return "sliding_window" if window is not None and window < config.max_position_embeddings else None


def _activation(config: Any, name: str = "silu", key: str = "hidden_act") -> str | None:
    return None if getattr(config, key) == name else key


def _head(config: Any) -> str | None:
    """Return the key of a head of another width than mlx-lm reckons."""
    usual = config.hidden_size // config.num_attention_heads
    return None if (getattr(config, "head_dim", None) or usual) == usual else "head_dim"


def _llama(config: Any) -> str | None:
    return _activation(config) or _odd_rotation(config)


def _mistral(config: Any) -> str | None:
    return _activation(config) or _window(config) or _odd_rotation(config)


def _qwen2(config: Any) -> str | None:
    window = "use_sliding_window" if config.use_sliding_window else None
    return _activation(config) or window or _head(config) or _odd_rotation(config)


def _qwen3(config: Any) -> str | None:
    other = next((key for key in ("use_sliding_window", "attention_bias") if getattr(config, key)), None)
    return _activation(config) or other or _odd_rotation(config)


def _phi3(config: Any) -> str | None:
    # of a rotation that is stretched, mlx-lm has the factors of long texts for short ones too
    return _activation(config) or _window(config) or _head(config) or _odd_rotation(config, ("default",), share=True)


def _gemma3(config: Any) -> str | None:
    found, pattern = list(config.layer_types), _pattern(config)
    usual = [f"{'sliding' if (i + 1) % pattern else 'full'}_attention" for i in range(len(found))]
    if found != usual or pattern > len(found):  # mlx-lm asks the first layer without a window for its mask
        return "layer_types"
    rope = _rope(config)
    if rope["sliding_attention"].get("rope_type", "default") != "default":
        return "rope_parameters: sliding_attention"
    if rope["full_attention"].get("rope_type", "default") not in ("default", "linear"):
        return "rope_parameters: full_attention"
    capped = next(
        (key for key in ("attn_logit_softcapping", "final_logit_softcapping") if getattr(config, key) is not None), None
    )
    bias = "attention_bias" if config.attention_bias else None
    return _activation(config, "gelu_pytorch_tanh", "hidden_activation") or capped or bias


def _pattern(config: Any) -> int:
    """Return the place of the first layer without a window, from one on."""
    kinds = list(config.layer_types)
    return kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1


def _phi3_words(config: Any) -> dict[str, Any]:
    share = _rope(config).get("partial_rotary_factor", 1.0)
    return _rope_words(config) | {"partial_rotary_factor": share}


def _mistral_words(config: Any) -> dict[str, Any]:
    unlike = {"layer_types": None, "sliding_window": None, "attention_bias": False, "mlp_bias": False}
    return _rope_words(config) | unlike


def _gemma3_words(config: Any) -> dict[str, Any]:
    rope = _rope(config)
    full = rope["full_attention"]
    scaling = {key: value for key, value in full.items() if key != "rope_theta"}
    return {
        "rope_theta": full["rope_theta"],
        "rope_local_base_freq": rope["sliding_attention"]["rope_theta"],
        "rope_scaling": scaling if full.get("rope_type", "default") != "default" else None,
        "sliding_window_pattern": _pattern(config),
    }


FAMILIES: dict[str, Family] = {
    "llama": Family(_llama, _rope_words),
    "mistral": Family(_mistral, _mistral_words),
    "qwen2": Family(_qwen2, _rope_words),
    "qwen3": Family(_qwen3, _rope_words),
    "phi3": Family(_phi3, _phi3_words),
    "gemma3_text": Family(_gemma3, _gemma3_words),
}
"""By transformers' name. A new one is a line here, and a case of ``tests/engines/test_mlx.py``."""
