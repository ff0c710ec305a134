"""Models that run: the original at 16 bits, and a compressed folder on its packed weights. Knows nothing of chats.

Both compute in bf16, the one dtype torch's packed products are fast in, so that the two differ in their weights only.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from studio.base.errors import CheckpointError
from studio.checkpoint.architecture import empty_model, untie
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.config_values import check_counts
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.headers import read_header
from studio.checkpoint.layers import Layer
from studio.checkpoint.recipe import PackedWeight, check_files, read_recipe
from studio.checkpoint.stop_tokens import stop_ids
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer as load_tokenizer
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Scheme
from studio.runtime.kernels import Lookup, PackedEmbedding, PackedLinear, PackedStack, Product, lookup_for, product_for

COMPUTE = torch.bfloat16
NAN_BYTES = {torch.float8_e4m3fn: 0x7F, torch.float8_e8m0fnu: 0xFF}
"""The bits that are all set where one of an export's 8-bit floats is no number; neither kind has an infinity."""
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""What configs call the number of experts of a layer."""


def load_original(checkpoint: Checkpoint) -> nn.Module:
    """Return the uncompressed model in bf16. Raises CheckpointError when its files are damaged."""
    config = load_config(read_json(checkpoint.path / CONFIG))
    model = empty_model(config, COMPUTE)
    untie(model, {layer.name for layer in checkpoint.layers})
    for layer in checkpoint.layers:
        stored = read_weight(checkpoint, layer)
        for name in (layer.name, *layer.tied):
            _put(model, name, stored)
    return _finished(model, checkpoint.path)


def read_weight(checkpoint: Checkpoint, layer: Layer, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor as the model's parameter, in bf16 or ``dtype``. Raises CheckpointError for a damaged file."""
    flat = torch.empty(layer.numel, dtype=dtype or COMPUTE)
    done = 0
    for piece in checkpoint.stored(layer):
        flat[done : done + piece.numel()] = piece
        done += piece.numel()
    return flat.reshape(layer.stored_shape)


def load_compressed(folder: Path) -> nn.Module:
    """Return the model of an exported folder, running on its packed weights; none is ever held dequantized.

    Raises CheckpointError when the folder is not whole.
    """
    recipe = read_recipe(folder)
    check_files(recipe, folder)
    model = empty_model(compressed_config(folder, recipe.weights_file), COMPUTE)
    parts = {f"{weight.name}.{part.name}" for weight in recipe.weights for part in weight.parts}
    with safe_open(folder / recipe.weights_file, framework="pt") as file:
        untie(model, (set(file.keys()) - parts) | {weight.name for weight in recipe.weights})
        for weight in recipe.weights:
            _put_packed(model, weight, packed_weight(file, weight))
        parameters = dict(model.state_dict(keep_vars=True))
        for name in set(file.keys()) - parts:
            if name not in parameters:
                raise CheckpointError("tensor_no_place", tensor=name[:120])
            tensor = file.get_tensor(name)
            if tensor.shape != parameters[name].shape:
                raise CheckpointError("tensor_mismatch", tensor=name)
            _put(model, name, finite(name, tensor).to(COMPUTE, copy=True))
    _tie_kept(model)
    return _finished(model, folder)


def compressed_config(folder: Path, weights: str) -> Any:
    """Return the config of an exported folder. Raises CheckpointError where the file ``weights`` cannot be of it."""
    config = load_config(read_json(folder / CONFIG))
    check_counts(config, len(read_header(folder / weights)))
    return config


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes that a model's weights take in memory, each storage once; buffers of a layout included."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*model.parameters(), *model.buffers())
    }
    return sum(storages.values())


def passed_by(model: nn.Module) -> int:
    """Return the bytes of weights that a step of one token does not read: of an embedding that is no head, all but a
    row; of experts, those not called."""
    config: Any = getattr(model, "config", None)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    used = set() if head is None else {t.data_ptr() for t in (*head.parameters(), *head.buffers())}
    passed = 0
    if embedding is not None:
        tensors = (*embedding.parameters(), *embedding.buffers())
        passed += sum(t.nbytes for t in tensors if t.data_ptr() not in used)
    experts = next((n for n in (getattr(config, a, None) for a in EXPERT_COUNTS) if n), 0)
    called = getattr(config, "num_experts_per_tok", None) or experts
    if experts:
        stacks = {id(m): m for m in model.modules() if isinstance(m, PackedStack)}
        held = sum(t.nbytes for m in stacks.values() for t in (*m.parameters(), *m.buffers()))
        held += sum(p.nbytes for p in model.parameters() if p.ndim == 3 and p.shape[0] == experts)
        passed += held * (experts - called) // experts
    return passed


def slow_schemes(model: nn.Module) -> bool:
    """Return whether some weights have no packed product on this machine and are dequantized tile by tile."""
    return any(isinstance(module, Product | PackedStack) and not module.is_fast for module in model.modules())


def packed_weight(file: Any, weight: PackedWeight) -> PackedTensor:
    """Return a weight's stored arrays, copied out of the mapped file. Raises CheckpointError for what is no number."""
    scheme = Scheme.parse(weight.scheme)
    names = {part.name: f"{weight.name}.{part.name}" for part in weight.parts}
    arrays: dict[str, Tensor] = {part: finite(name, file.get_tensor(name)).clone() for part, name in names.items()}
    return PackedTensor.of(scheme, weight.shape, arrays)


def kept_tensor(file: Any, name: str) -> Tensor:
    """Return a tensor that was kept at 16 bits. Raises CheckpointError where it holds what is no number."""
    return finite(name, file.get_tensor(name))


def finite(name: str, stored: Tensor) -> Tensor:
    """Return ``stored`` as it is. Raises CheckpointError for NaN or infinity: all that is computed from it would be.

    8-bit floats have no function of torch's that tells.
    """
    if stored.dtype in NAN_BYTES:
        mask = NAN_BYTES[stored.dtype]
        sound = not bool((stored.view(torch.uint8) & mask == mask).any())
    else:
        sound = not stored.is_floating_point() or bool(stored.isfinite().all())
    if not sound:
        raise CheckpointError("not_finite", tensor=name[:120])
    return stored


def _put_packed(model: nn.Module, weight: PackedWeight, packed: PackedTensor) -> None:
    """Replace the module of a weight, and of those tied to it, by one on the packed weight; experts by their stack."""
    owners = [_owner(model, name, weight) for name in (weight.name, *weight.tied)]
    leaf = weight.name.rpartition(".")[2]
    parameter = owners[0].get_parameter(leaf)
    if parameter.ndim == 3:
        delattr(owners[0], leaf)
        owners[0].add_module(leaf, PackedStack(packed, parameter.shape[0], weight.transposed))
        return
    is_lookup = any(isinstance(owner, nn.Embedding) for owner in owners)
    product: Product = lookup_for(packed) if is_lookup else product_for(packed)
    for name, owner in zip((weight.name, *weight.tied), owners, strict=True):
        path = name.removesuffix(".weight")
        bias = getattr(owner, "bias", None)
        if isinstance(owner, nn.Embedding) and isinstance(product, Lookup):
            model.set_submodule(path, PackedEmbedding(product, getattr(owner, "embed_scale", None)))
        else:
            model.set_submodule(path, PackedLinear(product, bias))


def _owner(model: nn.Module, name: str, weight: PackedWeight) -> nn.Module:
    """Return the module whose weight this is. Raises CheckpointError when the model has none of that name and shape."""
    path, _, leaf = name.rpartition(".")
    try:
        owner = model.get_submodule(path)
        *experts, high, wide = owner.get_parameter(leaf).shape
        rows, width = (wide, high) if weight.transposed else (high, wide)
        if len(experts) == (leaf != "weight") and (math.prod(experts) * rows, width) == weight.shape:
            return owner
    except AttributeError as error:
        raise CheckpointError("tensor_no_place", tensor=name[:120]) from error
    except ValueError:
        pass
    raise CheckpointError("tensor_mismatch", tensor=name[:120])


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a parameter or buffer by its full name."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor
    else:
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))


def _tie_kept(model: nn.Module) -> None:
    """Let parameters tied to one that was kept at 16 bits share its tensor."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for twin, owner in model.all_tied_weights_keys.items():  # type: ignore[union-attr,operator]
        if owner in parameters and not parameters[owner].is_meta:
            _put(model, twin, parameters[owner].data)


def _finished(model: nn.Module, folder: Path) -> nn.Module:
    """Check that nothing was left on the meta device, and note what ends an answer."""
    from transformers import GenerationConfig

    missing = next((name for name, value in model.state_dict().items() if value.is_meta), None)
    if missing is not None:
        raise CheckpointError("tensor_missing", tensor=missing)
    stops = sorted(stop_ids(folder, model.config))
    model.generation_config = GenerationConfig(eos_token_id=stops or None)
    return model.eval().requires_grad_(False)
