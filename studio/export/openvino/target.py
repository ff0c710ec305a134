"""The OpenVINO target: a model that OpenVINO GenAI runs, weights compressed, tokenizer and card. Rounds nothing.

The graph is made of OpenVINO's operators, so that the package is needed to write it; where it is missing, that is said.
Weights go from the folder into the file a few rows at a time. Knows no other target.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from studio.base.errors import ModelError, SchemeError, UserError
from studio.base.progress import Progress
from studio.base.workers.worker import new_worker
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import QUANTIZATION
from studio.checkpoint.file_names import CARD, CONFIG, GENERATION
from studio.checkpoint.layers import Kind
from studio.checkpoint.tensor_writer import ConstantFile
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.graph_families import graph_refusal
from studio.export.model_card import folder_card
from studio.export.model_folder import ModelFolder, as_json, files_beside, generation
from studio.export.openvino.arrays import becomes, bytes_of, constants_of
from studio.export.openvino.ir import KEPT, MODEL, PROGRAM, built, layout_of, name_of
from studio.export.openvino.library import missing
from studio.export.target import Target
from studio.planning.plan import Assignment, Plan
from studio.quantization.packing import PackedTensor

USAGE = """## Run it

With OpenVINO GenAI (`pip install openvino-genai`), on Intel processors (`"CPU"`), and on their graphics (`"GPU"`):

```python
import openvino_genai

model = openvino_genai.LLMPipeline("PATH_OF_THIS_FOLDER", "CPU")
print(model.generate("What is the capital of France?", max_new_tokens=100))
```

Its defaults round activations to 8 bits in groups and keep keys and values at 8 bits;
`LLMPipeline(folder, "CPU", DYNAMIC_QUANTIZATION_GROUP_SIZE=0, KV_CACHE_PRECISION="f16")` does not. NPUs want weights in
`int4_sym` throughout, in groups of 128 or whole channels.
"""


def refusal(plan: Plan, checkpoint: Checkpoint) -> UserError | None:
    """Return why a plan cannot be OpenVINO's model as it is, or that the package is missing."""
    return graph_refusal(PROGRAM, plan, checkpoint, _is_held, _no_constants) or missing()


def _is_held(a: Assignment) -> bool:
    form = None if a.scheme is None else constants_of(a.scheme, a.layer.matrix[1])
    return form is not None and (form.is_gathered or a.layer.kind is not Kind.EMBEDDING)


def _no_constants(a: Assignment) -> UserError:
    """Return what is said of a weight in a scheme that OpenVINO does not hold."""
    width, scheme = a.layer.matrix[1], a.scheme
    other = None if scheme is None else becomes(scheme, width)
    if scheme is None or other is None:
        return ModelError("to_openvino_width", layer=a.layer.name[:120], width=width)
    layer, mode = a.layer.name[:120], other.mode.value
    if constants_of(scheme, width) is not None:
        return SchemeError("to_openvino_embedding", layer=layer, scheme=str(scheme), mode=mode)
    return SchemeError("to_openvino_scheme", layer=layer, scheme=str(scheme), mode=mode, group_size=other.group_size)


def size(plan: Plan) -> int:
    """Return the bytes of all tensors there; of a scheme that is refused anyway, its bytes here."""
    return sum(_nbytes(a) for a in plan.assignments)


def _nbytes(a: Assignment) -> int:
    form = None if a.scheme is None else constants_of(a.scheme, a.layer.matrix[1])
    return a.nbytes if form is None else sum(part.nbytes for part in form.parts(a.layer.matrix).values())


def laid_out(model: CompressedModel) -> ModelFolder:
    """Return what a folder of a compressed model holds. Raises what :func:`refusal` returns, and ProcessError."""
    error = missing()
    if error is not None:
        raise error
    worker = new_worker(is_background=True)
    try:
        made = worker.call(built, model.folder)
    finally:
        worker.close()
    plan, can_chat = model.plan, model.checkpoint.can_chat
    words = {key: value for key, value in read_json(model.folder / CONFIG).items() if key != QUANTIZATION}
    copied = files_beside(model.folder)
    texts = made.texts | {
        CONFIG: as_json(words),
        CARD: folder_card(
            model.recipe, plan.weights, size(plan), TARGET.name, USAGE, can_chat, missing=TARGET.leaves_out(model)
        ).encode(),
    }
    if GENERATION not in {path.name for path in copied}:  # which tokens end an answer
        texts[GENERATION] = as_json(generation(model.folder))
    slots = layout_of(model).slots
    return ModelFolder(lambda out: ConstantFile(out / f"{MODEL}.bin", slots, made.small), texts, copied)


def file_size(model: CompressedModel) -> int:
    """Return the bytes of all files."""
    return laid_out(model).nbytes


def write(model: CompressedModel, out: Path) -> Writing:
    """Write the folder, yielding bytes of all.

    Raises ResourceError for a disk that has no room for it, and what :func:`refusal` would have returned.
    """
    yield Progress("export", 0, 1)  # the graph takes a moment
    return (yield from laid_out(model).write(model, _parts, out))


def _parts(a: Assignment, _: int, tensor: PackedTensor | Tensor) -> Mapping[str, Tensor]:
    """Return the bytes of some rows, by the names of the constants that they are of."""
    if isinstance(tensor, PackedTensor):
        return {name_of((a.layer.name, part)): numbers for part, numbers in bytes_of(tensor).items()}
    return {name_of((a.layer.name, KEPT)): tensor.contiguous().flatten().view(torch.uint8)}


TARGET = Target("openvino", suffix="", refusal=refusal, size=size, file_size=file_size, write=write)
"""Its presets are those of programs that read weights in groups: the modes are OpenVINO's own."""
