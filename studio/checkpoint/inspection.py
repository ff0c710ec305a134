"""A config and headers -> what kind of model it is and its layers, as transformers has it. Knows no models by name."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from studio.checkpoint.architecture import layer_map
from studio.checkpoint.byte_ranges import FolderRanges
from studio.checkpoint.config import Task, has_other_parts, load_config, task
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.layers import Layer
from studio.checkpoint.model_facts import ModelFacts
from studio.checkpoint.source_formats import StoredTensor

COMPARED_BYTES = 1 << 20
"""Of two tensors, at their beginnings and at their ends."""


def inspect(config: Mapping[str, Any], entries: Mapping[str, TensorEntry], folder: Path | None) -> ModelFacts:
    """Return what a ``config.json`` and headers make. ``folder`` holds the files, where they are here.

    Raises ModelError for a model that is none of ours, CheckpointError for a config that makes no sense or tensors that
    are not as it promises.
    """
    model = load_config(config)
    layers = layer_map(model, entries, None if folder is None else partial(_differ, folder, entries))
    return ModelFacts(
        architecture=model.model_type,
        source_format=_dtypes(entries, layers),
        can_chat=task(model) is Task.DECODER,
        part="text" if has_other_parts(config) else "",
        layers=layers,
    )


def _differ(folder: Path, entries: Mapping[str, TensorEntry], one: str, other: str) -> bool:
    """Return whether two tensors begin or end differently: a head that is trained apart does so in its first rows."""
    first, second = entries[one], entries[other]
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return True
    length = min(first.nbytes, COMPARED_BYTES)
    with FolderRanges(folder) as ranges:
        return any(
            not torch.equal(*(ranges.read(each.file, each.start + start, length) for each in (first, second)))
            for start in (0, first.nbytes - length)
        )


def _dtypes(entries: Mapping[str, TensorEntry], layers: tuple[Layer, ...]) -> str:
    """Return the formats of the weights, the one with most bytes first: ``"BF16"``, ``"MXFP4/BF16"``."""
    sums: dict[str, int] = defaultdict(int)
    for layer in layers:
        for name in layer.sources:
            sums[StoredTensor(name, entries).format] += entries[name].stored_bytes
    return "/".join(sorted(sums, key=lambda name: -sums[name]))
