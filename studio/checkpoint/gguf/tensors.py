"""The tensors of a GGUF model -> the parameters of transformers' model, one after the other. Knows no files it makes.

Names and layouts are transformers' and gguf's own. That every tensor finds its place, and every parameter its tensor,
is made sure of before the first one is read: transformers fills what is missing with random numbers.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from studio.base.errors import CheckpointError
from studio.checkpoint.gguf.header import GgufHeader, GgufTensor, shown
from studio.checkpoint.gguf.model import GgufModel
from studio.checkpoint.gguf.rope import FACTOR_TENSORS, Rope, refused
from studio.checkpoint.stored_as import StoredAs, joined

PIECE_WEIGHTS = 1 << 22
"""Weights dequantized at once."""
THREADS = 4
IGNORED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")
"""Tables of angles in very old files, which every program works out itself."""
SAME_FREQUENCIES = 1e-3
"""Relative error within which fp32 works out the same frequencies."""


def dequantized(part: GgufHeader, tensor: GgufTensor) -> NDArray[np.float32]:
    """Return a tensor's values in its own shape."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[tensor.type]
    rows = math.prod(tensor.shape[:-1])
    data = np.memmap(part.path, np.uint8, "r", offset=tensor.start, shape=(rows, tensor.nbytes // rows))
    values = np.empty((rows, tensor.shape[-1]), np.float32)
    step = max(1, PIECE_WEIGHTS // tensor.shape[-1])

    def fill(start: int) -> None:
        values[start : start + step] = dequantize(data[start : start + step], kind)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(0, rows, step)):
            pass
    return values.reshape(tensor.shape)


def parameters(model: GgufModel, module: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    """Return an iterator over the parameters of ``module``, which is empty: name, values in fp32, the type they were
    stored in.

    Raises CheckpointError where a tensor is missing or has no place; the iterator does for one of another shape.
    """
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    config: Any = module.config
    processor = TENSOR_PROCESSORS.get(model.architecture, TensorProcessor)(config=config.to_dict())
    places = _places(model, module, processor)
    return _parameters(model, module, processor, places, _sources(model, module, places))


def _parameters(
    model: GgufModel, module: nn.Module, processor: Any, places: dict[str, str], sources: dict[str, list[str]]
) -> Iterator[tuple[str, Tensor, str]]:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    left = {name: len(made_of) for name, made_of in sources.items()}
    made: dict[str, Any] = {"tensors": {}}
    for name, (part, tensor) in model.tensors.items():
        target = _place(name, places)
        if target is None:
            continue
        values = dequantized(part, tensor)
        if not np.isfinite(values).all():
            raise CheckpointError("gguf_tensor_not_finite", file=part.path.name, tensor=shown(name))
        try:
            found = processor.process(weights=values, name=name, tensor_key_mapping=places, parsed_parameters=made)
        except (ValueError, IndexError, RuntimeError) as error:  # it can only be rearranged in its right shape
            raise _shape(model, name, tensor.shape, shapes[target]) from error
        if found.name is not None:
            made["tensors"][target] = torch.from_numpy(np.ascontiguousarray(found.weights))
        left[target] -= 1
        if not left[target]:
            value = made["tensors"].pop(target)
            if _without_ones(value.shape) == _without_ones(shapes[target]):  # some files leave out dimensions of 1
                value = value.reshape(shapes[target])
            if tuple(value.shape) != shapes[target]:
                raise _shape(model, name, tuple(value.shape), shapes[target])
            yield target, value, tensor.type


def stored_types(model: GgufModel, module: nn.Module) -> dict[str, StoredAs]:
    """Return parameter -> how it lies in the file, for all whose names say which tensors make them."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    config: Any = module.config
    places = _places(model, module, TENSOR_PROCESSORS.get(model.architecture, TensorProcessor)(config=config.to_dict()))
    found: dict[str, list[StoredAs]] = defaultdict(list)
    for name, (_, tensor) in model.tensors.items():
        target = _place(name, places)
        if target is not None:
            found[target].append(StoredAs(name, tensor.type, tensor.shape, tensor.nbytes))
    return {target: joined(target, parts) for target, parts in found.items()}


def is_loaded_whole(model: GgufModel) -> bool:
    """Return whether transformers has rearrangements for this architecture that only its own loading carries out."""
    from transformers.integrations.gguf import GGUF_ARCHS

    return model.architecture in GGUF_ARCHS


def loaded_whole(model: GgufModel, config: Any) -> tuple[nn.Module, Iterator[tuple[str, Tensor, str]]]:
    """Return transformers' model with all its weights in memory, in fp32, and an iterator as :func:`parameters` has it.

    Raises CheckpointError where a tensor is missing, has no place or is of another shape.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    if len(model.parts) > 1:
        raise CheckpointError("gguf_join_first", file=model.file.name, architecture=model.architecture)
    module, info = AutoModelForCausalLM.from_pretrained(
        model.file.parent,
        gguf_file=model.file.name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    for name in sorted(info["missing_keys"]):
        raise CheckpointError("tensor_missing", tensor=shown(name))
    for name in sorted(info["unexpected_keys"]):
        raise CheckpointError(
            "gguf_tensor_no_place", file=model.file.name, tensor=shown(name), architecture=model.architecture
        )
    for name, *shapes in sorted(info["mismatched_keys"]):
        raise _shape(model, name, tuple(shapes[0]), tuple(shapes[-1]))
    return module, _checked(model, module)


def _checked(model: GgufModel, module: nn.Module) -> Iterator[tuple[str, Tensor, str]]:
    tied: dict[str, str] = dict(getattr(module, "all_tied_weights_keys", {}))
    for name, values in module.state_dict().items():
        if name in tied:
            continue
        if not torch.isfinite(values).all():
            raise CheckpointError("gguf_tensor_not_finite", file=model.file.name, tensor=shown(name))
        yield name, values.float(), "F32"


def in_16_bits(values: Tensor, source: str) -> Tensor:
    """Return values in the 16-bit type that they came in, else in that which changes them less: bf16 where fp16 would
    overflow."""
    if source == "BF16":
        return values.to(torch.bfloat16)
    half = values.to(torch.float16)
    if source == "F16" and torch.isfinite(half).all():
        return half
    brain = values.to(torch.bfloat16)
    errors = [float((each.float() - values).norm()) for each in (half, brain)]
    return half if math.isfinite(errors[0]) and errors[0] <= errors[1] else brain


def check_rope(model: GgufModel, module: nn.Module, rope: Rope) -> None:
    """Raise CheckpointError where the model, built of the config, turns positions otherwise than the file says."""
    found = False
    for owner in module.modules():
        for prefix in ("", "full_attention_"):
            frequencies = getattr(owner, f"{prefix}inv_freq", None)
            if not isinstance(frequencies, Tensor):
                continue
            found = True
            scale = getattr(owner, f"{prefix}attention_scaling", 1.0)
            wanted = torch.from_numpy(rope.frequencies).float()
            same = frequencies.shape == wanted.shape and torch.allclose(
                frequencies.float(), wanted, rtol=SAME_FREQUENCIES, atol=0
            )
            if not same or abs(scale - rope.scale) > SAME_FREQUENCIES:
                raise refused(model, rope.key, str(rope.parameters["rope_type"]))
    if not found and rope.parameters["rope_type"] != "default":
        raise refused(model, rope.key, str(rope.parameters["rope_type"]))


def _places(model: GgufModel, module: nn.Module, processor: Any) -> dict[str, str]:
    """Return GGUF's name -> the parameter's, for all that the architecture can have."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next((key for key, name in MODEL_ARCH_NAMES.items() if name == model.architecture), None)
    if arch is None:
        raise CheckpointError("gguf_architecture", file=model.file.name, architecture=model.architecture)
    names = get_tensor_name_map(arch, int(model.number("block_count") or 0))
    places: dict[str, str] = {}
    for parameter in module.state_dict():
        plain = processor.preprocess_name(parameter)
        base, dot, leaf = plain.rpartition(".")
        if leaf not in ("weight", "bias"):
            base, dot, leaf = plain, "", ""
        parts = base.split(".")
        # Some models were converted from the inner one, whose names lack their first parts.
        inner = (names.get_name(".".join(parts[start:])) for start in range(len(parts)))
        name = next(filter(None, inner), None)
        if name is None:
            processor.perform_fallback_tensor_mapping(places, dot + leaf, "", plain)
        else:
            places.setdefault(name + dot + leaf, plain)
    return places


def _place(name: str, places: dict[str, str]) -> str | None:
    """Return the parameter that a tensor goes to; experts' parameters have no ``.weight``."""
    return places.get(name) or places.get(name.removesuffix(".weight"))


def _sources(model: GgufModel, module: nn.Module, places: dict[str, str]) -> dict[str, list[str]]:
    """Return parameter -> the file's tensors that make it. Raises CheckpointError unless all fit."""
    sources: dict[str, list[str]] = defaultdict(list)
    for name in model.tensors:
        target = _place(name, places)
        if target is not None:
            sources[target].append(name)
        elif name not in FACTOR_TENSORS and not IGNORED.fullmatch(name):
            raise CheckpointError(
                "gguf_tensor_no_place", file=model.file.name, tensor=shown(name), architecture=model.architecture
            )
    wanted: dict[str, list[str]] = defaultdict(list)
    for name, target in places.items():
        wanted[target].append(name)
    tied: dict[str, str] = dict(getattr(module, "all_tied_weights_keys", {}))
    for parameter in module.state_dict():
        if parameter in tied:
            continue
        for name in wanted[parameter] or [parameter]:
            if not any(_same(name, each) for each in sources[parameter]):
                raise CheckpointError(
                    "gguf_tensor_missing", file=model.file.name, tensor=shown(name), parameter=shown(parameter)
                )
    return sources


def _same(place: str, name: str) -> bool:
    return name.removesuffix(".weight") == place.removesuffix(".weight")


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _shape(model: GgufModel, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> CheckpointError:
    return CheckpointError(
        "gguf_tensor_shape", file=model.file.name, tensor=shown(name), shape=list(shape), wanted=list(wanted)
    )
