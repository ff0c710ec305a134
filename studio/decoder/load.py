"""Files -> a model that speaks, by the fastest way it has on this machine."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from studio.architecture import empty_model
from studio.checkpoint import Checkpoint, read_json
from studio.configs import load_config
from studio.decoder.general import GeneralDecoder, stop_ids
from studio.decoder.interface import Decoder, Reason
from studio.decoder.native import NativeDecoder, is_available
from studio.decoder.shape import DecoderShape, shape_of
from studio.errors import CheckpointError
from studio.model import load_compressed, load_original, packed_weight, whole
from studio.model_files import WEIGHTS
from studio.native.arena import Arena
from studio.native.tiles import Tiles, takes, tiles_of, tiles_of_floats
from studio.packing import PackedTensor
from studio.recipe import check_files, read_recipe
from studio.scheme import Scheme

Read = Callable[[str], PackedTensor | Tensor]
"""A weight's or norm's name -> what the files hold of it. Raises CheckpointError."""


def open_original(checkpoint: Checkpoint) -> Decoder[Any]:
    """Return the uncompressed model at 16 bits. Raises CheckpointError when its files are damaged."""
    model = _empty(checkpoint.path)
    shape = shape_of(model)
    if shape is None or not is_available():
        return GeneralDecoder(load_original(checkpoint), "architecture" if shape is None else "compiler")
    layers = {layer.name: layer for layer in checkpoint.layers}

    def read(name: str) -> Tensor:
        if name not in layers:
            raise CheckpointError("tensor_missing", tensor=name)
        layer = layers[name]
        return whole(checkpoint, layer, checkpoint.saved_dtype(layer))

    return _native(model, shape, read, layers, checkpoint.path)


def open_compressed(folder: Path) -> Decoder[Any]:
    """Return the model of an exported folder on its packed weights; none is ever held dequantized.

    Raises CheckpointError when the folder is not whole.
    """
    recipe = read_recipe(folder)
    model = _empty(folder)
    shape = shape_of(model)
    weights = {weight.name: weight for weight in recipe.weights}
    fits = all(takes(Scheme.parse(weight.scheme)) and weight.name.endswith(".weight") for weight in recipe.weights)
    if shape is None or not fits or not is_available():
        reason: Reason = "architecture" if shape is None else "compiler" if fits else "scheme"
        return GeneralDecoder(load_compressed(folder), reason)
    check_files(recipe, folder)
    parts = {f"{weight.name}.{part.name}" for weight in recipe.weights for part in weight.parts}
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = set(file.keys()) - parts

        def read(name: str) -> PackedTensor | Tensor:
            if name in weights:
                return packed_weight(file, weights[name])
            if name not in names:
                raise CheckpointError("tensor_missing", tensor=name[:120])
            found: Tensor = file.get_tensor(name)
            return found

        return _native(model, shape, read, names | set(weights), folder)


def _native(
    model: nn.Module, shape: DecoderShape, read: Read, names: Mapping[str, object] | set[str], folder: Path
) -> NativeDecoder:
    """Return the compiled decoder of these weights, ``names`` being all that the files hold."""
    sizes = {name: tuple(parameter.shape) for name, parameter in model.state_dict(keep_vars=True).items()}
    tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", {}))
    stray = next((name for name in names if name not in sizes), None)
    if stray is not None:
        raise CheckpointError("tensor_mismatch", tensor=stray[:120])

    def checked(name: str) -> PackedTensor | Tensor:
        found = read(name)
        if tuple(found.shape) != sizes[name]:
            raise CheckpointError("tensor_mismatch", tensor=name)
        return found

    arena = Arena()
    tiles: dict[str, Tiles] = {}
    for name in shape.weights():
        bias = checked(f"{name.removesuffix('weight')}bias") if f"{name.removesuffix('weight')}bias" in sizes else None
        weight = checked(name)
        make = tiles_of if isinstance(weight, PackedTensor) else tiles_of_floats
        tiles[name] = make(weight, bias).within(arena)  # type: ignore[arg-type]
    norms: dict[str, Tensor] = {
        name: checked(name)  # type: ignore[misc]
        for name, size in sizes.items()
        if len(size) == 1 and name.endswith(".weight") and name not in tied
    }
    return NativeDecoder(shape, tiles, norms, _context(model), _stop_ids(folder))


def _empty(folder: Path) -> nn.Module:
    return empty_model(load_config(read_json(folder / "config.json")))


def _context(model: nn.Module) -> int:
    return int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)


def _stop_ids(folder: Path) -> frozenset[int]:
    """Return the ids that end an answer by ``generation_config.json``, where there is one."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return frozenset()
    found = read_json(path).get("eos_token_id")
    ids = found if isinstance(found, list) else [found]
    if not all(each is None or type(each) is int for each in ids):
        raise CheckpointError("damaged_file", file=path.name)
    return stop_ids([each for each in ids if each is not None])
