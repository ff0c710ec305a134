"""A split GGUF is one model: all parts, or a sentence that names what is not there."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.base.errors import CheckpointError
from studio.checkpoint.gguf.model import read_gguf_model
from studio.checkpoint.gguf.source import prepared_folder
from tests.gguf_files import write_gguf

METADATA: dict[str, Any] = {".block_count": 1, ".embedding_length": 64}
NAMES = ["token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_up.weight"]


def write_parts(
    folder: Path, counts: tuple[int, ...] = (2, 2), change: Callable[[int, dict[str, Any]], None] | None = None
) -> list[Path]:
    """Write a model in parts with so many tensors each; ``change`` alters a part's metadata."""
    paths, left = [], list(NAMES)
    for number, count in enumerate(counts):
        metadata = dict(METADATA) if number == 0 else {}
        metadata |= {"split.no": number, "split.count": len(counts), "split.tensors.count": len(NAMES)}
        if change is not None:
            change(number, metadata)
        taken, left = left[:count], left[count:]
        arrays = {name: np.full((3, 64) if "norm" not in name else (64,), len(name), np.float32) for name in taken}
        path = folder / f"m-{number + 1:05d}-of-{len(counts):05d}.gguf"
        paths.append(write_gguf(path, "llama", metadata, arrays))
    return paths


@pytest.mark.parametrize("counts", [(2, 2), (0, 4), (1, 1, 2)], ids=["two", "metadata-alone-first", "three"])
def test_any_part_stands_for_the_whole_model(counts: tuple[int, ...], tmp_path: Path) -> None:
    paths = write_parts(tmp_path, counts)
    models = [read_gguf_model(path) for path in paths]
    assert {tuple(model.tensors) for model in models} == {tuple(NAMES)}
    assert {model.nbytes for model in models} == {sum(path.stat().st_size for path in paths)}
    assert {model.file for model in models} == {paths[0]}
    assert len({prepared_folder(path) for path in paths}) == 1


@pytest.mark.parametrize(("given", "missing"), list(permutations(range(3), 2)))
def test_a_part_that_is_not_there_is_named(given: int, missing: int, tmp_path: Path) -> None:
    paths = write_parts(tmp_path, (2, 1, 1))
    paths[missing].unlink()
    with pytest.raises(CheckpointError, match=paths[missing].name) as refused:
        read_gguf_model(paths[given])
    assert refused.value.key == "gguf_part_missing"


def test_a_renamed_part_says_how_parts_are_called(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    other = paths[0].rename(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match="NAME-00001-of-00002") as refused:
        read_gguf_model(other)
    assert refused.value.key == "gguf_part_renamed"


def test_parts_in_each_others_place_are_found_out(tmp_path: Path) -> None:
    first, second = write_parts(tmp_path)
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    with pytest.raises(CheckpointError) as refused:
        read_gguf_model(first)
    assert refused.value.key == "gguf_part_renamed"


def other_count(number: int, metadata: dict[str, Any]) -> None:
    metadata["split.tensors.count"] = 9


def other_number(number: int, metadata: dict[str, Any]) -> None:
    if number:
        metadata["split.no"] = 0


def no_number(number: int, metadata: dict[str, Any]) -> None:
    if number:
        metadata["split.no"] = metadata["split.count"] = None


@pytest.mark.parametrize("change", [other_count, other_number, no_number])
def test_parts_of_other_models_are_found_out(change: Callable[[int, dict[str, Any]], None], tmp_path: Path) -> None:
    paths = write_parts(tmp_path, change=change)
    with pytest.raises(CheckpointError, match=r"split\.") as refused:
        read_gguf_model(paths[0])
    assert refused.value.key == "gguf_part_other"


@pytest.mark.parametrize(("count", "number"), [(1 << 31, 0), (2, 7)])
def test_counts_that_cannot_be_are_refused(count: int, number: int, tmp_path: Path) -> None:
    arrays = {name: np.ones((3, 64), np.float32) for name in NAMES}
    metadata = {**METADATA, "split.no": number, "split.count": count}
    path = write_gguf(tmp_path / "m-00001-of-00002.gguf", "llama", metadata, arrays)
    with pytest.raises(CheckpointError, match=r"split\.") as refused:
        read_gguf_model(path)
    assert refused.value.key == "gguf_bad_value"


def test_a_file_that_is_whole_may_be_called_as_a_part(tmp_path: Path) -> None:
    arrays = {name: np.ones((3, 64), np.float32) for name in NAMES}
    path = write_gguf(tmp_path / "m-00001-of-00002.gguf", "llama", METADATA, arrays)
    assert len(read_gguf_model(path).parts) == 1
