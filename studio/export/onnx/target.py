"""The ONNX target: a graph and its weights as onnxruntime, its GenAI and transformers.js load them. Rounds nothing.

The folder is laid out as transformers.js looks for it: config and tokenizer, the graph in ``onnx/``, called by the
bits of its weights; ``genai_config.json`` names that file to GenAI. No package is needed to write it. Knows no other
target.
"""

import json
from pathlib import Path
from typing import Any

from studio.base.errors import ModelError, SchemeError, UserError
from studio.checkpoint.architecture import empty_model
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import QUANTIZATION, load_config
from studio.checkpoint.file_names import CARD, CONFIG, GENERATION, INDEX
from studio.checkpoint.tensor_writer import ConstantFile
from studio.checkpoint.tokenizer.files import SETTINGS
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.graph_families import check_family, graph_refusal, unknown_family
from studio.export.model_card import folder_card
from studio.export.model_folder import ModelFolder, as_json, files_beside, generation
from studio.export.onnx.arrays import becomes
from studio.export.onnx.genai import GENAI, genai_config
from studio.export.onnx.graph import model_of
from studio.export.onnx.weights import DATA, Weights, kept_bytes, parts, settings_for
from studio.export.target import Target
from studio.planning.plan import Assignment, Plan
from studio.quantization.scheme import Mode
from studio.runtime.decoder.llama_like import shape_of

NAME = "ONNX"
FOLDER = "onnx"
FILES = {"q4": "model_q4.onnx", "q8": "model_quantized.onnx", "fp32": "model.onnx"}
"""What transformers.js calls a graph by the dtype that it is asked for."""
TEMPLATE = "chat_template.jinja"
TOLD = "transformers.js_config"
"""The config's key of what transformers.js is told."""
USAGE = """## Run it

With transformers.js (`npm install @huggingface/transformers`), under Node, or in a browser by a page that is served
beside this folder:

```js
import { env, pipeline } from "@huggingface/transformers";

env.allowLocalModels = true;
env.localModelPath = "PARENT_OF_THIS_FOLDER/";
const answer = await pipeline("text-generation", "NAME_OF_THIS_FOLDER");
console.log(await answer([{ role: "user", content: "What is the capital of France?" }], { max_new_tokens: 100 }));
```

With onnxruntime's GenAI (`pip install onnxruntime-genai`):

```python
import onnxruntime_genai as og

model = og.Model("PATH_OF_THIS_FOLDER")
tokenizer, settings = og.Tokenizer(model), og.GeneratorParams(model)
settings.set_search_options(max_length=200)
generator = og.Generator(model, settings)
generator.append_tokens(tokenizer.encode("The capital of France is"))
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)))
```

On a processor, activations are rounded to 8 bits in blocks before packed weights multiply them (`accuracy_level` 4 of
each `MatMulNBits`; 1 does not, and is many times slower). In a browser a GPU answers (`{ device: "webgpu" }`); without
one the processor does, far slower.
"""


def refusal(plan: Plan, checkpoint: Checkpoint) -> UserError | None:
    """Return why a plan cannot be an ONNX model as it is."""
    return graph_refusal(NAME, plan, checkpoint, lambda a: settings_for(a) is not None, _not_held)


def _not_held(a: Assignment) -> UserError:
    """Return what is said of a weight in a scheme that onnxruntime does not hold."""
    width, scheme = a.layer.matrix[1], a.scheme
    other = None if scheme is None else becomes(scheme, width)
    layer = a.layer.name[:120]
    if scheme is None or other is None:
        return ModelError("to_onnx_width", layer=layer, width=width)
    return SchemeError(
        "to_onnx_scheme", layer=layer, scheme=str(scheme), mode=other.mode.value, group_size=other.group_size
    )


def cautions(plan: Plan) -> list[UserError]:
    """Return what builds for browsers may not read."""
    kept = next((a for a in plan.assignments if a.layer.is_weight and a.scheme is None), None)
    levels = next((a for a in plan.assignments if a.scheme is not None and a.scheme.mode == Mode.NF4), None)
    found: list[UserError] = [] if kept is None else [SchemeError("onnx_kept", layer=kept.layer.name[:120])]
    return found if levels is None else [*found, SchemeError("onnx_levels", layer=levels.layer.name[:120])]


def size(plan: Plan) -> int:
    """Return the bytes of all tensors there; of a scheme that is refused anyway, its bytes here."""
    return sum(_nbytes(a) for a in plan.assignments)


def _nbytes(a: Assignment) -> int:
    settings = settings_for(a)
    return kept_bytes(a) if settings is None else sum(slot.nbytes for slot in settings.slots(a.layer.matrix).values())


def dtype_of(plan: Plan) -> str:
    """Return what transformers.js calls a plan: by the fewest bits of its weights."""
    bits = min((a.scheme.mode.bits for a in plan.assignments if a.scheme), default=16)
    return "q4" if bits <= 4 else "q8" if bits <= 8 else "fp32"


def laid_out(model: CompressedModel) -> ModelFolder:
    """Return what a folder of a compressed model holds. Raises what :func:`refusal` returns."""
    config = load_config(read_json(model.folder / CONFIG))
    check_family(NAME, config)
    shape = shape_of(empty_model(config))
    if shape is None:
        raise unknown_family(NAME, str(config.model_type))
    plan, dtype = model.plan, dtype_of(model.plan)
    file = FILES[dtype]
    weights = Weights(model, f"{file}{DATA}")
    how = generation(model.folder)
    usage = USAGE + "".join(f"\n{error}\n" for error in cautions(plan))
    texts = {
        f"{FOLDER}/{file}": model_of(shape, weights),
        CONFIG: as_json(_config(read_json(model.folder / CONFIG), config, dtype)),
        GENAI: as_json(genai_config(shape, config.max_position_embeddings, how, f"{FOLDER}/{file}")),
        CARD: folder_card(
            model.recipe,
            plan.weights,
            size(plan),
            TARGET.name,
            usage,
            model.checkpoint.can_chat,
            missing=TARGET.leaves_out(model),
        ).encode(),
    }
    texts |= _template(model.folder)
    copied = files_beside(model.folder, without=(*texts, INDEX))
    if GENERATION not in {path.name for path in copied}:
        texts[GENERATION] = as_json(how)
    return ModelFolder(lambda out: ConstantFile(out / FOLDER / f"{file}{DATA}", weights.slots), texts, copied)


def _config(said: dict[str, Any], config: Any, dtype: str) -> dict[str, Any]:
    """Return config.json: what the model's says, what it left to transformers' defaults, what transformers.js asks."""
    found = {**json.loads(json.dumps(config.to_dict(), default=str)), **said}
    told = {"dtype": dtype, "use_external_data_format": True}
    return {key: value for key, value in found.items() if key != QUANTIZATION} | {TOLD: told}


def _template(folder: Path) -> dict[str, bytes]:
    """Return the tokenizer's settings with the chat template in them, where that is a file of its own: transformers.js
    reads none."""
    alone, settings = folder / TEMPLATE, folder / SETTINGS
    if not alone.is_file():
        return {}
    said = read_json(settings) if settings.is_file() else {}
    return {SETTINGS: as_json(said | {"chat_template": alone.read_text(encoding="utf-8", errors="replace")})}


def file_size(model: CompressedModel) -> int:
    """Return the bytes of all files."""
    return laid_out(model).nbytes


def write(model: CompressedModel, out: Path) -> Writing:
    """Write the folder, yielding bytes of all.

    Raises ResourceError for a disk that has no room for it, and what :func:`refusal` would have returned.
    """
    return laid_out(model).write(model, parts, out)


TARGET = Target("onnx", suffix="", refusal=refusal, size=size, file_size=file_size, write=write, cautions=cautions)
"""Its presets are those of programs that read weights in groups: integers with zero points are onnxruntime's own."""
