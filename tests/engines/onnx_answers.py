"""onnxruntime and its GenAI, in their own process: ``python -m tests.engines.onnx_answers REQUEST REPLY``.

The request is JSON, ``[{"folder": …, "ids": […], "answer": 4}, …]``; the reply is an ``.npz`` with, by its place,
``rounded``, the logits of the prompt as the folder's graph computes them; with activations left at 32 bits, ``whole``
and ``steps``, the same in one call and token by token through keys and values, and ``padded``, those of two texts at
once, the second filled up on the left with :data:`PADDING`, and of a token more of each; ``operators``, what the
optimized graph consists of; and ``answer``, GenAI's tokens, where some are asked for.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime_genai

PADDING = 7
Cache = dict[str, np.ndarray]


class Graph:
    """A graph that onnxruntime opened."""

    def __init__(self, file: Path) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3  # that an optimized graph is only good here is known
        settings.optimized_model_filepath = str(file.parent / "optimized.onnx")
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimized.bin")
        self._session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        made = onnx.load(settings.optimized_model_filepath, load_external_data=False)
        self.operators = sorted(node.op_type for node in made.graph.node)
        self.past = {each.name: each.shape for each in self._session.get_inputs() if "past" in each.name}

    def empty(self, batch: int) -> Cache:
        """Return keys and values of nothing."""
        return {name: np.zeros((batch, shape[1], 0, shape[3]), np.float32) for name, shape in self.past.items()}

    def run(self, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cache: Cache) -> tuple[np.ndarray, Cache]:
        """Return the logits after each token, fp32 [batch, tokens, vocabulary], and all keys and values."""
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        logits, *present = self._session.run(None, given | cache)
        return logits, dict(zip(self.past, present, strict=True))

    def one(self, ids: list[int], past: int, cache: Cache) -> tuple[np.ndarray, Cache]:
        """Return what a text of its own goes on with, of which ``past`` tokens were read."""
        positions = np.arange(past, past + len(ids))[None]
        logits, present = self.run(np.array([ids]), np.ones((1, past + len(ids)), np.int64), positions, cache)
        return logits[0], present

    def steps(self, ids: list[int]) -> np.ndarray:
        found, cache = [], self.empty(1)
        for past, token in enumerate(ids):
            logits, cache = self.one([token], past, cache)
            found.append(logits)
        return np.concatenate(found)

    def padded(self, ids: list[int]) -> np.ndarray:
        """Return logits [2, tokens, vocabulary] of a text and of its beginning behind padding, the last of a step."""
        wide = len(ids) - 1
        texts = np.array([ids, [ids[0]] * PADDING + ids[:-PADDING]])
        mask = np.ones_like(texts)
        mask[1, :PADDING] = 0
        positions = np.maximum(mask.cumsum(1) - 1, 0)
        whole, cache = self.run(texts[:, :wide], mask[:, :wide], positions[:, :wide], self.empty(2))
        last, _ = self.run(texts[:, wide:], mask, positions[:, wide:], cache)
        return np.concatenate([whole, last], 1)


def exact(file: Path) -> Path:
    """Return a graph over the same weights that rounds no activations, written beside one."""
    made = onnx.load(file, load_external_data=False)
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    out = file.with_name("exact.onnx")
    out.write_bytes(made.SerializeToString())
    return out


def answer(folder: str, ids: list[int], count: int) -> list[int]:
    """Return what GenAI goes on with."""
    model = onnxruntime_genai.Model(folder)
    settings = onnxruntime_genai.GeneratorParams(model)
    settings.set_search_options(max_length=len(ids) + count, do_sample=False)
    generator = onnxruntime_genai.Generator(model, settings)
    generator.append_tokens(np.array([ids], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[len(ids) :]]


def answers(request: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return what every folder of the request says."""
    reply: dict[str, np.ndarray] = {}
    for place, asked in enumerate(request):
        ids, count = asked["ids"], asked["answer"]
        file = next(Path(asked["folder"], "onnx").glob("model*.onnx"))
        graph = Graph(file)
        reply[f"{place}.rounded"] = graph.one(ids, 0, graph.empty(1))[0]
        graph = Graph(exact(file))
        reply[f"{place}.whole"] = graph.one(ids, 0, graph.empty(1))[0]
        reply[f"{place}.steps"] = graph.steps(ids)
        reply[f"{place}.padded"] = graph.padded(ids)
        reply[f"{place}.operators"] = np.array(graph.operators)
        reply[f"{place}.answer"] = np.array(answer(asked["folder"], ids, count) if count else [])
    return reply


if __name__ == "__main__":
    given, place = map(Path, sys.argv[1:])
    np.savez(place, **answers(json.loads(given.read_text())))  # type: ignore[arg-type]
