"""The MLX target: weights as MLX packs them, config, tokenizer and card in one folder. Rounds nothing.

Activations have the dtype of scales and of what is not compressed. Scales are fp16, so that the rest is made fp16 too
where it holds each of its numbers exactly; elsewhere it stays what it is, and mlx-lm computes in 32 bits. Knows no
other target.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.base.errors import ModelError, SchemeError, UserError
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import QUANTIZATION, load_config
from studio.checkpoint.file_names import CARD, CONFIG, WEIGHTS
from studio.checkpoint.layers import Kind
from studio.checkpoint.tensor_writer import DTYPE_NAMES, Slot, TensorFile
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.mlx.arrays import ROUNDED, Settings, arrays_of, becomes, settings_of
from studio.export.mlx.families import FAMILIES, family_of
from studio.export.model_card import folder_card
from studio.export.model_folder import ModelFolder, Parts, as_json, files_beside
from studio.export.target import Target
from studio.planning.plan import Assignment, Plan
from studio.planning.presets import Words
from studio.quantization.packing import PackedTensor

METADATA = {"format": "mlx"}
MODE = "affine"
USAGE = """## Run it

On a Mac, with mlx-lm (`pip install mlx-lm`), here and as a server that speaks OpenAI's API:

```
mlx_lm.chat --model PATH_OF_THIS_FOLDER
mlx_lm.server --model PATH_OF_THIS_FOLDER --port 8080
```

LM Studio lists it once it lies in its folder of models.
"""


def refusal(plan: Plan, checkpoint: Checkpoint) -> UserError | None:
    """Return why a plan cannot be an MLX folder as it is."""
    for a in plan.assignments:
        if a.layer.kind is not Kind.OTHER and (a.layer.transposed or len(a.layer.shape) != 2):
            return ModelError("to_mlx_tensor", tensor=a.layer.name[:120], family=checkpoint.architecture[:60])
    misfits = [a for a in plan.assignments if a.scheme and settings_of(a.scheme, a.layer.matrix[1]) is None]
    if misfits:  # a linear weight's scheme is the one that was chosen, others follow from it
        return _no_layout(next((a for a in misfits if a.layer.kind is Kind.LINEAR), misfits[0]))
    if checkpoint.folder is None:
        if checkpoint.architecture in FAMILIES:
            return None
        return ModelError("to_mlx_family", family=checkpoint.architecture[:60], families=", ".join(FAMILIES))
    try:
        family_of(load_config(read_json(checkpoint.folder / CONFIG)))
    except UserError as error:
        return error
    return None


def _no_layout(a: Assignment) -> UserError:
    """Return what is said of a weight in a scheme that MLX does not hold."""
    width, scheme = a.layer.matrix[1], a.scheme
    other = None if scheme is None else becomes(scheme, width)
    if scheme is None or other is None:
        return SchemeError("to_mlx_width", layer=a.layer.name[:120], width=width)
    key = "to_mlx_zero_point" if scheme.mode.grid.codes in ROUNDED else "to_mlx_scheme"
    return SchemeError(
        key, layer=a.layer.name[:120], scheme=str(scheme), mode=other.mode.value, group_size=other.group_size
    )


def size(plan: Plan) -> int:
    """Return the bytes of all tensors there; of a scheme that is refused anyway, its bytes here."""
    return sum(_nbytes(a) for a in plan.assignments)


def _nbytes(a: Assignment) -> int:
    settings = None if a.scheme is None else settings_of(a.scheme, a.layer.matrix[1])
    return a.nbytes if settings is None else sum(slot.nbytes for slot in settings.slots(a.layer.matrix).values())


def laid_out(model: CompressedModel) -> ModelFolder:
    """Return what a folder of a compressed model holds."""
    config = load_config(read_json(model.folder / CONFIG))
    family = family_of(config)
    is_half = _are_halves(model)
    slots: dict[str, Slot] = {}
    modules: dict[str, Settings | None] = {}
    for a in model.plan.assignments:
        module = a.layer.name.removesuffix(".weight")
        settings = None if a.scheme is None else settings_of(a.scheme, a.layer.matrix[1])
        if settings is not None:
            slots |= {f"{module}.{part}": slot for part, slot in settings.slots(a.layer.matrix).items()}
        else:
            kept = model.checkpoint.saved_dtype(a.layer)
            slots[a.layer.name] = Slot("F16" if is_half else DTYPE_NAMES[kept], a.layer.shape)
        if a.layer.is_weight:
            modules[module] = settings
    words = _config(read_json(model.folder / CONFIG), config, family.words(config), modules, model.plan)
    plan, can_chat = model.plan, model.checkpoint.can_chat
    card = folder_card(
        model.recipe, plan.weights, size(plan), TARGET.name, USAGE, can_chat, missing=TARGET.leaves_out(model)
    )
    texts = {
        CONFIG: as_json(words),
        CARD: card.encode(),
    }
    return ModelFolder(lambda folder: TensorFile(folder / WEIGHTS, slots, METADATA), texts, files_beside(model.folder))


def _are_halves(model: CompressedModel) -> bool:
    """Return whether fp16 holds every number that is not compressed, so that it can be one of its dtype."""
    for _, _, tensor in model.pieces():
        if isinstance(tensor, Tensor) and not torch.equal(tensor.half().to(tensor.dtype), tensor):
            return False
    return True


def _config(
    said: Mapping[str, Any],
    config: Any,
    words: Mapping[str, Any],
    modules: Mapping[str, Settings | None],
    plan: Plan,
) -> dict[str, Any]:
    """Return config.json: what the model's says, what it left to transformers' defaults, mlx-lm's own names.

    The settings of most weights are those of all, others are named, ``false`` for what is not compressed.
    """
    counted = Counter[Settings]()
    for a in plan.assignments:
        settings = modules.get(a.layer.name.removesuffix(".weight")) if a.layer.is_weight else None
        if settings is not None:
            counted[settings] += a.layer.numel
    found = {**json.loads(json.dumps(config.to_dict(), default=str)), **said, **words}
    found = {key: value for key, value in found.items() if key != QUANTIZATION}
    found["tie_word_embeddings"] = bool(config.tie_word_embeddings)
    if not counted:
        return found
    usual = counted.most_common(1)[0][0]
    quantization: dict[str, Any] = _told(usual)
    for module, settings in modules.items():
        if settings != usual:
            quantization[module] = False if settings is None else _told(settings)
    return found | {"quantization": quantization, QUANTIZATION: quantization}


def _told(settings: Settings) -> dict[str, Any]:
    return {"group_size": settings.group_size, "bits": settings.bits, "mode": MODE}


def file_size(model: CompressedModel) -> int:
    """Return the bytes of all files."""
    return laid_out(model).nbytes


def write(model: CompressedModel, out: Path) -> Writing:
    """Write the folder, yielding bytes of all.

    Raises ResourceError for a disk that has no room for it, and what :func:`refusal` would have returned.
    """
    layout = laid_out(model)
    return layout.write(model, parts_of(layout), out)


def parts_of(layout: ModelFolder) -> Parts:
    """Return what makes the arrays of a folder's file of some rows of a tensor."""
    slots = layout.weights(Path()).slots
    return lambda a, _, tensor: _parts(a, tensor, slots)


def _parts(a: Assignment, tensor: PackedTensor | Tensor, slots: Mapping[str, Slot]) -> dict[str, Tensor]:
    """Return some rows of a tensor by the names of the file."""
    if isinstance(tensor, PackedTensor):
        module = a.layer.name.removesuffix(".weight")
        return {f"{module}.{part}": array for part, array in arrays_of(tensor).items()}
    return {a.layer.name: tensor.half() if slots[a.layer.name].dtype == "F16" else tensor}


PRESETS: dict[str, Words] = {
    "smallest": {"mode": "int4_affine", "group_size": 64, "method": "best"},
    "balanced": {
        "mode": "int4_affine", "group_size": 64, "ratio": 0.8, "sensitivity": "damage", "method": "best",
    },
    "safest": {"mode": "int8_affine", "group_size": 64},
}  # fmt: skip
"""As for programs that read weights in groups, in the modes that MLX holds as they are."""

TARGET = Target(
    "mlx", suffix="", refusal=refusal, size=size, file_size=file_size, write=write,
    usual={"mode": "int4_affine"}, presets=PRESETS,
)  # fmt: skip
