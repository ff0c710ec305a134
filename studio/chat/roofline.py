"""Where an answer's speed stands between bound by memory and bound by compute: arithmetic on what was measured.

Knows neither models in memory nor pages.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from studio.chat.answer import ModelInfo, Reply
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.layers import Kind, Layer
from studio.runtime.decoder import MOST_TOKENS, Backend, KeyValues, key_values
from studio.runtime.machine import Machine

MIN_TOKENS = 3
"""An answer shorter than this has no speed worth comparing."""


@dataclass(frozen=True)
class Phase:
    """One phase of one column in the roofline's two numbers: how much is computed, and how much for each byte read."""

    name: Literal["prompt", "decode"]
    column: int
    operations: float
    """A second, as measured: two for each weight that meets a token."""
    intensity: float
    """Operations a byte that is read."""
    limit: float
    """Operations a second that this machine allows at this intensity."""

    @property
    def share(self) -> float:
        """Part of the limit that is reached."""
        return self.operations / self.limit

    def is_bound_by_memory(self, machine: Machine) -> bool:
        return self.intensity * machine.bandwidth < machine.operations


def bytes_of_a_token(info: ModelInfo, reply: Reply) -> float:
    """Return what a token of the answer reads, at the middle of the answer: weights, keys and values."""
    positions = reply.prompt_tokens + reply.tokens
    middle = reply.prompt_tokens + reply.tokens / 2
    return info.step_bytes + (reply.kv_bytes * middle / positions if positions else 0)


def decode_limit(info: ModelInfo, reply: Reply, machine: Machine) -> float:
    """Return the tokens a second that reading memory allows."""
    return machine.bandwidth / bytes_of_a_token(info, reply)


def phases(column: int, info: ModelInfo, reply: Reply, weights: int, machine: Machine) -> list[Phase]:
    """Return the phases of an answer that have been measured, ``weights`` being those that a token meets."""
    timed = []
    read = reply.prompt_tokens - reply.kept_tokens
    if reply.prompt_tokens_per_second and read >= MIN_TOKENS:
        pieces = -(-read // MOST_TOKENS)
        intensity = 2 * weights * read / (pieces * info.step_bytes + reply.kv_bytes)
        timed.append(_phase("prompt", column, 2 * weights * reply.prompt_tokens_per_second, intensity, machine))
    if reply.tokens >= MIN_TOKENS:
        intensity = 2 * weights / bytes_of_a_token(info, reply)
        timed.append(_phase("decode", column, 2 * weights * reply.tokens_per_second, intensity, machine))
    return timed


def _phase(
    name: Literal["prompt", "decode"], column: int, operations: float, intensity: float, machine: Machine
) -> Phase:
    return Phase(name, column, operations, intensity, machine.limit(operations, operations / intensity))


def device_of(info: ModelInfo) -> str:
    """Return the device whose ceilings count for a column."""
    return "cuda" if info.backend is Backend.CUDA else "cpu"


def step_weights(layers: Iterable[Layer], called_experts: int | None) -> int:
    """Return the weights that one token meets: the head's too, of experts those that are called."""
    met = 0
    for layer in layers:
        if layer.kind in (Kind.LINEAR, Kind.HEAD) or (layer.kind is Kind.EMBEDDING and layer.tied):
            experts = layer.shape[0] if len(layer.shape) > 2 else 1
            met += layer.numel * min(called_experts or experts, experts) // experts
    return met


@dataclass(frozen=True)
class Figures:
    """What a model's config says beside its layers."""

    cache: KeyValues | None
    context: int | None
    called_experts: int | None


def figures_of(checkpoint: Checkpoint) -> Figures | None:
    """Return them where the model's files are here."""
    return None if checkpoint.folder is None else _figures(checkpoint.folder)


@lru_cache(maxsize=16)
def _figures(folder: Path) -> Figures:
    config: Any = load_config(read_json(folder / "config.json"))
    context = getattr(config, "max_position_embeddings", None)
    return Figures(key_values(config), context, getattr(config, "num_experts_per_tok", None))
