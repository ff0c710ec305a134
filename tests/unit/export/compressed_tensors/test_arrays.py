"""The words stand for the very numbers that the packed weight does, and are those that compressed-tensors writes."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from studio.export.compressed_tensors.arrays import Settings, arrays_of, becomes, settings_of
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import WHOLE_CHANNEL, Scheme

WIDTH = 384
HELD = [
    "int4_sym-g32", "int4_sym-g64", "int4_sym-g128", "int4_sym-g192", "int4_sym-gall", "int8_sym", "q4_0", "q8_0",
]  # fmt: skip
NOT_HELD = [
    *("int4_asym-g64", "int8_asym", "int4_affine-g64", "int3_sym-g64", "int5_sym-g64", "int2_sym-g32", "nf4-g64"),
    *("fp4-g64", "mxfp4", "nvfp4", "fp8_e4m3-g64", "q4_1", "q5_0", "q4_k", "q6_k", "iq4_nl", "int4_sym-g48", "cb4-g64"),
]
ODD = [("int4_sym-gall", 20), ("int4_sym-gall", 33), ("int8_sym", 21), ("int8_sym", 3)]
"""Widths that no word is filled by."""


def packed(name: str, width: int = WIDTH, rows: int = 6) -> PackedTensor:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    scheme = Scheme.parse(name)
    return pack(round_to_nearest(weight, scheme), scheme)


def read(words: np.ndarray, scales: np.ndarray, bits: int, width: int) -> np.ndarray:
    """A row's words are one long number, lowest bits first; code k is bits k b to (k + 1) b of it."""
    rows = []
    for row, scale in zip(words, scales, strict=True):
        number = int.from_bytes(row.astype("<i4").tobytes(), "little")
        codes = [(number >> bits * k & (1 << bits) - 1) - (1 << bits - 1) for k in range(width)]
        groups = np.array(codes, dtype=np.float32).reshape(len(scale), -1) * scale.astype(np.float32)[:, None]
        rows.append(groups.flatten())
        assert number >> bits * width == 0
    return np.array(rows)


CASES = [*((name, WIDTH) for name in HELD), *ODD]


@pytest.mark.parametrize(("name", "width"), CASES, ids=[f"{name}-{width}" for name, width in CASES])
def test_no_number_changes(name: str, width: int) -> None:
    weight = packed(name, width)
    settings = settings_of(weight.scheme, width)
    assert settings is not None
    arrays = arrays_of(weight)
    slots = settings.slots(weight.shape)
    assert {part: tuple(array.shape) for part, array in arrays.items()} == {
        part: slots[part].shape for part in ("weight_packed", "weight_scale")
    }
    assert (arrays["weight_packed"].dtype, arrays["weight_scale"].dtype) == (torch.int32, torch.float16)
    found = read(arrays["weight_packed"].numpy(), arrays["weight_scale"].numpy(), settings.bits, width)
    assert np.array_equal(found, weight.dequantize().numpy())


@pytest.mark.skipif(find_spec("compressed_tensors") is None, reason="needs compressed-tensors")
@pytest.mark.parametrize(("name", "width"), CASES, ids=[f"{name}-{width}" for name, width in CASES])
def test_compressed_tensors_reads_and_writes_these_words(name: str, width: int) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

    weight = packed(name, width)
    settings = settings_of(weight.scheme, width)
    assert settings is not None
    arrays = arrays_of(weight)
    values = unpack_from_int32(arrays["weight_packed"], settings.bits, torch.Size(weight.shape))
    assert torch.equal(pack_to_int32(values, settings.bits), arrays["weight_packed"])
    scale = arrays["weight_scale"].float()
    assert torch.equal(values * scale.repeat_interleave(width // scale.shape[1], 1), weight.dequantize())


@pytest.mark.parametrize("name", ["int4_sym-g64", "int4_sym-gall", "int8_sym", "q8_0"])
def test_rows_come_in_pieces(name: str) -> None:
    whole = arrays_of(packed(name))
    weight = packed(name)
    cut = [
        PackedTensor.of(weight.scheme, (3, WIDTH), {k: v[i : i + 3] for k, v in weight.arrays().items()})
        for i in (0, 3)
    ]
    for part, array in whole.items():
        assert torch.equal(torch.cat([arrays_of(piece)[part] for piece in cut]), array)


@pytest.mark.parametrize("name", NOT_HELD)
def test_what_would_change_is_not_held_and_becomes_what_is(name: str) -> None:
    scheme = Scheme.parse(name)
    assert settings_of(scheme, WIDTH) is None
    other = becomes(scheme, WIDTH)
    assert settings_of(other, WIDTH) is not None
    assert other.mode.bits >= scheme.mode.bits or other.mode.bits == 8
    with pytest.raises(ValueError, match="does not hold"):
        arrays_of(packed(name, 768))


def test_the_settings_are_those_of_the_scheme() -> None:
    assert settings_of(Scheme.parse("int4_sym-g256"), 512) == Settings(4, 128)
    assert settings_of(Scheme.parse("int8_sym"), 33) == Settings(8, WHOLE_CHANNEL)
    assert becomes(Scheme.parse("int4_asym-g128"), 256) == Scheme.parse("int4_sym-g128")
    assert becomes(Scheme.parse("nf4-gall"), 20) == Scheme.parse("int4_sym-gall")
    assert Settings(4, 64).told() == {
        "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 64, "dynamic": False,
    }  # fmt: skip
    assert Settings(8, WHOLE_CHANNEL).told()["strategy"] == "channel"
