"""What a model's files hold beside it is copied byte for byte, in pieces, at the size that was told before."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.checkpoint import carried as carrying
from studio.checkpoint.carried import carried, raw_entries, told
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.headers import read_header
from tests.conftest import save_tiny_model
from tests.steps import finish

EXTRA: dict[str, Tensor] = {
    "mtp.fc.weight": torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "mtp.norm.weight": torch.full((64,), float("nan")),  # whatever it means
    "vision_tower.patch.weight": torch.arange(48, dtype=torch.float64).reshape(2, 3, 8),
    "vision_tower.table": torch.arange(7, dtype=torch.int16),
    "vision_tower.on": torch.tensor(True),
}


def a_model(place: Path, extra: dict[str, Tensor]) -> Path:
    """Save a tiny model whose file holds more than transformers runs."""
    save_tiny_model("llama", place)
    file = place / "model.safetensors"
    save_file(load_file(file) | extra, file, {"format": "pt"})
    return place


def same(one: Tensor, other: Tensor) -> bool:
    raw = [each.contiguous().flatten().view(torch.uint8) for each in (one, other)]
    return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(*raw)


def test_every_byte_is_the_source_s_and_their_number_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "PIECE", 1000)
    checkpoint = of_folder(a_model(tmp_path / "m", EXTRA))
    assert len(list(carried(checkpoint, tmp_path / "first"))) == 4 + 17  # the small ones, and a kilobyte at a time
    file = finish(carried(checkpoint, tmp_path / "out"))
    assert file is not None
    found = load_file(file)
    assert found.keys() == EXTRA.keys()
    assert all(same(found[name], EXTRA[name]) for name in EXTRA)
    assert checkpoint.left_out is not None
    assert sum(entry.nbytes for entry in read_header(file).values()) == checkpoint.left_out.nbytes
    assert told(read_header(file)) == checkpoint.left_out


def test_scales_go_with_their_weights(tmp_path: Path) -> None:
    codes = {"mtp.up.weight": torch.ones(8, 8).to(torch.float8_e4m3fn), "mtp.up.weight_scale_inv": torch.ones(1, 1)}
    checkpoint = of_folder(a_model(tmp_path / "m", codes))
    assert raw_entries(checkpoint).keys() == codes.keys()
    assert checkpoint.left_out is not None
    assert (checkpoint.left_out.tensors, checkpoint.left_out.nbytes) == (1, 68)


def test_of_a_model_without_more_there_is_no_file(tmp_path: Path) -> None:
    assert finish(carried(of_folder(a_model(tmp_path / "m", {})), tmp_path / "out")) is None
    assert not (tmp_path / "out").exists()


def test_who_stops_leaves_nothing(tmp_path: Path) -> None:
    steps = carried(of_folder(a_model(tmp_path / "m", EXTRA)), tmp_path / "out")
    next(steps)
    steps.close()
    assert not (tmp_path / "out").exists()


def test_a_file_that_ends_too_soon_is_named(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m", EXTRA)
    checkpoint = of_folder(folder)
    entries = raw_entries(checkpoint)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError) as caught:
        list(carrying.raw_pieces(folder, entries))
    assert (caught.value.key, caught.value.values["file"]) == ("damaged_file", "model.safetensors")
