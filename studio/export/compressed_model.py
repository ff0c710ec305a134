"""A folder that the studio compressed, opened for a target to be written from: its plan, and its tensors one at a time.

The numbers are those that chat and were measured: no target rounds anew. Knows no target.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.architecture import empty_model, layer_map
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.config import Task, task
from studio.checkpoint.file_names import LEFT_OUT
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.recipe import PackedWeight, Recipe, check_sizes, read_recipe
from studio.export.stored_rows import StoredRows
from studio.planning.plan import Assignment, Plan
from studio.planning.recipe_plan import choice_of
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Scheme
from studio.runtime.model import compressed_config, finite

PIECE_BYTES = 8 << 20
"""Of a tensor, read at once."""
Writing = Generator[Progress, None, Path]
"""What writes a file or a folder and returns it; its progress counts bytes."""


@dataclass(frozen=True)
class CompressedModel:
    """What a target is written from; nothing of it is in memory but names and sizes."""

    recipe: Recipe
    checkpoint: Checkpoint
    """The model's names, layers and folder, with config and tokenizer; its weights are read by :meth:`pieces`."""
    plan: Plan
    stored: Mapping[str, TensorEntry]
    """What the file with the weights holds, by its header."""
    left_out: Mapping[str, TensorEntry] = field(default_factory=dict)
    """What it carries beside the model, by the header of that file."""
    checksums: dict[Path, str] = field(default_factory=dict)
    """SHA-256 of files that were written of it, where the target found it on the way; others are read once more."""

    @property
    def folder(self) -> Path:
        return self.checkpoint.path

    def tensors(self) -> Iterator[tuple[Assignment, PackedTensor | Tensor]]:
        """Yield every tensor in the model's order, read when it is asked for: codes and scales, or 16-bit numbers.

        Raises CheckpointError for what is no number.
        """
        for a, _, tensor in self.pieces(most=None):
            yield a, tensor

    def pieces(
        self, most: int | None = PIECE_BYTES, whole_rows: Callable[[Assignment], int] = lambda _: 1
    ) -> Iterator[tuple[Assignment, int, PackedTensor | Tensor]]:
        """Yield every tensor in the model's order as pieces that follow one another, each with its first row.

        A piece has about ``most`` bytes, and a multiple of ``whole_rows`` rows of its tensor; None is all of it. Raises
        CheckpointError for what is no number.
        """
        with StoredRows(self.folder / self.recipe.weights_file, self.stored) as file:
            for a in self.plan.assignments:
                weight = self._packed.get(a.layer.name)
                names = [a.layer.source] if weight is None else [f"{a.layer.name}.{part.name}" for part in weight.parts]
                first = self.stored[names[0]]
                rows = first.shape[0] if first.shape else 1
                step = rows if most is None else self._step(names, rows, most, whole_rows(a))
                for start in range(0, max(rows, 1), max(step, 1)):
                    stop = min(start + step, rows)
                    yield (
                        a,
                        start,
                        _kept(file, names[0], start, stop) if weight is None else _packed(file, weight, start, stop),
                    )

    def _step(self, names: Sequence[str], rows: int, most: int, whole: int) -> int:
        """Return how many rows are read at once: all of a tensor whose arrays do not all go by its rows."""
        entries = [self.stored[name] for name in names]
        if any(not entry.shape or entry.shape[0] != rows for entry in entries):
            return rows
        nbytes = sum(entry.nbytes for entry in entries)
        return max(rows * most // max(nbytes, 1) // whole, 1) * whole

    @cached_property
    def _packed(self) -> dict[str, PackedWeight]:
        return {weight.name: weight for weight in self.recipe.weights}


def _packed(file: StoredRows, weight: PackedWeight, start: int, stop: int) -> PackedTensor:
    arrays = {part.name: f"{weight.name}.{part.name}" for part in weight.parts}
    rows, width = weight.shape
    is_whole = stop - start == rows
    read = {
        part: finite(name, file.read(name) if is_whole else file.read(name, start, stop))
        for part, name in arrays.items()
    }
    return PackedTensor.of(Scheme.parse(weight.scheme), (stop - start, width), read)


def _kept(file: StoredRows, name: str, start: int, stop: int) -> Tensor:
    return finite(name, file.read(name, start, stop))


def opened(folder: Path) -> CompressedModel:
    """Return a compressed folder as it can be written to a target, from its headers.

    Raises CheckpointError where these do not go together, or it is none.
    """
    recipe = read_recipe(folder)
    check_sizes(recipe, folder)
    config = compressed_config(folder, recipe.weights_file)
    stored = read_header(folder / recipe.weights_file)
    entries = _entries(recipe, config, stored)
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
        languages=source.languages,
    )
    schemes = {weight.name: Scheme.parse(weight.scheme) for weight in recipe.weights}
    assignments = tuple(Assignment(layer, schemes.get(layer.name)) for layer in checkpoint.layers)
    plan = Plan(choice_of(recipe), assignments, is_exact=True)
    left_out = read_header(folder / LEFT_OUT) if LEFT_OUT in recipe.sha256 and (folder / LEFT_OUT).is_file() else {}
    return CompressedModel(recipe, checkpoint, plan, stored, left_out)


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
