"""What ``inspect`` found, for machines and as lines to read. Decides nothing, and needs no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from studio.base.units import format_bytes, format_count
from studio.checkpoint.provenance import Provenance
from studio.checkpoint.stored_as import StoredAs, by_type
from studio.cli.terminal import say

if TYPE_CHECKING:  # what brings torch
    from studio.evaluation.weight_errors import WeightError

Errors = Mapping[str, "WeightError"] | None
"""By the tensor's name; None where nothing was compared."""


def facts_of(found: Provenance, tensors: Sequence[StoredAs], errors: Errors) -> dict[str, Any]:
    """Return everything as ``--json`` has it, each tensor and each type; ``weight_error`` where it was compared."""
    types = [
        {"type": each.type, "tensors": each.tensors, "weights": each.weights, "bytes": each.nbytes,
         "bits_per_weight": each.bits}
        | _error(error_of(each.type, tensors, errors), errors)
        for each in by_type(tensors)
    ]  # fmt: skip
    lines = [
        {"name": each.name, "type": each.type, "shape": list(each.shape), "bytes": each.nbytes,
         "bits_per_weight": each.bits}
        | _error(None if errors is None or each.name not in errors else errors[each.name].relative, errors)
        for each in tensors
    ]  # fmt: skip
    return {
        "model": found.name,
        "container": found.container,
        "architecture": found.architecture,
        "weights": found.weights,
        "bytes": found.nbytes,
        "bits_per_weight": found.bits,
        "tokenizer": found.tokenizer,
        "license": asdict(found.license),
        "quantized_by": found.quantized_by,
        "recipe": found.recipe,
        "source": found.source,
        "revision": found.revision,
        "types": types,
        "tensors": lines,
    }


def heading_of(found: Provenance) -> str:
    """Return the model in a line: ``model.gguf (llama, GGUF)``."""
    return f"{found.name} ({found.architecture}, {found.container})"


def rows_of(found: Provenance, tensors: Sequence[StoredAs], errors: Errors, every: bool) -> list[tuple[str, str]]:
    """Return what was found to be read: facts, then types, then, of ``every``, each tensor."""
    facts = [
        ("inspect_weights", format_count(found.weights)),
        ("inspect_size", say("inspect_bits", size=format_bytes(found.nbytes), bits=f"{found.bits:.2f}")),
        ("inspect_tokenizer", found.tokenizer),
        ("inspect_license", found.license.name or found.license.id),
        ("inspect_by", found.quantized_by),
        ("inspect_recipe", found.recipe),
        ("inspect_source", found.source),
    ]
    rows = [(say(key), value) for key, value in facts if value]
    for each in by_type(tensors):
        words = say("inspect_type", tensors=each.tensors, size=format_bytes(each.nbytes), bits=f"{each.bits:.2f}")
        rows.append((f"  {each.type}", words + _shown(error_of(each.type, tensors, errors))))
    if every:
        for tensor in tensors:
            shape = " × ".join(map(str, tensor.shape))
            words = f"{tensor.type}, {shape}, {format_bytes(tensor.nbytes)}, {tensor.bits:.2f}"
            error = None if errors is None or tensor.name not in errors else errors[tensor.name].relative
            rows.append((f"    {tensor.name}", words + _shown(error)))
    return rows


def error_of(kind: str, tensors: Iterable[StoredAs], errors: Errors) -> float | None:
    """Return ‖W − Ŵ‖ / ‖W‖ over all tensors of a type; None where none of them was compared."""
    some = [errors[each.name] for each in tensors if each.type == kind and each.name in errors] if errors else []
    return sum(some[1:], some[0]).relative if some else None


def _error(error: float | None, errors: Errors) -> dict[str, float | None]:
    return {} if errors is None else {"weight_error": error}


def _shown(error: float | None) -> str:
    return "" if error is None else say("inspect_error", error=f"{error:.4f}")
