"""Which files of a folder or repository hold a model's weights, and why none do. Knows names, no network and no model.

A name in an index is whatever somebody wrote there, so only plain names that are listed are ever opened; and a link is
followed only within the model's own folder, or into the blobs that the Hub's client keeps beside its snapshots.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.file_names import ADAPTER, INDEX, WEIGHTS
from studio.checkpoint.headers import TensorEntry, check_count

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
ReadJson = Callable[[str], dict[str, Any]]
"""A file's name -> the object in it. Raises CheckpointError."""


def weight_files(names: Collection[str], read: ReadJson) -> list[str]:
    """Return the single file or, without it, the shards of the index; nothing where there is neither.

    Raises CheckpointError for an index that names no files, or some that are not among ``names``.
    """
    if WEIGHTS in names or INDEX not in names:
        return [WEIGHTS] if WEIGHTS in names else []
    shard_of = read(INDEX).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise CheckpointError("index_without_map", file=INDEX)
    for tensor, shard in shard_of.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or not is_plain(shard):
            raise CheckpointError("bad_index", file=INDEX, tensor=tensor[:80], value=repr(shard)[:80])
    shards = sorted(set(shard_of.values()))
    for shard in shards:
        if shard not in names:
            raise CheckpointError("missing_file", file=shard[:80])
    return shards


def is_plain(name: str) -> bool:
    """Return whether a name is that of a file in the same folder, on any system."""
    return Path(name).name == name and "\\" not in name and name.isprintable()


def no_weights(model: str, names: Collection[str], read: ReadJson) -> ModelError:
    """Return why :func:`weight_files` found nothing among the names of ``model``."""
    plain = sorted(name for name in names if "/" not in name)
    if ADAPTER in plain:
        return ModelError("adapter_only", model=model, base=_base(read))
    if (part := _ending(plain, ".safetensors")) is not None:
        return ModelError("no_index", model=model, file=part, weights=WEIGHTS, index=INDEX)
    if (gguf := _ending(plain, ".gguf")) is not None:
        return ModelError("gguf_in_folder", model=model, file=gguf)
    if (pickle := _ending(plain, *PICKLES)) is not None:
        return ModelError("only_pickles", model=model, file=pickle)
    return ModelError("no_safetensors", model=model)


def _base(read: ReadJson) -> str:
    """Return what an adapter is for, as far as its config can be read: that the weights lack is true without it."""
    try:
        base = read(ADAPTER).get("base_model_name_or_path")
    except CheckpointError:
        base = None
    return base[:80] if isinstance(base, str) and base else "?"


def _ending(names: Iterable[str], *endings: str) -> str | None:
    """Return the first name with one of these endings."""
    return next((name[:80] for name in names if name.endswith(endings)), None)


def joined(parts: Iterable[dict[str, TensorEntry]]) -> dict[str, TensorEntry]:
    """Return the tensors of all files. Raises CheckpointError when two hold the same, or there are too many."""
    entries: dict[str, TensorEntry] = {}
    for part in parts:
        twice = next((name for name in part if name in entries), None) if entries else None
        if twice is not None:  # which of the two is meant?
            raise CheckpointError("tensor_twice", tensor=twice[:120])
        entries |= part
        check_count(INDEX, len(entries))
    return entries


def listed(folder: Path) -> list[str]:
    """Return the names of a folder's own files. Raises CheckpointError for a link to a file outside it.

    Its content would be read as the model's, and copied into what is exported.
    """
    inside = [folder.resolve()]
    if folder.absolute().parent.name == "snapshots":  # of the Hub's client, which keeps the files beside it
        inside.append(folder.resolve().parent.parent / "blobs")
    files = sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        if file.is_symlink() and not any(file.resolve().is_relative_to(place) for place in inside):
            raise CheckpointError("link_out", file=file.name[:80])
    return [file.name for file in files]
