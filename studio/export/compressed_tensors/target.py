"""The compressed-tensors target: weights as ``pack-quantized`` has them, config, tokenizer and card in one folder.

Rounds nothing. Refused by name is what a program would not load, or load as other numbers: zero points (see
``arrays.py``), embeddings (transformers 5.24 stops at a packed one, vLLM and SGLang take few models' or none), weights
that are no matrices of a linear layer. The config names each weight's settings: all of them by their class where they
are alike, as most published folders do, and else each by its name, since vLLM looks for a class before it takes a
joined module apart. Knows no other target.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.base.errors import ModelError, SchemeError, UserError
from studio.checkpoint.architecture import empty_model
from studio.checkpoint.carried import slots_of, told
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import QUANTIZATION, load_config
from studio.checkpoint.file_names import CARD, CONFIG, WEIGHTS
from studio.checkpoint.layers import Kind
from studio.checkpoint.tensor_writer import DTYPE_NAMES, Slot, TensorFile
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.compressed_tensors.arrays import Settings, arrays_of, becomes, settings_of
from studio.export.compressed_tensors.vllm import cautions
from studio.export.model_card import folder_card
from studio.export.model_folder import ModelFolder, as_json, files_beside
from studio.export.target import Target
from studio.planning.plan import Assignment, Plan
from studio.planning.presets import Words
from studio.quantization.packing import PackedTensor

METADATA = {"format": "pt"}
LAYOUT = "pack-quantized"
RULES = "_keys_to_ignore_on_load_unexpected"
"""What transformers calls the names that a family's files may hold and its model has no place for."""
TOWER = re.compile(r"(^|\.)(visual|vision|audio)")
"""The beginning of the name of a part that reads no text."""
USAGE = """## Run it

transformers (`pip install transformers compressed-tensors`) unpacks the weights when it first computes with them:

```
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")
```

vLLM and SGLang multiply with the packed weights on a GPU, as servers that speak OpenAI's API:

```
vllm serve PATH_OF_THIS_FOLDER
python -m sglang.launch_server --model-path PATH_OF_THIS_FOLDER
```
"""


def refusal(plan: Plan, checkpoint: Checkpoint) -> UserError | None:
    """Return why a plan cannot be such a folder as it is."""
    for a in plan.assignments:
        if a.layer.is_weight and (a.layer.transposed or len(a.layer.shape) != 2):
            family = checkpoint.architecture[:60]
            return ModelError("to_compressed_tensor", tensor=a.layer.name[:120], family=family)
    misfits = [a for a in plan.assignments if a.scheme and settings_of(a.scheme, a.layer.matrix[1]) is None]
    for kind in (Kind.LINEAR, Kind.HEAD):  # a linear weight's scheme is the one that was chosen, others follow from it
        for a in misfits:
            if a.layer.kind is kind:
                return _no_layout(a)
    embedding = next((a for a in plan.assignments if a.scheme and a.layer.kind is Kind.EMBEDDING), None)
    if embedding is None:
        return None
    return SchemeError("to_compressed_embedding_scheme", layer=_module(embedding)[:120], scheme=str(embedding.scheme))


def _no_layout(a: Assignment) -> UserError:
    """Return what is said of a weight in a scheme that is not held."""
    if a.scheme is None:
        raise ValueError(f"{a.layer.name} is not compressed")
    other = becomes(a.scheme, a.layer.matrix[1])
    key = "to_compressed_zero_points_scheme" if a.scheme.mode.stored_as.has_zero_point else "to_compressed_scheme"
    return SchemeError(
        key, layer=_module(a)[:120], scheme=str(a.scheme), mode=other.mode.value, group_size=other.group_size
    )


def _module(a: Assignment) -> str:
    return a.layer.name.removesuffix(".weight")


def size(plan: Plan) -> int:
    """Return the bytes of all tensors there; of a scheme that is refused anyway, its bytes here."""
    return sum(_nbytes(a) for a in plan.assignments)


def _nbytes(a: Assignment) -> int:
    settings = _settings(a)
    return a.nbytes if settings is None else sum(slot.nbytes for slot in settings.slots(a.layer.matrix).values())


def _settings(a: Assignment) -> Settings | None:
    return None if a.scheme is None else settings_of(a.scheme, a.layer.matrix[1])


def laid_out(model: CompressedModel) -> ModelFolder:
    """Return what a folder of a compressed model holds."""
    plan = model.plan
    slots: dict[str, Slot] = {}
    for a in plan.assignments:
        settings = _settings(a)
        if settings is None:
            slots[a.layer.name] = Slot(DTYPE_NAMES[model.checkpoint.saved_dtype(a.layer)], a.layer.shape)
        else:
            slots |= {f"{_module(a)}.{part}": slot for part, slot in settings.slots(a.layer.matrix).items()}
    said = {key: value for key, value in read_json(model.folder / CONFIG).items() if key != QUANTIZATION}
    there = carries(model)
    beside = {name: entry for name, entry in model.left_out.items() if name in there}
    slots |= slots_of(beside)
    words = said | {QUANTIZATION: quantization(plan, [name.removesuffix(".weight") for name in beside])}
    usage = USAGE + "".join(f"\n{error}\n" for error in cautions(plan))
    card = folder_card(
        model.recipe, plan.weights, size(plan), TARGET.name, usage, model.checkpoint.can_chat,
        told(beside), TARGET.leaves_out(model),
    )  # fmt: skip
    texts = {
        CONFIG: as_json(words),
        CARD: card.encode(),
    }
    files = files_beside(model.folder)
    return ModelFolder(lambda folder: TensorFile(folder / WEIGHTS, slots, METADATA), texts, files, beside)


def carries(model: CompressedModel) -> frozenset[str]:
    """Return what stands beside the model and goes along: what transformers is told to pass over, such as layers that
    predict further tokens.

    All others it would report. Towers for pictures or sound stay behind: the folder's config is the text model's alone,
    by which no other loader knows them.
    """
    if not model.left_out:
        return frozenset()
    config = load_config(read_json(model.folder / CONFIG))
    rules = [re.compile(rule) for rule in getattr(empty_model(config), RULES, None) or ()]
    taken = {name for a in model.plan.assignments for name in (a.layer.name, *a.layer.tied)}
    return frozenset(
        n for n in model.left_out if n not in taken and not TOWER.search(n) and any(rule.search(n) for rule in rules)
    )


def quantization(plan: Plan, beside: Sequence[str] = ()) -> dict[str, Any]:
    """Return the ``quantization_config``: groups of modules of one setting each, and linear modules of none.

    ``beside``: modules that are no part of the model, and go along uncompressed.
    """
    groups: dict[Settings, list[str]] = {}
    kept: list[str] = []
    for a in plan.assignments:
        settings = _settings(a)
        if settings is not None:
            groups.setdefault(settings, []).append(_module(a))
        elif a.layer.is_weight:
            heads = [name.removesuffix(".weight") for name in a.layer.tied]
            kept += heads if a.layer.kind is Kind.EMBEDDING else [_module(a), *heads]
    if len(groups) == 1 and not any(a.scheme and a.layer.kind is Kind.HEAD for a in plan.assignments):
        groups = {settings: ["Linear"] for settings in groups}  # a head is no linear module in vLLM
    return {
        "quant_method": TARGET.name,
        "format": LAYOUT,
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{number}": {"targets": modules, "weights": settings.told(), "format": LAYOUT}
            for number, (settings, modules) in enumerate(groups.items())
        },
        "ignore": [*kept, *beside],
    }


def file_size(model: CompressedModel) -> int:
    """Return the bytes of all files."""
    return laid_out(model).nbytes


def write(model: CompressedModel, out: Path) -> Writing:
    """Write the folder, yielding bytes of all.

    Raises ResourceError for a disk that has no room for it, and what :func:`refusal` would have returned.
    """
    return laid_out(model).write(model, parts, out)


def parts(a: Assignment, row: int, tensor: PackedTensor | Tensor) -> Mapping[str, Tensor]:
    """Return some rows of a tensor by the names of the file; the shape goes with the first."""
    if isinstance(tensor, PackedTensor):
        shape = {} if row else {"weight_shape": torch.tensor(a.layer.matrix, dtype=torch.int64)}
        return {f"{_module(a)}.{part}": array for part, array in (arrays_of(tensor) | shape).items()}
    return {a.layer.name: tensor}


NEEDS = {"share_fused": True}
"""By vLLM."""
PRESETS: dict[str, Words] = {
    "smallest": {"mode": "int4_sym", "group_size": 64, "backup": "none", "method": "best", **NEEDS},
    "balanced": {
        "mode": "int4_sym", "group_size": 64, "backup": "none", "method": "best", "pins": ["*mlp.down_proj=int8_sym"],
        **NEEDS,
    },
    "safest": {
        "mode": "int8_sym", "pins": [f"{part}=none" for part in ("*embed*", "*wte*", "*wpe*", "*lm_head*")], **NEEDS,
    },
}  # fmt: skip
"""Symmetric, embeddings and head at 16 bits, and what vLLM joins of one scheme.

A pin on one expert would be on all of its block, so none is.
"""

TARGET = Target(
    "compressed-tensors", suffix="", refusal=refusal, size=size, file_size=file_size, write=write,
    usual={"mode": "int4_sym", "backup": "none"}, needs=NEEDS, carries=carries, presets=PRESETS, cautions=cautions,
)  # fmt: skip
