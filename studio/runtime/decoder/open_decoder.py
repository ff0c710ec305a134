"""A model's files -> its decoder, on the fastest backend of this machine. Knows nothing of chats."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from studio.base.device import device
from studio.base.errors import CheckpointError
from studio.checkpoint.architecture import empty_model, untie
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.recipe import check_files, read_recipe
from studio.checkpoint.stop_tokens import stop_ids
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Scheme
from studio.runtime.decoder import cuda_step
from studio.runtime.decoder.cpu import NativeDecoder, is_available
from studio.runtime.decoder.cuda import CudaDecoder
from studio.runtime.decoder.interface import Decoder, Reason
from studio.runtime.decoder.llama_like import shape_of
from studio.runtime.decoder.shape import DecoderShape
from studio.runtime.decoder.transformers_decoder import GeneralDecoder
from studio.runtime.model import (
    compressed_config,
    kept_tensor,
    load_compressed,
    load_original,
    packed_weight,
    read_weight,
)
from studio.runtime.native import fragments, nvrtc
from studio.runtime.native.arena import Arena
from studio.runtime.native.tiles import Tiles
from studio.runtime.native.tiling import takes, tiles_of, tiles_of_floats

LOG = logging.getLogger(__name__)
ReadTensor = Callable[[str], PackedTensor | Tensor]
"""A weight's or norm's name -> what the files hold of it. Raises CheckpointError."""


def open_original(checkpoint: Checkpoint) -> Decoder[Any]:
    """Return the uncompressed model at 16 bits. Raises CheckpointError when its files are damaged."""
    model = _empty(checkpoint.path)
    untie(model, {layer.name for layer in checkpoint.layers})
    shape = shape_of(model)
    if shape is None:
        return GeneralDecoder(load_original(checkpoint), "architecture")
    layers = {layer.name: layer for layer in checkpoint.layers}

    def read(name: str) -> Tensor:
        if name not in layers:
            raise CheckpointError("tensor_missing", tensor=name)
        layer = layers[name]
        return read_weight(checkpoint, layer, checkpoint.saved_dtype(layer))

    files = _Files(checkpoint.path, model, read, layers.keys(), ())
    return _fastest(files, shape, lambda reason: GeneralDecoder(load_original(checkpoint), reason))


def open_compressed(folder: Path) -> Decoder[Any]:
    """Return the model of an exported folder on its packed weights; none is ever held dequantized.

    Raises CheckpointError when the folder is not whole.
    """
    recipe = read_recipe(folder)
    model = empty_model(compressed_config(folder, recipe.weights_file))
    shape = shape_of(model)
    if shape is None:
        return GeneralDecoder(load_compressed(folder), "architecture")
    weights = {weight.name: weight for weight in recipe.weights}
    schemes = [Scheme.parse(weight.scheme) for weight in recipe.weights]
    check_files(recipe, folder)
    parts = {f"{weight.name}.{part.name}" for weight in recipe.weights for part in weight.parts}
    with safe_open(folder / recipe.weights_file, framework="pt") as file:
        names = set(file.keys()) - parts
        untie(model, names | set(weights))
        shape = shape_of(model) or shape

        def read(name: str) -> PackedTensor | Tensor:
            if name in weights:
                return packed_weight(file, weights[name])
            if name not in names:
                raise CheckpointError("tensor_missing", tensor=name[:120])
            return kept_tensor(file, name)

        files = _Files(folder, model, read, names | set(weights), schemes)
        return _fastest(files, shape, lambda reason: GeneralDecoder(load_compressed(folder), reason))


@dataclass(frozen=True)
class _Files:
    """A model's files, and the empty model that they are for."""

    folder: Path
    model: nn.Module
    read: ReadTensor
    names: Collection[str]
    """All that they hold."""
    schemes: Collection[Scheme]


def _fastest(files: _Files, shape: DecoderShape, fallback: Callable[[Reason], Decoder[Any]]) -> Decoder[Any]:
    """Return the model on the GPU's kernels where there is a GPU, else on the processor's, else the fallback."""
    gpu_reason: Reason = ""
    if device().type == "cuda":
        decoder = _on_cuda(_CheckedWeights(files), shape)
        if not isinstance(decoder, str):
            return decoder
        gpu_reason = decoder
    if not all(map(takes, files.schemes)) or not is_available():
        return fallback("compiler" if all(map(takes, files.schemes)) else "scheme")
    on_cpu = _native(_CheckedWeights(files), shape)
    on_cpu.reason = gpu_reason
    return on_cpu


class _CheckedWeights:
    """Weights, biases and norms of files that hold what the model asks for and nothing else; and what ends answers."""

    def __init__(self, files: _Files) -> None:
        self.files, model = files, files.model
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
        self.stop_ids = stop_ids(files.folder, model.config)
        self._sizes = {name: tuple(parameter.shape) for name, parameter in model.state_dict(keep_vars=True).items()}
        self._tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", {}))
        stray = next((name for name in files.names if name not in self._sizes), None)
        if stray is not None:
            raise CheckpointError("tensor_no_place", tensor=stray[:120])

    def weight(self, name: str) -> tuple[PackedTensor | Tensor, Tensor | None]:
        """Return a matrix and its bias, where it has one."""
        bias = f"{name.removesuffix('weight')}bias"
        return self._checked(name), self._unquantized(bias) if bias in self._sizes else None

    def norms(self) -> dict[str, Tensor]:
        """Return the norms' weights by name."""
        names = (name for name, size in self._sizes.items() if len(size) == 1 and name.endswith(".weight"))
        return {name: self._unquantized(name) for name in names if name not in self._tied}

    def _unquantized(self, name: str) -> Tensor:
        weight = self._checked(name)
        if isinstance(weight, PackedTensor):
            raise CheckpointError("tensor_mismatch", tensor=name)
        return weight

    def _checked(self, name: str) -> PackedTensor | Tensor:
        weight = self.files.read(name)
        if tuple(weight.shape) != self._sizes[name]:
            raise CheckpointError("tensor_mismatch", tensor=name)
        return weight


def _native(weights: _CheckedWeights, shape: DecoderShape) -> NativeDecoder:
    arena = Arena()
    tiles: dict[str, Tiles] = {}
    for name in shape.weights():
        weight, bias = weights.weight(name)
        made = tiles_of(weight, bias) if isinstance(weight, PackedTensor) else tiles_of_floats(weight, bias)
        tiles[name] = made.within(arena)
    return NativeDecoder(shape, tiles, weights.norms(), weights.context, weights.stop_ids)


def _on_cuda(weights: _CheckedWeights, shape: DecoderShape) -> CudaDecoder | Reason:
    """Return the decoder on the GPU, or why there is none."""
    if not nvrtc.is_available():
        return "gpu_kernels"
    if not cuda_step.takes(shape) or not all(map(fragments.takes, weights.files.schemes)):
        return "gpu_shape"
    try:
        return CudaDecoder(shape, weights.weight, weights.norms(), weights.context, weights.stop_ids)
    except torch.OutOfMemoryError as error:
        reason: Reason = "gpu_memory"
        LOG.warning("answers come from the processor, for the GPU's memory is full: %s", error)
    except (RuntimeError, OSError) as error:
        reason = "gpu_kernels"
        LOG.warning("answers come from the processor: %s", error)
    torch.cuda.empty_cache()  # what was there of the weights is gone by now
    return reason


def _empty(folder: Path) -> nn.Module:
    return empty_model(load_config(read_json(folder / CONFIG)))
