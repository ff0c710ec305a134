"""mlx-lm on MLX's CPU build, in a process of its own: ``python -m tests.engines.mlx_answers REQUEST REPLY``.

The request is JSON, ``[{"folder": …, "ids": […], "answer": 4}, …]``; the reply is an ``.npz`` with ``logits`` in the
folder's own dtype, ``exact`` in fp32 of the same numbers, and ``answer`` of each, by its place. Importing mlx-lm lowers
the limit of open files and knows nothing of the studio, so that the tests' own process does not.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm import load
from mlx_lm.generate import generate_step


def logits(model: Any, ids: list[int]) -> np.ndarray:
    """Return the logits after each token, fp32 [tokens, vocabulary]."""
    found: np.ndarray = np.array(model(mx.array([ids]))[0].astype(mx.float32))
    return found


def answers(request: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return what every folder of the request says."""
    reply: dict[str, np.ndarray] = {}
    for place, asked in enumerate(request):
        model, _ = load(asked["folder"])
        ids = asked["ids"]
        reply[f"{place}.logits"] = logits(model, ids)
        steps = generate_step(mx.array(ids), model, max_tokens=asked["answer"])
        reply[f"{place}.answer"] = np.array([int(token) for token, _ in steps])
        reply[f"{place}.dtypes"] = np.array(sorted({str(leaf.dtype) for leaf in _leaves(model)}))
        model.set_dtype(mx.float32)
        reply[f"{place}.exact"] = logits(model, ids)
    return reply


def _leaves(model: Any) -> list[mx.array]:
    from mlx.utils import tree_flatten

    return [array for _, array in tree_flatten(model.parameters())]


if __name__ == "__main__":
    given, place = map(Path, sys.argv[1:])
    np.savez(place, **answers(json.loads(given.read_text())))  # type: ignore[arg-type]
