"""The packed formats that can be read, in one place, and what they make of a file's tensors. Knows no models.

A weight that is packed into several tensors becomes one entry more, under the weight's own name and with its own shape,
so that nothing above needs to know how it lies in the file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.packed import awq, compressed_tensors, gptq, mlx
from studio.checkpoint.packed.packing import Index, Packing

if TYPE_CHECKING:  # headers need no torch
    from torch import Tensor

ReadBytes = Callable[[TensorEntry], bytes]
"""A small tensor -> its bytes. Raises what the place where it lies raises."""


@dataclass(frozen=True)
class PackedFormat:
    """What a format's file has for everybody."""

    settings: Callable[[Mapping[str, Any]], object]
    """Raises ModelError for a ``quantization_config`` that is not read."""
    described: Callable[..., Any]
    """Config, entries, how a shape is read and whether it is near -> each weight's module, packing, dtype of scales."""
    places: Callable[[Packing, int, int], dict[str, Index]]
    values: "Callable[[Packing, Mapping[str, Tensor], int, int], Tensor]"
    is_by_columns: bool
    """Whether a few rows of a weight cost as much to read as all of it."""
    codes: str = ""
    """What is added to the name of codes that are called as the weight is, so that this can be the weight's."""


FORMATS = {
    "gptq": PackedFormat(
        gptq.settings, lambda said, entries, *_: gptq.described(said, entries), gptq.places, gptq.values, True
    ),
    "awq": PackedFormat(
        awq.settings, lambda said, entries, *_: awq.described(said, entries), awq.places, awq.values, True
    ),
    "compressed-tensors": PackedFormat(
        compressed_tensors.settings,
        compressed_tensors.described,
        compressed_tensors.places,
        compressed_tensors.values,
        False,
    ),
    "mlx": PackedFormat(
        mlx.settings, lambda said, entries, *_: mlx.described(said, entries), mlx.places, mlx.values, False, mlx.CODES
    ),
}
"""By the ``quant_method`` of a config, but for MLX's, which names none."""


def format_of(quantization: Any) -> PackedFormat | None:
    """Return the packed format that a ``quantization_config`` is of, None for one of another kind."""
    if mlx.is_mlx(quantization):
        return FORMATS["mlx"]
    if not isinstance(quantization, Mapping) or not isinstance(method := quantization.get("quant_method"), str):
        return None
    if method == "compressed-tensors" and quantization.get("format") == compressed_tensors.FLOAT:
        return None
    return FORMATS.get(method)


def quantization_of(config: Mapping[str, Any]) -> Any:
    """Return what a config says of its quantization; older MLX folders have a place of their own for it."""
    own = config.get(mlx.KEY)
    return own if mlx.is_mlx(own) else config.get("quantization_config")


def with_packed(
    config: Mapping[str, Any], entries: Mapping[str, TensorEntry], read: ReadBytes, is_near: bool
) -> Mapping[str, TensorEntry]:
    """Return the tensors of a file, and beside them the weights that some of them are packed into.

    Raises ModelError for a config that is not read, CheckpointError for tensors that do not fit each other.
    """
    quantization = quantization_of(config)
    kind = format_of(quantization)
    if kind is None or not isinstance(quantization, Mapping):
        return entries
    kind.settings(quantization)
    weights: dict[str, TensorEntry] = {}
    for module, packing, dtype in kind.described(quantization, entries, read, is_near):
        name = f"{module}.weight"
        own = dict(packing.parts)["codes"]
        if (own if kind.codes else name) in entries:
            raise CheckpointError("tensor_twice", tensor=name[:120])
        codes = entries[own.removesuffix(kind.codes)]
        if kind.codes:
            weights[own] = codes
        weights[name] = TensorEntry(codes.file, dtype, packing.shape, codes.start, codes.end, packing)
    return {**entries, **weights}
