"""Nothing reaches compiled code that it would read or write past: wrong dtypes, sizes and places are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.base.errors import CheckpointError, SchemeError
from studio.base.pointers import address, rows_at
from studio.quantization.native.round_to_nearest import pack_nearest, squared_errors
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.decoder.cpu import NativeDecoder
from studio.runtime.decoder.llama_like import shape_of
from studio.runtime.decoder.shape import Rotation
from studio.runtime.native.products import decoding, multiply, weight_of
from studio.runtime.native.tiles import Kind, Tiles
from studio.runtime.native.tiling import tiles_of, tiles_of_floats
from tests.decoders import FAMILIES, LLAMA, Small, small
from tests.families import tiny

needs_compiler = pytest.mark.skipif(decoding() is None, reason="needs a C compiler")
INT4 = Scheme(Mode.INT4_ASYM, 64)


def packed() -> Tiles:
    return tiles_of(pack(round_to_nearest(torch.ones(48, 192), INT4), INT4))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(4, dtype=torch.float16),
        torch.zeros(3),
        torch.zeros(8)[::2],
        torch.zeros(4, device="meta"),
    ],
    ids=["dtype", "short", "gaps", "device"],
)
def test_other_tensors_have_no_address(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="compiled code needs 4 of"):
        address(tensor, torch.float32, 4)


def test_rows_lie_where_they_do() -> None:
    matrix = torch.zeros(4, 8)[:, :6]
    assert rows_at(matrix, 2, 4) == matrix[2:].data_ptr()
    for wrong in (torch.zeros(6, 4).T, torch.zeros(4), torch.zeros(3, 6)):
        with pytest.raises(ValueError, match="compiled code needs"):
            rows_at(wrong, 0, 4)


@needs_compiler
def test_the_processes_default_dtype_is_nobodys() -> None:
    """What another thread may swap while a model is built."""
    model = small(LLAMA, INT4)
    decoder, tiles, x = native(model), packed(), torch.ones(2, 192)
    expected = decoder.step(decoder.begin(16), [1, 2]), multiply(tiles, x)
    torch.set_default_dtype(torch.float16)
    try:
        found = decoder.step(decoder.begin(16), [1, 2]), multiply(tiles, x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 49},
        {"width": 256},
        {"group": 0},
        {"group": 96},
        {"group": 128},
        {"block": 0},
        {"block": 48},
        {"rows": 0},
        {"scale": None},
        {"scale": torch.zeros(1, dtype=torch.float16)},
        {"scale": torch.zeros(3, 3, 16, dtype=torch.bfloat16)},
        {"zero": torch.zeros(3, 3, 16)},
        {"zero": torch.zeros(3, dtype=torch.uint8)},
        {"codes": torch.zeros(3 * 24 * 16, dtype=torch.int64)},
        {"bias": torch.zeros(47)},
        {"kind": Kind.INTEGER8},
        {"kind": Kind.INTEGER5},
        {"kind": Kind.TABLE4},
        {"kind": Kind.LEVELS4},
        {"span": 128},
        {"span": 192},
        {"span": 16},
        {"offset": torch.zeros(3, 3, 16, dtype=torch.float16)},
        {"scale_factor": torch.zeros(3, 3, 16, dtype=torch.int8)},
        {"kind": Kind.HALF},
    ],
    ids=str,
)
def test_tiles_that_are_not_whole_are_refused(changes: dict[str, Any]) -> None:
    tiles = packed()
    assert weight_of(tiles).rows == 48
    with pytest.raises(ValueError, match=r"compiled code|groups|no weight|is missing|has no|zero points|scales of"):
        multiply(replace(tiles, **changes), torch.ones(1, 192))


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [
        {"span": 0},
        {"span": 32},
        {"scale_factor": None},
        {"offset_factor": None},
        {"offset": None},
        {"middle": 8.0},
        {"zero": torch.zeros(3, 8, 16, dtype=torch.uint8)},
        {"scale": torch.zeros(3, 1, 15, dtype=torch.float16)},
        {"offset": torch.zeros(3, 1, 16)},
        {"offset": torch.zeros(3, 1, 15, dtype=torch.float16)},
        {"scale_factor": torch.zeros(3, 7, 16, dtype=torch.int8)},
        {"offset_factor": torch.zeros(3, 8, 16, dtype=torch.uint8)},
    ],
    ids=str,
)
def test_two_levels_that_are_not_whole_are_refused(changes: dict[str, Any]) -> None:
    scheme = Scheme.parse("q4_k")
    tiles = tiles_of(pack(round_to_nearest(torch.ones(48, 256), scheme), scheme))
    assert weight_of(tiles).span == 256
    with pytest.raises(ValueError, match=r"compiled code|groups|levels|zero points|scales of|do not divide"):
        multiply(replace(tiles, **changes), torch.ones(1, 256))


@needs_compiler
@pytest.mark.parametrize("width", [1, 128, 193, 256])
def test_inputs_of_another_width_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match="inputs meet a weight"):
        multiply(packed(), torch.ones(1, width))


@needs_compiler
def test_groups_that_do_not_divide_are_refused() -> None:
    for call in (lambda: pack_nearest(torch.ones(4, 100), INT4), lambda: squared_errors(torch.ones(4, 100), [INT4])):
        with pytest.raises(SchemeError):
            call()


def native(model: Small, **changes: Any) -> NativeDecoder:
    tiles = {
        name: tiles_of(w, model.biases.get(name)) if isinstance(w, PackedTensor) else tiles_of_floats(w)
        for name, w in model.weights.items()
    }
    asked: dict[str, Any] = {"shape": model.shape, "tiles": tiles, "norms": model.norms, "context": 64}
    return NativeDecoder(**asked | changes)


@needs_compiler
def test_weights_and_norms_of_another_shape_are_refused() -> None:
    model = small(LLAMA, INT4)
    wider = small(replace(LLAMA, intermediate_size=384), INT4)
    with pytest.raises(ValueError, match="instead of"):
        native(model, shape=wider.shape)
    short = {name: norm[:-1] for name, norm in model.norms.items()}
    with pytest.raises(ValueError, match="has 191 numbers instead of 192"):
        native(model, norms=short)


@needs_compiler
def test_a_cache_of_another_model_is_refused() -> None:
    decoder, other = native(small(LLAMA, INT4)), native(small(FAMILIES["multi_query"], INT4))
    with pytest.raises(ValueError, match="another model"):
        decoder.step(other.begin(16), [1])
    cache = decoder.begin(16)
    cache.arrays[0] = cache.arrays[0][:-1]
    with pytest.raises(ValueError, match="compiled code needs"):
        decoder.step(cache, [1])


def turns(*halves: int) -> tuple[Rotation, ...]:
    return tuple(Rotation(torch.ones(half), 1.0) for half in halves)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("num_key_value_heads", {"heads": 2, "kv_heads": 4}),
        ("num_key_value_heads", {"heads": 5, "kv_heads": 4}),
        ("num_key_value_heads", {"kv_heads": 16}),
        ("num_key_value_heads", {"kv_heads": 0}),
        ("num_attention_heads", {"heads": -6}),
        ("num_attention_heads", {"heads": 1 << 24}),
        ("head_dim", {"head_dim": 24}),
        ("query_pre_attn_scalar", {"attention_scale": float("nan")}),
        ("query_pre_attn_scalar", {"attention_scale": (-4) ** -0.5}),
        ("rms_norm_eps", {"epsilon": None}),
        ("hidden_size", {"hidden": 0}),
        ("vocab_size", {"vocabulary": 1 << 25}),
        ("hidden_act", {"activation": 3}),
        ("rms_norm_eps", {"epsilon": float("inf")}),
        ("num_hidden_layers", {"layers": ()}),
        ("partial_rotary_factor", {"rotations": turns(17)}),
        ("partial_rotary_factor", {"rotations": turns(0)}),
        ("rope_parameters", {"rotations": turns(16, 8)}),
        ("rope_parameters", {"rotations": turns(8, 16)}),
        ("rope_parameters", {"rotations": turns(16, 16, 16)}),
        ("rope_parameters", {"rotations": (Rotation(torch.ones(16), float("nan")),)}),
        ("rope_parameters", {"rotations": (Rotation(torch.ones(16, dtype=torch.int64), 1.0),)}),
        ("layer_types", {"rotations": ()}),
        ("layer_types", {"layers": (replace(LLAMA.layers[0], rotation=1),)}),
        ("sliding_window", {"layers": (replace(LLAMA.layers[0], window=-1),)}),
    ],
    ids=str,
)
def test_sizes_that_do_not_go_together_are_named(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        replace(LLAMA, **changes)
    assert caught.value.key == "wrong_config_value"
    assert caught.value.values["key"] == key


def test_frequencies_that_are_not_finite_are_called_so() -> None:
    """Those of a base near zero, such as ``rope_theta: 1e-300``."""
    with pytest.raises(CheckpointError, match=r"config\.json.*rope_parameters.*not finite"):
        replace(LLAMA, rotations=(Rotation(torch.full((16,), torch.inf), 1.0),))


@pytest.mark.parametrize("scalar", [-4, 0])
def test_a_scale_of_scores_that_has_no_root_is_named_as_the_config_does(scalar: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny.config("gemma2"))
    model.config.query_pre_attn_scalar = scalar
    with pytest.raises(CheckpointError) as caught:
        shape_of(model)
    assert caught.value.key == "wrong_config_value"
    assert (caught.value.values["key"], caught.value.values["value"]) == ("query_pre_attn_scalar", str(scalar))


REFUSED: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("num_key_value_heads", lambda config: config.update(num_attention_heads=2, num_key_value_heads=4)),
    ("num_key_value_heads", lambda config: config.update(num_attention_heads=5, num_key_value_heads=4)),
    ("num_key_value_heads", lambda config: config.update(num_key_value_heads=16)),
    ("num_key_value_heads", lambda config: config.update(num_key_value_heads=0)),
    ("partial_rotary_factor", lambda config: config.update(partial_rotary_factor=1e6)),
    ("partial_rotary_factor", lambda config: config["rope_parameters"].update(partial_rotary_factor=1e6)),
    ("partial_rotary_factor", lambda config: config.update(partial_rotary_factor="all")),
]


@pytest.mark.parametrize(("key", "change"), REFUSED, ids=[f"{key}-{index}" for index, (key, _) in enumerate(REFUSED)])
def test_a_config_whose_heads_cannot_be_is_refused_before_a_model_is_built(
    key: str, change: Callable[[dict[str, Any]], None]
) -> None:
    from studio.checkpoint.config import load_config

    config: dict[str, Any] = {
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip
    assert load_config(config).num_key_value_heads == 2
    change(config)
    with pytest.raises(CheckpointError) as caught:
        load_config(config)
    assert caught.value.key in ("wrong_config_value", "bad_config_pair")
    assert str(caught.value.values["key"]).rpartition(".")[2] == key
