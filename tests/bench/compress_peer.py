"""``python -m tests.bench.compress_peer torch|openvino``: NNCF's seconds for one configuration of the built-in model.

INT4_ASYM, group 64, ratio 0.9, its own sensitivity without data. A process of its own, so that neither side has the
other's threads or memory. What a framework makes of the files before is not counted.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.parity.nncf_side import listening, model, nncf

import torch  # isort: skip - NNCF first: it reads its environment when imported

from studio.checkpoint.layers import Kind, ratio_defining
from tests.bench.compress_builtin import CHOICE, built_in

RUNS = 3


def torch_work() -> Callable[[], Any]:
    """Return what compresses transformers' model; the one item only lets NNCF trace it."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(built_in().path, dtype=torch.float32).eval()
    loaded.config.use_cache = False
    item = {"input_ids": torch.arange(8).unsqueeze(0), "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    options = {
        "sensitivity_metric": nncf.SensitivityMetric.WEIGHT_QUANTIZATION_ERROR,
        "dataset": nncf.Dataset([item]),
    }
    return lambda: compressed(loaded, **options)


def openvino_work() -> Callable[[], Any]:
    """Return what compresses an OpenVINO model of the same weights, embedding and tied head included."""
    checkpoint = built_in()
    weights = {layer.name: checkpoint.read(layer) for layer in ratio_defining(checkpoint.layers)}
    table = next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)
    made = model(weights, (table.name, checkpoint.read(table)), tied=True)
    return lambda: compressed(made)


def compressed(made: Any, **options: Any) -> Any:
    mode = nncf.CompressWeightsMode(CHOICE.mode.value)
    with listening():
        return nncf.compress_weights(made, mode=mode, group_size=CHOICE.group_size, ratio=CHOICE.ratio, **options)


def main(kind: str) -> None:
    seconds = []
    for _ in range(RUNS):  # a new model each time: NNCF changes the one it is given
        work = {"torch": torch_work, "openvino": openvino_work}[kind]()
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"seconds": statistics.median(seconds), "version": nncf.__version__}))


if __name__ == "__main__":
    main(sys.argv[1])
