"""Which families there are, how each is tried, and what its answers may differ by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from studio.checkpoint.checkpoint import Checkpoint, of_folder, read_json
from studio.checkpoint.config import REFUSED, load_config
from tests.families import tiny

FAMILIES = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""Every language model that transformers names."""
TEXT_TWINS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Models that also see, whose text part is another family's."""
IN_PARTS = ("gemma3n", "llama4")
"""Those whose other parts cannot be built small here."""

EXACT = 5e-3
"""Relative error of the logits where the studio computes in fp32: nothing but the order of sums differs."""


def bound(bf16: float) -> float:
    """Return the bound for a model at 16 bits, from what bf16 alone costs transformers on it.

    The first part is what one router costs that goes the other way for a few tokens.
    """
    return 0.05 + 2 * bf16


def bound_of_int8(bf16: float) -> float:
    """Return the bound for a compressed one."""
    return 0.05 + 4 * bf16


@dataclass(frozen=True)
class Tiny:
    """A family's tiny model: as transformers reads it, and as the studio does."""

    folder: Path
    model: Any
    checkpoint: Checkpoint

    def in_bf16(self) -> Any:
        """Return transformers' model computing in bf16; that of a part is the one there is, converted."""
        is_part = self.model.config.model_type != read_json(self.folder / "config.json")["model_type"]
        return self.model.to(torch.bfloat16) if is_part else tiny.loaded(self.model, self.folder, torch.bfloat16)


def opened(family: str, folder: Path) -> Tiny:
    """Save and open a family's tiny model. Raises the ModelError by which a family is refused."""
    if family in REFUSED:
        load_config({"model_type": family})
    model = (tiny.save_as_part if family in IN_PARTS else tiny.save)(family, folder)
    return Tiny(folder, model, of_folder(folder))
