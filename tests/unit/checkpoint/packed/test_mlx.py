"""MLX's affine folders stand for the numbers that their formula says; what lies in one is named."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.config import load_config
from studio.checkpoint.provenance import provenance
from studio.checkpoint.source_formats import is_readable
from studio.export.compressed_model import opened
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.quantization.packing import PackedTensor
from tests.integration.gguf.models import packed
from tests.small import CountedRanges
from tests.steps import finish

UP = "model.layers.0.mlp.up_proj"
CHOICE = Choice.of(
    mode="int4_affine", group_size=32, backup="int8_affine",
    pins=["*.0.*q_proj=int2_affine-g64", "*.0.*k_proj=int3_affine-g32", "*.0.*v_proj=int5_affine-g64",
          "*.0.*o_proj=int6_affine-g32", "*.1.*down_proj=none"],
)  # fmt: skip
"""Every width, and a layer that is not packed."""


@pytest.fixture(scope="module")
def compressed(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tiny_model("llama"), tmp_path_factory.mktemp("mlx") / "packed", CHOICE)


@pytest.fixture(scope="module")
def written(compressed: Path) -> Path:
    return finish(export(TARGETS["mlx"], compressed, compressed.with_name("written")))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "folder"))


def truths(compressed: Path) -> dict[str, Tensor]:
    """The numbers that chat and were measured."""
    tensors = opened(compressed).tensors()
    return {a.layer.name: t.dequantize() if isinstance(t, PackedTensor) else t.float() for a, t in tensors}


def test_every_row_is_what_was_measured(compressed: Path, written: Path) -> None:
    checkpoint = of_folder(written)
    expected = truths(compressed)
    assert {layer.name for layer in checkpoint.layers} == expected.keys()
    for layer in checkpoint.layers:
        whole = checkpoint.read(layer).float()
        assert torch.equal(whole, expected[layer.name]), layer.name
        if layer.is_weight:
            for start, stop in ((0, 1), (5, 6), (3, 20), (len(whole) - 7, len(whole))):
                place = CountedRanges(written)
                assert torch.equal(checkpoint.read(layer, start, stop, place).float(), whole[start:stop])
                assert sum(place.asked) == checkpoint.read_bytes(layer, start, stop)


def test_each_weight_is_said_to_be_what_it_is(written: Path) -> None:
    checkpoint = of_folder(written)
    types = {layer.name: checkpoint.stored_as(layer).type for layer in checkpoint.layers}
    assert types[f"{UP}.weight"] == "MLX int4_affine-g32"
    assert types["model.layers.0.self_attn.k_proj.weight"] == "MLX int3_affine-g32"
    assert types["model.layers.1.mlp.down_proj.weight"] == "BF16"
    assert checkpoint.left_out is None
    assert provenance(str(written)).quantized_by == "MLX"
    weights = (written / "model.safetensors").stat().st_size
    assert 0 < weights - sum(each.nbytes for each in checkpoint.came_as) < 20_000  # the header


def test_an_older_folder_says_it_in_one_place(folder: Path, written: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"], config["quantization"]["mode"]
    (folder / "config.json").write_text(json.dumps(config))
    one, other = (next(x for x in of_folder(f).layers if x.name == f"{UP}.weight") for f in (folder, written))
    assert torch.equal(of_folder(folder).read(one), of_folder(written).read(other))


def test_it_can_be_compressed_again_and_nothing_of_mlx_is_left_in_the_config(folder: Path, tmp_path: Path) -> None:
    again = packed(folder, tmp_path / "again", Choice.of(mode="int8_sym"))
    assert "quantization" not in json.loads((again / "config.json").read_text())


Said = dict[str, Any]


def config_says(**said: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for key in ("quantization", "quantization_config"):
            config[key] = {k: v for k, v in (config[key] | said).items() if v is not ...}
        (folder / "config.json").write_text(json.dumps(config))

    return change


def tensors_are(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(dict(change(load_file(file))), file)

    return write


LIES: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "other bits": (config_says(bits=8), CheckpointError, "packed_mismatch"),
    "other groups": (config_says(group_size=64), CheckpointError, "packed_mismatch"),
    "bits of one": (config_says(**{UP: {"bits": 2, "group_size": 32}}), CheckpointError, "packed_mismatch"),
    "packed though not": (config_says(**{UP: False}), CheckpointError, "packed_mismatch"),
    "a word for settings": (config_says(**{UP: "4 bits"}), CheckpointError, "packed_mismatch"),
    "7 bits": (config_says(bits=7), ModelError, "packed_setting"),
    "bits in words": (config_says(bits="4"), ModelError, "packed_setting"),
    "bits of a flag": (config_says(bits=True), ModelError, "packed_setting"),
    "groups of nought": (config_says(group_size=0), ModelError, "packed_setting"),
    "groups of one": (config_says(**{UP: {"bits": 4, "group_size": -1}}), ModelError, "packed_setting"),
    "another mode": (config_says(mode="mxfp4"), ModelError, "packed_setting"),
    "no biases": (
        tensors_are(lambda t: {k: v for k, v in t.items() if k != f"{UP}.biases"}), CheckpointError, "tensor_missing",
    ),
    "no codes": (
        tensors_are(lambda t: {k: v for k, v in t.items() if k != f"{UP}.weight"}), CheckpointError, "tensor_missing",
    ),
    "scales of other rows": (
        tensors_are(lambda t: t | {f"{UP}.scales": t[f"{UP}.scales"][:-1].clone()}), CheckpointError, "packed_mismatch",
    ),
    "scales of other numbers": (
        tensors_are(lambda t: t | {f"{UP}.scales": t[f"{UP}.scales"].float()}), CheckpointError, "packed_mismatch",
    ),
    "codes of other words": (
        tensors_are(lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"].view(torch.int32)}),
        CheckpointError, "packed_mismatch",
    ),
    "codes in three dimensions": (
        tensors_are(lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"][None].clone()}),
        CheckpointError, "packed_mismatch",
    ),
    "fewer codes": (
        tensors_are(lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"][:, :-1].clone()}),
        CheckpointError, "packed_mismatch",
    ),
    "a name for our own": (
        tensors_are(lambda t: t | {f"{UP}.weight.codes": torch.zeros(2)}), CheckpointError, "tensor_twice",
    ),
    "a norm that is packed": (
        tensors_are(lambda t: t | {
            "model.norm.weight": torch.zeros(1, 8, dtype=torch.uint32),
            "model.norm.scales": torch.ones(1, 2, dtype=torch.float16),
            "model.norm.biases": torch.ones(1, 2, dtype=torch.float16),
        }), CheckpointError, "tensor_mismatch",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "key"), LIES.values(), ids=list(LIES))
def test_a_folder_that_lies_is_refused_by_name(
    change: Callable[[Path], None], kind: type[CheckpointError], key: str, folder: Path
) -> None:
    change(folder)
    with pytest.raises(kind) as refused:
        of_folder(folder)
    assert refused.value.key == key


def test_a_config_alone_is_told_to_be_read_or_not() -> None:
    assert is_readable({"bits": 4, "group_size": 64})
    assert not is_readable({"bits": 4})
    with pytest.raises(ModelError):
        is_readable({"bits": 4, "group_size": 64, "mode": "nvfp4"})
    with pytest.raises(ModelError):
        load_config({"model_type": "llama", "quantization": {"bits": 1, "group_size": 64}})


def test_it_opens_as_any_other(written: Path) -> None:
    assert isinstance(of_folder(written), Checkpoint)
    assert of_folder(written).source_format.startswith("MLX int")
