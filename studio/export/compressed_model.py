"""A folder that the studio compressed, opened for a target to be written from: its plan, and its tensors one at a time.

The numbers are those that chat and were measured: no target rounds anew. Knows no target.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.architecture import empty_model, layer_map
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.config import Task, task
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.recipe import PackedWeight, Recipe, check_sizes, read_recipe
from studio.planning.choice import OPTIONS, Choice
from studio.planning.plan import Assignment, Plan
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import GROUP_SIZES, Scheme
from studio.runtime.model import compressed_config, kept_tensor, packed_weight

Writing = Generator[Progress, None, Path]
"""What writes a file or a folder and returns it; its progress counts bytes."""


@dataclass(frozen=True)
class CompressedModel:
    """What a target is written from; nothing of it is in memory but names and sizes."""

    recipe: Recipe
    checkpoint: Checkpoint
    """The model's names, layers and folder, with config and tokenizer; its weights are read by :meth:`tensors`."""
    plan: Plan

    @property
    def folder(self) -> Path:
        return self.checkpoint.path

    def tensors(self) -> Iterator[tuple[Assignment, PackedTensor | Tensor]]:
        """Yield every tensor in the model's order, read when it is asked for: codes and scales, or 16-bit numbers.

        Raises CheckpointError for what is no number.
        """
        with safe_open(self.folder / self.recipe.weights_file, framework="pt") as file:
            for a in self.plan.assignments:
                yield a, self._read(file, a)

    def _read(self, file: Any, a: Assignment) -> PackedTensor | Tensor:
        weight = self._packed.get(a.layer.name)
        return kept_tensor(file, a.layer.source) if weight is None else packed_weight(file, weight)

    @cached_property
    def _packed(self) -> dict[str, PackedWeight]:
        return {weight.name: weight for weight in self.recipe.weights}


def opened(folder: Path) -> CompressedModel:
    """Return a compressed folder as it can be written to a target, from its headers.

    Raises CheckpointError where these do not go together, or it is none.
    """
    recipe = read_recipe(folder)
    check_sizes(recipe, folder)
    config = compressed_config(folder, recipe.weights_file)
    entries = _entries(recipe, config, read_header(folder / recipe.weights_file))
    source = recipe.source
    checkpoint = Checkpoint(
        name=source.model,
        revision=source.revision,
        architecture=config.model_type,
        source_format=source.format,
        source_bytes=recipe.original_bytes,
        entries=entries,
        layers=layer_map(config, entries, lambda one, other: True),  # two tensors that are both here are two
        folder=folder,
        can_chat=task(config) is Task.DECODER,
        base_model=source.base_model,
        license=source.license,
    )
    schemes = {weight.name: Scheme.parse(weight.scheme) for weight in recipe.weights}
    assignments = tuple(Assignment(layer, schemes.get(layer.name)) for layer in checkpoint.layers)
    return CompressedModel(recipe, checkpoint, Plan(_choice(recipe), assignments, is_exact=True))


def _entries(recipe: Recipe, config: Any, held: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Return the model's tensors as its own file would name them: compressed ones by their name and 16-bit shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict(keep_vars=True).items()}
    parts = {f"{weight.name}.{part.name}" for weight in recipe.weights for part in weight.parts}
    entries = {name: entry for name, entry in held.items() if name not in parts}
    for weight in recipe.weights:
        if weight.name not in shapes:
            raise CheckpointError("tensor_no_place", tensor=weight.name[:120])
        entries[weight.name] = TensorEntry(recipe.weights_file, "BF16", shapes[weight.name], 0, 0)
    return entries


def _choice(recipe: Recipe) -> Choice:
    made = recipe.choices
    words = {name: getattr(made, name) for name in OPTIONS}
    if made.group_size not in GROUP_SIZES:  # a mode's own, which is not chosen
        words["group_size"] = None
    return Choice.of(**words)
