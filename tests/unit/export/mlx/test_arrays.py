"""MLX's three arrays stand for the very numbers that the packed weight does, read here by the layout's words alone."""

import numpy as np
import pytest
import torch

from studio.base.errors import ModelError
from studio.export.mlx.arrays import BITS, arrays_of, becomes, settings_of
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme

WIDTH = 384
HELD = [
    *(f"int{bits}_affine-g{size}" for bits in BITS for size in (32, 64, 128)),
    *("int4_sym-g32", "int5_sym-g64", "int3_sym-g128", "int2_sym-g32", "int8_sym", "int4_sym-g192", "int4_affine-gall"),
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0"),
]
NOT_HELD = [
    *("int4_asym-g64", "int8_asym", "nf4-g64", "cb4-g64", "fp4-g64", "mxfp4", "nvfp4", "fp8_e4m3-g64", "q4_k", "q6_k"),
    *("iq4_nl", "int4_affine-g16", "int4_sym-g48", "cb4_learned-g64"),
]


def packed(name: str, rows: int = 6) -> PackedTensor:
    weight = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    scheme = Scheme.parse(name)
    return pack(round_to_nearest(weight, scheme), scheme)


def read(weight: np.ndarray, scales: np.ndarray, biases: np.ndarray, bits: int) -> np.ndarray:
    """A row's words are one long number, lowest bits first; code k is bits k b to (k + 1) b of it."""
    rows = []
    for words, scale, bias in zip(weight, scales, biases, strict=True):
        number = int.from_bytes(words.astype("<u4").tobytes(), "little")
        count = len(words) * 32 // bits
        codes = np.array([number >> bits * k & (1 << bits) - 1 for k in range(count)], dtype=np.float32)
        groups = codes.reshape(len(scale), -1) * scale.astype(np.float32)[:, None] + bias.astype(np.float32)[:, None]
        rows.append(groups.flatten())
    return np.array(rows)


@pytest.mark.parametrize("name", HELD)
def test_no_number_changes(name: str) -> None:
    weight = packed(name)
    settings = settings_of(weight.scheme, WIDTH)
    assert settings is not None
    arrays = arrays_of(weight)
    for part, slot in settings.slots(weight.shape).items():
        assert tuple(arrays[part].shape) == slot.shape
        assert str(arrays[part].dtype) == {"F16": "torch.float16", "U32": "torch.uint32"}[slot.dtype]
    weights, scales, biases = (arrays[part].numpy() for part in ("weight", "scales", "biases"))
    found = read(weights, scales, biases, settings.bits)
    assert np.array_equal(found, weight.dequantize().numpy())


@pytest.mark.parametrize("name", ["int4_affine-g64", "int3_sym-g32", "q5_1", "int8_sym"])
def test_rows_come_in_pieces(name: str) -> None:
    scheme, whole = Scheme.parse(name), packed(name)
    weight = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.01
    pieces = [arrays_of(pack(round_to_nearest(piece, scheme), scheme)) for piece in weight.split(2)]
    for part, array in arrays_of(whole).items():
        assert torch.equal(torch.cat([piece[part].view(torch.uint8) for piece in pieces]), array.view(torch.uint8))


@pytest.mark.parametrize("name", NOT_HELD)
def test_what_is_not_held_becomes_what_is(name: str) -> None:
    scheme = Scheme.parse(name)
    assert settings_of(scheme, 1536) is None
    other = becomes(scheme, 1536)
    assert other is not None
    held = settings_of(other, 1536)
    assert held is not None
    assert held.bits == other.mode.bits
    if scheme.group_size in (32, 64, 128):
        assert other.group_size == scheme.group_size


def test_a_width_that_no_group_divides_is_not_held() -> None:
    assert becomes(Scheme(Mode.INT4_SYM), 80) is None
    assert settings_of(Scheme(Mode.INT4_SYM), 80) is None
    assert settings_of(Scheme(Mode.INT4_SYM), 96) is not None


def test_an_offset_beyond_fp16_is_said() -> None:
    weight = packed("int8_sym")
    large = PackedTensor(weight.scheme, weight.shape, weight.codes, torch.full_like(weight.scale, 1000.0))
    with pytest.raises(ModelError) as caught:
        arrays_of(large)
    assert caught.value.key == "to_mlx_range"
    with pytest.raises(ValueError, match="does not hold"):
        arrays_of(packed("nf4-g64"))
