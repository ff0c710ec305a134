"""How a GGUF file turns positions, in transformers' words. Knows metadata and factors, no weights.

llama.cpp keeps it in metadata (``rope.scaling.*``) and, for Llama 3.1 and its kin, in a tensor of factors by which each
frequency is divided. transformers' own converter reads neither, and a model that turns otherwise answers wrongly with
every weight in place. So the frequencies are worked out here a second time, for the model to be compared with.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.base.errors import CheckpointError
from studio.checkpoint.gguf.header import shown
from studio.checkpoint.gguf.model import GgufModel

Factors = NDArray[np.float64]
FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
FACTOR_TENSORS = (FREQUENCIES, LONG, SHORT)
"""Tensors that go into the config; no part of the weights."""
EXACT = 1e-5
"""Relative error within which factors in fp32 are those of a formula."""
DEFAULT_BASE = 10_000.0
LLAMA3_LOW, LLAMA3_HIGH = 1.0, 4.0
"""Of every Llama since 3.1."""
UNKNOWN_SCALING = ("alpha", "yarn_log_multiplier")
"""Settings of other families' ways."""


@dataclass(frozen=True)
class Rope:
    """What the file says."""

    parameters: dict[str, Any]
    """``rope_parameters`` of transformers' config."""
    frequencies: Factors
    """By the file: angle per position, [rotating dimensions / 2]."""
    scale: float
    """By which cosines and sines are multiplied."""
    key: str
    """The metadata or tensor that says so."""


def read_rope(model: GgufModel, width: int, factors: dict[str, Factors]) -> Rope:
    """Return how ``width`` dimensions of each head turn; ``factors`` are the file's tensors of that name.

    Raises CheckpointError for a way that transformers does not have.
    """
    base = model.number("rope.freq_base") or DEFAULT_BASE
    if not base > 1:
        model.refuse(f"{model.architecture}.rope.freq_base", base)
    plain = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    theta: dict[str, Any] = {"rope_theta": base}
    for name, values in factors.items():
        if values.shape != plain.shape or not np.all(np.isfinite(values)) or not np.all(values > 0):
            raise refused(model, name, f"{values.shape} factors")
    kind, factor = _scaling(model)
    key = f"{model.architecture}.rope.scaling.type"
    for name in UNKNOWN_SCALING:
        if model.number(f"rope.scaling.{name}"):
            raise refused(model, f"{model.architecture}.rope.scaling.{name}", f"{model.number(f'rope.scaling.{name}')}")
    freqs = factors.get(FREQUENCIES, np.ones_like(plain))
    has_freqs = bool(np.any(np.abs(freqs - 1) > EXACT))
    if has_freqs and (kind != "none" or LONG in factors):
        raise refused(model, FREQUENCIES, f"rope.scaling.type {kind}")
    if kind == "longrope" or LONG in factors or SHORT in factors:
        return _longrope(model, plain, theta, factors)
    if kind == "yarn":
        return _yarn(model, plain, theta, factor, width, base)
    if kind == "linear":
        return Rope({**theta, "rope_type": "linear", "factor": factor}, plain / factor, 1.0, key)
    if kind != "none":
        raise refused(model, key, shown(kind))
    if has_freqs:
        found = llama3_parameters(plain, freqs, model.number("rope.scaling.original_context_length"))
        if found is None:
            raise refused(model, FREQUENCIES, "llama3")
        return Rope({**theta, **found}, plain / freqs, 1.0, FREQUENCIES)
    return Rope({**theta, "rope_type": "default"}, plain, 1.0, f"{model.architecture}.rope.freq_base")


def llama3_parameters(plain: Factors, factors: Factors, original: float | None = None) -> dict[str, Any] | None:
    """Return the parameters by which Llama 3.1 makes these factors of the ``plain`` frequencies, None if none do.

    Short waves keep their frequency, long ones have it divided by the largest factor, and between the two the way
    from one to the other is linear in the frequency: two points of it give both ends.
    """
    waves = 2 * math.pi / plain
    most = float(factors.max())
    smooth = (1 / factors - 1 / most) / (1 - 1 / most)
    between = (smooth > EXACT) & (smooth < 1 - EXACT)
    guesses = [original] if original else []
    low, high = LLAMA3_LOW, LLAMA3_HIGH
    guesses += [float(np.median(waves[between] * (low + smooth[between] * (high - low))))] if between.any() else []
    tried = [(low, high, guess) for guess in guesses] + [(low, high, float(1 << power)) for power in range(6, 20)]
    if between.sum() > 1:
        slope, start = np.polyfit(1 / waves[between], smooth[between], 1)
        if start < 0:  # smooth = (original / wave - low) / (high - low), of which only ratios can be told
            tried.append((low, 1 - 1 / start, slope * -1 / start))
    for first, last, length in tried:
        for whole in (float(round(length)), length):
            if np.allclose(_llama3(plain, most, first, last, whole), factors, rtol=EXACT, atol=0):
                return (
                    {
                        "rope_type": "llama3",
                        "factor": _near(most),
                        "low_freq_factor": _near(first),
                        "high_freq_factor": _near(last),
                        "original_max_position_embeddings": round(whole),
                    }
                    if whole == round(whole)
                    else None
                )
    return None


def refused(model: GgufModel, key: str, reason: str) -> CheckpointError:
    """Return the error for a rotation that transformers' model of this architecture does not make."""
    return CheckpointError(
        "gguf_rope", file=model.file.name, key=shown(key), architecture=model.architecture, reason=reason
    )


def _scaling(model: GgufModel) -> tuple[str, float]:
    """Return the kind of scaling and its factor. As in llama.cpp, a factor alone means linear."""
    kind = model.setting("rope.scaling.type")
    if kind is not None and not isinstance(kind, str):
        model.refuse(f"{model.architecture}.rope.scaling.type", kind)
    factor = model.number("rope.scaling.factor") or model.number("rope.scale_linear") or 1.0
    if not factor > 0:
        model.refuse(f"{model.architecture}.rope.scaling.factor", factor)
    if kind in (None, "linear"):
        return ("none" if factor == 1 else "linear"), float(factor)
    return kind, float(factor)


def _llama3(plain: Factors, factor: float, low: float, high: float, original: float) -> Factors:
    waves = 2 * math.pi / plain
    smooth = np.clip((original / waves - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth))


def _near(value: float) -> float:
    """Return the round number that fp32 blurred."""
    rounded = round(value, 3)
    return rounded if abs(rounded - value) <= EXACT * abs(value) else value


def _longrope(model: GgufModel, plain: Factors, theta: dict[str, Any], factors: dict[str, Factors]) -> Rope:
    for name in (LONG, SHORT):
        if name not in factors:
            raise CheckpointError("gguf_tensor_missing", file=model.file.name, tensor=name, parameter="rope_parameters")
    original = model.number("rope.scaling.original_context_length")
    if original is None:
        key = f"{model.architecture}.rope.scaling.original_context_length"
        raise CheckpointError("gguf_key_missing", file=model.file.name, key=key)
    scale = float(model.number("rope.scaling.attn_factor") or 1.0)
    parameters = {
        **theta,
        "rope_type": "longrope",
        "short_factor": factors[SHORT].tolist(),
        "long_factor": factors[LONG].tolist(),
        "original_max_position_embeddings": int(original),
        "attention_factor": scale,
    }
    return Rope(parameters, plain / factors[SHORT], scale, LONG)


def _yarn(model: GgufModel, plain: Factors, theta: dict[str, Any], factor: float, width: int, base: float) -> Rope:
    original = model.number("rope.scaling.original_context_length") or model.number("context_length")
    if not original:
        key = f"{model.architecture}.rope.scaling.original_context_length"
        raise CheckpointError("gguf_key_missing", file=model.file.name, key=key)
    if (model.number("rope.scaling.yarn_ext_factor") or 1.0) != 1:
        raise refused(model, f"{model.architecture}.rope.scaling.yarn_ext_factor", "1")
    fast = model.number("rope.scaling.yarn_beta_fast") or 32.0
    slow = model.number("rope.scaling.yarn_beta_slow") or 1.0
    scale = model.number("rope.scaling.yarn_attn_factor")
    if scale is None:
        scale = (0.1 * math.log(factor) + 1 if factor > 1 else 1.0) * (model.number("rope.scaling.attn_factor") or 1.0)
    ends = [width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (fast, slow)]
    first, last = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), width - 1)
    ramp = np.clip((np.arange(width // 2) - first) / max(last - first, 1e-3), 0, 1)
    parameters = {
        **theta,
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": int(original),
        "beta_fast": float(fast),
        "beta_slow": float(slow),
        "attention_factor": float(scale),
    }
    frequencies = plain / factor * ramp + plain * (1 - ramp)
    return Rope(parameters, frequencies, float(scale), f"{model.architecture}.rope.scaling.type")
