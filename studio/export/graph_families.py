"""Which families a graph that the studio draws computes as transformers does, and what of theirs it does not.

It is drawn from a model's own shape (:mod:`studio.runtime.decoder.llama_like`); what no shape tells is here. Knows no
numbers and no program that runs one.
"""

from collections.abc import Callable
from typing import Any

from studio.base.errors import ModelError, UserError
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.layers import Kind
from studio.planning.plan import Assignment, Plan
from studio.runtime.decoder.llama_like import ACTIVATIONS, FIXED_ROTATIONS

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3_text")
"""By transformers' name. A new one is a word here, and a case of ``tests/engines/test_openvino.py`` and
``tests/engines/test_onnx.py``."""
HEAD = 16
"""Whose multiple a head's width is."""


def graph_refusal(
    program: str,
    plan: Plan,
    checkpoint: Checkpoint,
    is_held: Callable[[Assignment], bool],
    not_held: Callable[[Assignment], UserError],
) -> UserError | None:
    """Return why a plan cannot be a graph as it is.

    ``is_held``: whether the program holds a weight in its scheme; ``not_held``: what is said of one that it does not.
    """
    for a in plan.assignments:
        if a.layer.kind is not Kind.OTHER and (a.layer.transposed or len(a.layer.shape) != 2):
            return unknown_family(program, checkpoint.architecture)
    misfits = [a for a in plan.assignments if a.scheme and not is_held(a)]
    if misfits:  # a linear weight's scheme is the one that was chosen, others follow from it
        return not_held(next((a for a in misfits if a.layer.kind is Kind.LINEAR), misfits[0]))
    if checkpoint.architecture not in FAMILIES:
        return unknown_family(program, checkpoint.architecture)
    if checkpoint.folder is not None:
        try:
            check_family(program, load_config(read_json(checkpoint.folder / CONFIG)))
        except UserError as error:
            return error
    return None


def unknown_family(program: str, name: str) -> ModelError:
    """Return what is said of a family that is not there. ``program``: what the files are called after."""
    return ModelError("to_graph_family", program=program, family=name[:60], families=", ".join(FAMILIES))


def check_family(program: str, config: Any) -> None:
    """Raise ModelError, by name, for a config whose family is not there or that sets what the graph does not have."""
    if config.model_type not in FAMILIES:
        raise unknown_family(program, str(config.model_type))
    key = _odd(config)
    if key is not None:
        raise ModelError("to_graph_setting", program=program, family=config.model_type, key=key)


def _odd(config: Any) -> str | None:
    """Return the key of a setting that the graph does not have."""
    rope = dict(config.rope_parameters)
    nested = [turn for turn in rope.values() if isinstance(turn, dict)]
    for turn in nested or [rope]:
        kind = turn.get("rope_type", "default")
        if kind not in FIXED_ROTATIONS:
            return f"rope_parameters: {kind}"
    key = "hidden_activation" if getattr(config, "hidden_activation", None) else "hidden_act"
    if getattr(config, key) not in ACTIVATIONS:
        return key
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return "head_dim" if width % HEAD else None
