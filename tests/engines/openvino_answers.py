"""OpenVINO's CPU plugin and GenAI, in their own process: ``python -m tests.engines.openvino_answers REQUEST REPLY``.

The request is JSON, ``[{"folder": …, "ids": […], "answer": 4}, …]``; the reply is an ``.npz`` with, by its place,
``whole`` and ``steps``, the logits of the prompt in one call and token by token through the state; ``held``, the
types of the weights in the compiled graph; and ``answer``, GenAI's tokens, where some are asked for.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""Settings without which activations are rounded to 8 bits and keys and values are kept at 8."""
WEIGHT = {"FullyConnected": 1, "MatMul": 1, "Gather": 0}
"""The input of an operator that its weight is; others are scales and zero points, which are unpacked."""
SMALL = 64
"""Numbers of a constant that is no weight."""


def logits(request: Any, ids: list[int], past: int) -> np.ndarray:
    """Return the logits after each token, fp32 [tokens, vocabulary]."""
    inputs = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, past + len(ids)), np.int64),
        "position_ids": np.arange(past, past + len(ids))[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    found: np.ndarray = request.infer(inputs)["logits"][0].copy()
    return found


def held(compiled: Any) -> list[str]:
    """Return the type of each weight in the compiled graph, with who reads it: ``FullyConnected u4``."""
    found = []
    for node in compiled.get_runtime_model().get_ops():
        kind = _word(node, "layerType")
        if kind not in WEIGHT:
            continue
        source = node.input(WEIGHT[kind]).get_source_output()
        if _word(source.get_node(), "layerType") == "Const" and np.prod(source.get_shape()) > SMALL:
            found.append(f"{kind} {source.get_element_type().get_type_name()}")
    return sorted(found)


def _word(node: Any, key: str) -> str:
    return str(node.get_rt_info()[key].value)


def answer(folder: str, ids: list[int], count: int) -> list[int]:
    """Return what GenAI goes on with."""
    pipeline = openvino_genai.LLMPipeline(folder, "CPU", **EXACT)
    settings = openvino_genai.GenerationConfig(max_new_tokens=count, ignore_eos=True, do_sample=False)
    return list(pipeline.generate(openvino.Tensor(np.array([ids])), settings).tokens[0])


def answers(request: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return what every folder of the request says."""
    reply: dict[str, np.ndarray] = {}
    core = openvino.Core()
    for place, asked in enumerate(request):
        compiled = core.compile_model(f"{asked['folder']}/openvino_model.xml", "CPU", EXACT)
        run, ids = compiled.create_infer_request(), asked["ids"]
        reply[f"{place}.whole"] = logits(run, ids, 0)
        run.reset_state()
        reply[f"{place}.steps"] = np.concatenate([logits(run, [each], past) for past, each in enumerate(ids)])
        reply[f"{place}.held"] = np.array(held(compiled))
        del run, compiled
        reply[f"{place}.answer"] = np.array(answer(asked["folder"], ids, asked["answer"]) if asked["answer"] else [])
    return reply


if __name__ == "__main__":
    given, place = map(Path, sys.argv[1:])
    np.savez(place, **answers(json.loads(given.read_text())))  # type: ignore[arg-type]
