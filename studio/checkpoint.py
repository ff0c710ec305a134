"""A model's files: its layer map from headers, its tensors a few rows at a time. Knows nothing of schemes or plans."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from studio.architecture import Layer, layer_map, load_config
from studio.errors import CheckpointError, ModelError
from studio.headers import TensorEntry, read_header
from studio.hub import Repository

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
MAX_JSON_BYTES = 50_000_000

SAVED_DTYPE = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.bfloat16, "F64": torch.bfloat16}
"""What a tensor kept at 16 bits is stored as; wider sources become bf16, which cannot overflow."""


@dataclass(frozen=True)
class Checkpoint:
    """One model at one revision; ``folder`` is None while only its headers are known."""

    name: str
    """As the user named it: ``builtin``, a Hub id, or a path."""
    revision: str
    """A commit of the Hub, or a fingerprint of the local files."""
    architecture: str
    source_format: str
    """What the weights came as: ``"BF16"``, ``"Q4_1/Q8_0"``."""
    source_bytes: int
    entries: Mapping[str, TensorEntry]
    layers: tuple[Layer, ...]
    folder: Path | None

    @property
    def weights(self) -> int:
        return sum(layer.numel for layer in self.layers)

    @property
    def title(self) -> str:
        """What to call the model where its origin does not matter: ``SmolLM2-135M-Instruct``."""
        if self.name == "builtin" and self.folder is not None:
            return self.folder.name.partition(".")[0]
        return Path(self.name).stem if Path(self.name).suffix == ".gguf" else Path(self.name).name

    @property
    def path(self) -> Path:
        """The folder with the files. Raises CheckpointError while they are not here."""
        if self.folder is None:
            raise CheckpointError("not_downloaded", model=self.name)
        return self.folder

    def read(self, layer: Layer, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of a tensor in the dtype of its file; of a weight, rows of its [N, K] form.

        Raises CheckpointError when the file is damaged.
        """
        entry = self.entries[layer.source]
        try:
            with safe_open(self.path / entry.file, framework="pt") as file:
                part = file.get_slice(layer.source)
                rows: Tensor = part[:, start:stop].T if layer.transposed else part[start:stop]
                return rows
        except (SafetensorError, OSError) as error:
            raise CheckpointError("damaged_file", file=entry.file) from error

    def saved_dtype(self, layer: Layer) -> torch.dtype:
        """Return the 16-bit dtype this tensor is stored in when it is not compressed."""
        return SAVED_DTYPE[self.entries[layer.source].dtype]


def of_repository(repository: Repository, folder: Path | None = None) -> Checkpoint:
    """Return the checkpoint of a Hub repository, from its headers; ``folder`` is where it was downloaded to."""
    config = load_config(repository.config)
    layers = layer_map(config, repository.entries)
    dtypes = _dtypes(repository.entries, layers)
    source_bytes = sum(entry.nbytes for entry in repository.entries.values())
    return Checkpoint(
        repository.repo,
        repository.sha,
        config.model_type,
        dtypes,
        source_bytes,
        repository.entries,
        layers,
        folder,
    )


def of_folder(
    folder: Path,
    name: str | None = None,
    revision: str | None = None,
    source_format: str | None = None,
    source_bytes: int | None = None,
) -> Checkpoint:
    """Return the checkpoint of a local folder with config.json and safetensors, from its headers.

    ``revision`` is the commit they are of, where it is known; ``source_format`` and ``source_bytes`` say what the files
    were made from, if they were. Raises ModelError for a
    folder without safetensors, CheckpointError for files that are missing, cut short or not what they claim.
    """
    files = weight_files(folder)
    config = load_config(read_json(folder / "config.json"))
    entries: dict[str, TensorEntry] = {}
    for file in files:
        entries.update(read_header(file))
    layers = layer_map(config, entries)
    return Checkpoint(
        name or str(folder),
        revision or fingerprint(files),
        config.model_type,
        source_format or _dtypes(entries, layers),
        source_bytes or sum(file.stat().st_size for file in files),
        entries,
        layers,
        folder,
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: the one, or the shards its index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise ModelError("no_safetensors", model=folder.name)
    shards = read_json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError("damaged_file", file=INDEX)
    names = sorted({str(shard) for shard in shards.values()})
    for shard in names:
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise CheckpointError("missing_file", file=shard[:80])
    return [folder / shard for shard in names]


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file. Raises CheckpointError when it is missing, huge, or not one."""
    if not path.is_file():
        raise CheckpointError("missing_file", file=path.name)
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < MAX_JSON_BYTES else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError("damaged_file", file=path.name) from error
    if not isinstance(content, dict):
        raise CheckpointError("damaged_file", file=path.name)
    return content


def fingerprint(files: list[Path]) -> str:
    """Return a short key of local files: their names, sizes and times, which change when the content does."""
    import hashlib

    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((str(files[0].parent.resolve()), facts)).encode()).hexdigest()[:16]


def _dtypes(entries: Mapping[str, TensorEntry], layers: tuple[Layer, ...]) -> str:
    """Return the dtypes of the weights, the one with most bytes first: ``"BF16"`` or ``"BF16/F32"``."""
    sums: dict[str, int] = defaultdict(int)
    for layer in layers:
        entry = entries[layer.source]
        sums[entry.dtype] += entry.nbytes
    return "/".join(sorted(sums, key=lambda dtype: -sums[dtype]))
