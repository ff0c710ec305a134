"""The Llama-like families whose step is known to compiled code, and what each has of its own. Knows no model.

All else that tells them apart (biases, norms of heads, windows, softcaps, fused weights) is read off the model itself.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A family: ``Family("gemma", norm_plus=1.0)``."""

    model_type: str
    """What its config calls itself."""
    norm_plus: float = 0.0
    """What its norms add to their weights."""
    may_rotate_partly: bool = False
    """Whether some dimensions of a head may stay as they are."""


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llama"),
        Family("mistral"),
        Family("qwen2"),
        Family("qwen3"),
        Family("smollm3"),
        Family("phi3", may_rotate_partly=True),
        Family("gemma", norm_plus=1.0),
        Family("gemma2", norm_plus=1.0),
        Family("gemma3_text", norm_plus=1.0),
    )
}
"""By ``config.model_type``. A test compares the compiled step of each with transformers."""
