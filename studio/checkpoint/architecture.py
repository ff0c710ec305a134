"""What a model is made of, from its config and tensor names alone. Knows nothing of weights' values.

transformers builds the module tree on the meta device, so what counts as a linear weight, an embedding or a head is
the model's own code's word, not a guess from names.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.config import Task, task
from studio.checkpoint.config import load_config as load_config
from studio.checkpoint.config_values import check_counts, refused
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.module_tree import module_tree
from studio.checkpoint.source_formats import StoredTensor
from studio.checkpoint.tensor_names import sources

DEFINING_LINEAR = frozenset({"Linear", "FalconLinear"})
"""Linear modules that compute x @ W.T and no more; routers that also pick are kept as they are."""
Differ = Callable[[str, str], bool]
"""Names of two of the file's tensors -> whether their values differ."""


def empty_model(config: Any, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Return the model with its parameters on the meta device and its buffers real, for computing in ``dtype``.

    Raises CheckpointError when the config makes no model.
    """
    try:
        try:
            return module_tree(config, "sdpa", dtype)
        except ValueError:  # an architecture without torch's fused attention
            return module_tree(config, "eager", dtype)
    except Exception as error:  # impossible sizes and names raise whatever the model's own code does
        raise refused(error, config.to_dict()) from error


def layer_map(config: Any, entries: Mapping[str, TensorEntry], differ: Differ | None = None) -> tuple[Layer, ...]:
    """Return every tensor of the model, in the model's order, matched with the checkpoint's.

    ``differ`` says whether two of the file's tensors have other values: two that a config ties and that have are two.
    Without it they are one.

    Raises CheckpointError when a tensor is missing or of another shape or type than the config promises, ModelError
    when transformers makes one of the file's in a way that the studio does not know, or one is of whole numbers.
    """
    check_counts(config, len(entries))
    try:
        # Buffers without memory too: a table of a billion positions costs nothing.
        model = module_tree(config, "eager", torch.bfloat16, has_buffers=False)
    except Exception as error:  # impossible sizes and names raise whatever the model's own code does
        raise refused(error, config.to_dict()) from error
    modules = dict(model.named_modules())
    try:
        found = sources(model, entries)
    except ValueError as error:  # a name with a number of thousands of digits
        raise CheckpointError("bad_tensor_name", file=next(iter(entries.values())).file) from error
    if differ is not None:
        ties: dict[str, str] = model.all_tied_weights_keys  # type: ignore[assignment]
        twice = [(twin, owner) for twin, owner in ties.items() if found.get(twin) and found.get(owner)]
        untie(model, {name for pair in twice if differ(*(found[each][0] for each in pair)) for name in pair})
    tied: dict[str, str] = dict(model.all_tied_weights_keys)  # type: ignore[arg-type]
    twins: dict[str, tuple[str, ...]] = {}
    for twin, owner in tied.items():
        twins[owner] = (*twins.get(owner, ()), twin)
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in tied:
            continue
        if not tensor.is_floating_point():
            raise ModelError("whole_numbers", architecture=config.model_type, tensor=name)
        same = twins.get(name, ())
        made_of = next((found[each] for each in (name, *same) if found.get(each)), None)
        if made_of is None:
            raise CheckpointError("tensor_missing", tensor=name)
        path, _, leaf = name.rpartition(".")
        kind, transposed = _kind(modules[path], leaf, tensor, head)
        parts = [StoredTensor(each, entries) for each in made_of]
        if not _fit(tuple(tensor.shape), parts, kind, transposed) or (transposed and len(parts) > 1):
            raise CheckpointError("tensor_mismatch", tensor=name)
        shape = (*tensor.shape[:-2], *reversed(tensor.shape[-2:])) if transposed else tuple(tensor.shape)
        layers.append(Layer(name, made_of, kind, shape, transposed, same, _side(config, name)))
    return tuple(layers)


def untie(model: nn.Module, held: Collection[str]) -> None:
    """Let parameters be two where both are held, whatever the config says of tying, as transformers does."""
    ties: dict[str, str] = model.all_tied_weights_keys  # type: ignore[assignment]
    for twin in [twin for twin, owner in ties.items() if twin in held and owner in held]:
        del ties[twin]
        path, _, leaf = twin.rpartition(".")
        module = model.get_submodule(path)
        empty = torch.empty_like(module.get_parameter(leaf), device="meta")
        module.register_parameter(leaf, nn.Parameter(empty, requires_grad=False))


def _fit(shape: tuple[int, ...], parts: Sequence[StoredTensor], kind: Kind, is_transposed: bool) -> bool:
    """Return whether the file's tensors, stacked along their rows, make a parameter of this shape."""
    if not all(part.check() for part in parts):
        return False
    shapes = [part.shape for part in parts]
    if len(parts) == 1:
        swapped = (*shape[:-2], *reversed(shape[-2:]))
        if parts[0].is_packed:
            return kind is not Kind.OTHER and shapes[0] == (swapped if is_transposed else shape)
        return shapes[0] == shape or (kind is Kind.LINEAR and len(shape) == 3 and shapes[0] == swapped)
    if any(not each or each[1:] != shapes[0][1:] for each in shapes):
        return False
    if len(shapes[0]) == len(shape):  # fused
        return shapes[0][1:] == shape[1:] and sum(each[0] for each in shapes) == shape[0]
    each, rest = divmod(len(parts), shape[0] or 1)  # one or several of every expert
    if rest or len(shapes[0]) != len(shape) - 1 or shapes[0][1:] != shape[2:]:
        return False
    experts = (shapes[start : start + each] for start in range(0, len(shapes), each))
    return all(sum(part[0] for part in expert) == shape[1] for expert in experts)


def _kind(module: nn.Module, leaf: str, tensor: torch.Tensor, head: nn.Module | None) -> tuple[Kind, bool]:
    """Return a parameter's kind and whether the model holds it [K, N] or [E, K, N]."""
    from transformers.pytorch_utils import Conv1D

    if not tensor.numel():
        return Kind.OTHER, False
    if tensor.ndim == 3 and _has_experts(module):
        return Kind.LINEAR, bool(module.is_transposed)
    if leaf != "weight" or tensor.ndim != 2:
        return Kind.OTHER, False
    if module is head:  # one that does more than multiply stays as it is
        return (Kind.HEAD if type(module).forward is nn.Linear.forward else Kind.OTHER), False
    if isinstance(module, nn.Embedding):
        is_plain = type(module).forward is nn.Embedding.forward or hasattr(module, "embed_scale")
        return (Kind.EMBEDDING if is_plain else Kind.OTHER), False  # OPT's table of positions counts on its own
    if isinstance(module, Conv1D):
        return Kind.LINEAR, True
    is_linear = isinstance(module, nn.Linear) and type(module).__name__ in DEFINING_LINEAR
    return (Kind.LINEAR if is_linear else Kind.OTHER), False


def _has_experts(module: nn.Module) -> bool:
    """Return whether a module holds experts that its own code takes one by one, as transformers marks them."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate")


def _side(config: Any, name: str) -> str:
    sides = ("encoder", "decoder") if task(config) is Task.ENCODER_DECODER else ()
    return next((part for part in name.split(".") if part in sides), "")
