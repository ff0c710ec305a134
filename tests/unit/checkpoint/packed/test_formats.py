"""GPTQ, AWQ and compressed-tensors stand for the numbers that their formulas say, whatever rows are read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.base.errors import CheckpointError, ModelError, UserError
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.packed.formats import FORMATS, format_of
from studio.checkpoint.source_formats import is_readable
from tests.conftest import save_tiny_model
from tests.packed_models import Awq, CompressedTensors, Format, Gptq, packed_folder
from tests.small import CountedRanges

KINDS: dict[str, Format] = {
    "gptq": Gptq(),
    "gptq-no-g_idx": Gptq(has_order=False),
    "gptq-act-order": Gptq(act_order=True),
    "gptq-asym": Gptq(symmetric=False),
    "gptq-v2-asym-act-order": Gptq(version="gptq_v2", symmetric=False, act_order=True),
    "gptq-2": Gptq(bits=2, symmetric=False),
    "gptq-3": Gptq(bits=3),
    "gptq-3-v2-asym": Gptq(bits=3, version="gptq_v2", symmetric=False),
    "gptq-8": Gptq(bits=8, group_size=-1),
    "awq": Awq(),
    "awq-channel": Awq(group_size=-1),
    "ct": CompressedTensors(),
    "ct-asym": CompressedTensors(symmetric=False),
    "ct-channel": CompressedTensors(group_size=-1),
    "ct-8-channel-asym": CompressedTensors(bits=8, group_size=-1, symmetric=False),
    "ct-3": CompressedTensors(bits=3, symmetric=False),
    "ct-act-order": CompressedTensors(act_order=True, symmetric=False),
    "ct-mixed": CompressedTensors(bits_of={"down_proj": 8, "q_proj": 8}),
    "ct-mixed-channel": CompressedTensors(group_size=-1, bits_of={"down_proj": 8}),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    save_tiny_model("llama", folder)
    return folder


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_row_is_what_the_formula_says(kind: Format, plain: Path, tmp_path: Path) -> None:
    values = packed_folder(plain, tmp_path / "m", kind)
    checkpoint = of_folder(tmp_path / "m")
    layers = {layer.name: layer for layer in checkpoint.layers}
    assert values.keys() < layers.keys()
    assert checkpoint.left_out is None
    for name, expected in values.items():
        layer = layers[name]
        assert torch.equal(checkpoint.read(layer), expected)
        for start, stop in ((0, 1), (5, 6), (3, 20), (len(expected) - 7, len(expected))):
            place = CountedRanges(tmp_path / "m")
            assert torch.equal(checkpoint.read(layer, start, stop, place), expected[start:stop])
            assert sum(place.asked) == checkpoint.read_bytes(layer, start, stop)
    for name, layer in layers.items():
        if name not in values:
            assert checkpoint.read(layer).dtype == torch.bfloat16


def test_a_zero_point_of_nought_is_given_back_by_its_neighbour(plain: Path, tmp_path: Path) -> None:
    """Version 1 borrows from it where the stored number is one less."""
    tensors = load_file(plain / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].abs()}, plain / "model.safetensors")
    values = packed_folder(plain, tmp_path / "m", Gptq(symmetric=False))
    checkpoint = of_folder(tmp_path / "m")
    layer = next(layer for layer in checkpoint.layers if layer.name == name)
    assert (values[name] >= 0).all()
    assert torch.equal(checkpoint.read(layer), values[name])
    save_file(tensors, plain / "model.safetensors")


def test_each_tensor_is_called_by_its_own_scheme(plain: Path, tmp_path: Path) -> None:
    packed_folder(plain, tmp_path / "m", KINDS["ct-mixed"])
    checkpoint = of_folder(tmp_path / "m")
    schemes = {name: entry.packing.name for name, entry in checkpoint.entries.items() if entry.packing is not None}
    assert schemes["model.layers.0.mlp.down_proj.weight"] == "compressed-tensors int8_sym-g32"
    assert schemes["model.layers.1.mlp.up_proj.weight"] == "compressed-tensors int4_sym-g32"
    assert set(checkpoint.source_format.split("/")) == {"BF16", *schemes.values()}
    packing = checkpoint.entries["model.layers.0.mlp.down_proj.weight"].packing
    assert packing is not None
    assert packing.nbytes == 64 * 128 + 2 * 64 * 128 // 32


def test_of_a_model_far_away_only_what_headers_leave_open_is_read(plain: Path, tmp_path: Path) -> None:
    from studio.checkpoint.headers import TensorEntry, read_header
    from studio.checkpoint.packed.formats import with_packed

    asked: list[TensorEntry] = []

    def read(entry: TensorEntry) -> bytes:
        asked.append(entry)
        with (tmp_path / entry.file).open("rb") as file:
            file.seek(entry.start)
            return file.read(entry.nbytes)

    for kind, expected in ((KINDS["ct-mixed"], False), (KINDS["ct-channel"], False), (KINDS["ct-mixed-channel"], True)):
        packed_folder(plain, tmp_path, kind)
        entries = read_header(tmp_path / "model.safetensors")
        asked.clear()
        found = with_packed({"quantization_config": kind.config}, entries, read, is_near=False)
        assert bool(asked) == expected
        near = with_packed({"quantization_config": kind.config}, entries, read, is_near=True)
        assert found == near


def test_all_registered_formats_are_told_by_their_configs() -> None:
    named = {kind.config["quant_method"] for kind in KINDS.values()}
    assert named | {"mlx"} == set(FORMATS)  # MLX's says no method: tests of its own
    for kind in KINDS.values():
        assert is_readable(kind.config)
    assert format_of({"quant_method": ["gptq"]}) is None
    assert format_of("gptq") is None


HOSTILE = {
    "gptq": [
        {"bits": 5}, {"bits": True}, {"bits": 1 << 70}, {"bits": None}, {"bits": "4"}, {"bits": [4]},
        {"group_size": 0}, {"group_size": -2}, {"group_size": 1.5}, {"group_size": 10**30}, {"sym": "yes"},
        {"checkpoint_format": "marlin"}, {"checkpoint_format": {"a": 1}},
    ],
    "awq": [{"bits": 8}, {"version": "gemv"}, {"version": 3}, {"group_size": 0}, {"zero_point": 1}],
    "ct": [
        {"format": "marlin-24"}, {"format": None}, {"config_groups": None}, {"config_groups": {}},
        {"config_groups": {str(i): {} for i in range(2000)}}, {"config_groups": {"a": 7}},
        {"config_groups": {"a": {"weights": {"num_bits": 9}}}}, {"config_groups": {"a": {"weights": [4]}}},
        {"config_groups": {"a": {"weights": {"num_bits": 4, "type": "float"}}}},
        {"config_groups": {"a": {"weights": {"num_bits": 4, "strategy": "block"}}}},
        {"config_groups": {"a": {"weights": {"num_bits": 4, "strategy": "group"}}}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"), [(kind, each) for kind, some in HOSTILE.items() for each in some], ids=lambda each: str(each)[:60]
)
def test_a_setting_that_nobody_defined_is_named(kind: str, said: dict[str, Any], plain: Path, tmp_path: Path) -> None:
    packed_folder(plain, tmp_path / "m", KINDS[kind], **said)
    with pytest.raises(ModelError) as refused:
        of_folder(tmp_path / "m")
    assert refused.value.key == "packed_setting"
    assert len(str(refused.value)) < 400


def changed(folder: Path, name: str, tensor: Tensor | None) -> None:
    """Write a folder's weights anew with one tensor changed, or left out."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name)
    save_file(tensors | ({} if tensor is None else {name: tensor}), folder / "model.safetensors")


UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("kind", "name", "tensor", "key"),
    [
        ("gptq", f"{UP}.qzeros", None, "tensor_missing"),
        ("gptq", f"{UP}.scales", None, "tensor_missing"),
        ("gptq-act-order", f"{UP}.g_idx", None, "tensor_missing"),
        ("gptq", f"{UP}.qweight", torch.zeros(7, 128, dtype=torch.int32), "packed_mismatch"),
        ("gptq", f"{UP}.qweight", torch.zeros(8, 128), "packed_mismatch"),
        ("gptq", f"{UP}.qweight", torch.zeros(0, 128, dtype=torch.int32), "packed_mismatch"),
        ("gptq", f"{UP}.scales", torch.zeros(3, 128, dtype=torch.float16), "packed_mismatch"),
        ("gptq", f"{UP}.scales", torch.zeros(256, dtype=torch.float16), "packed_mismatch"),
        ("gptq", f"{UP}.g_idx", torch.zeros(63, dtype=torch.int32), "packed_mismatch"),
        ("gptq", f"{UP}.qweight", torch.zeros(16, 128, dtype=torch.int32), "packed_mismatch"),
        ("awq", f"{UP}.qzeros", torch.zeros(2, 15, dtype=torch.int32), "packed_mismatch"),
        ("awq", f"{UP}.scales", None, "tensor_missing"),
        ("ct", f"{UP}.weight_shape", torch.tensor([128, 65]), "packed_mismatch"),
        ("ct", f"{UP}.weight_shape", torch.tensor([-1, 1 << 62]), "packed_mismatch"),
        ("ct", f"{UP}.weight_shape", torch.tensor([128]), "packed_mismatch"),
        ("ct", f"{UP}.weight_shape", None, "tensor_missing"),
        ("ct", f"{UP}.weight_scale", torch.zeros(128, 3, dtype=torch.float16), "packed_mismatch"),
        ("ct-asym", f"{UP}.weight_zero_point", None, "packed_mismatch"),
        ("ct-asym", f"{UP}.weight_zero_point", torch.zeros(9, 2, dtype=torch.int32), "packed_mismatch"),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_named(
    kind: str, name: str, tensor: Tensor | None, key: str, plain: Path, tmp_path: Path
) -> None:
    packed_folder(plain, tmp_path / "m", KINDS[kind])
    changed(tmp_path / "m", name, tensor)
    with pytest.raises(CheckpointError) as refused:
        of_folder(tmp_path / "m")
    assert refused.value.key == key
    assert UP in str(refused.value)


@pytest.mark.parametrize("group", [-1, 2, 1 << 30])
@pytest.mark.parametrize(("kind", "end"), [("gptq", "g_idx"), ("ct-act-order", "weight_g_idx")])
def test_a_channel_of_a_group_that_is_not_there_is_named(
    kind: str, end: str, group: int, plain: Path, tmp_path: Path
) -> None:
    packed_folder(plain, tmp_path / "m", KINDS[kind])
    order = torch.zeros(64, dtype=torch.int32)
    order[9] = group
    changed(tmp_path / "m", f"{UP}.{end}", order)
    checkpoint: Checkpoint = of_folder(tmp_path / "m")
    layer = next(layer for layer in checkpoint.layers if layer.name == f"{UP}.weight")
    with pytest.raises(CheckpointError) as refused:
        checkpoint.read(layer, 0, 4)
    assert refused.value.key == "packed_mismatch"


def test_a_weight_that_is_there_twice_is_refused(plain: Path, tmp_path: Path) -> None:
    packed_folder(plain, tmp_path / "m", Gptq())
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    save_file(tensors | {f"{UP}.weight": torch.zeros(128, 64)}, tmp_path / "m" / "model.safetensors")
    with pytest.raises(UserError) as refused:
        of_folder(tmp_path / "m")
    assert refused.value.key == "tensor_twice"


def test_another_size_of_one_module_is_read_where_the_config_has_rules_for_some(plain: Path, tmp_path: Path) -> None:
    values = packed_folder(plain, tmp_path / "a", Gptq(bits=8, group_size=64))
    packed_folder(plain, tmp_path / "m", Gptq(), dynamic={"+:.*up_proj": {"bits": 8, "group_size": 64}})
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    other = load_file(tmp_path / "a" / "model.safetensors")
    of_up = {name: other[name] for name in other if name.startswith(f"{UP}.")}
    save_file(tensors | of_up, tmp_path / "m" / "model.safetensors")
    checkpoint = of_folder(tmp_path / "m")
    layer = next(layer for layer in checkpoint.layers if layer.name == f"{UP}.weight")
    assert torch.equal(checkpoint.read(layer), values[layer.name])
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["quantization_config"]["dynamic"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        of_folder(tmp_path / "m")
