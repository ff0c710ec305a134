"""A small repository for the Hub of the tests: its names, weights, headers and shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from studio.checkpoint.file_names import INDEX, WEIGHTS

REPO = "owner/small"


UNWANTED = (
    "tokenizer.py",
    "vocab.bin",
    "pytorch_model.bin",
    "adapter_config.json",
    "adapter_model.safetensors",
    "consolidated.safetensors",
    "original/model.safetensors",
    "README.md",
)


def weight(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((1500, 1000)).astype(np.float16)


def sharded(folder: Path) -> Path:
    """Turn the model into two shards and their index."""
    (folder / WEIGHTS).unlink()
    names = {"embed": "model-00001-of-00002.safetensors", "head": "model-00002-of-00002.safetensors"}
    for seed, (tensor, name) in enumerate(names.items()):
        save_file({tensor: weight(seed)}, folder / name)
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    return folder
