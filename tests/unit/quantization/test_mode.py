"""What a format may say of itself, and what follows from its registration."""

import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch

from studio.base.errors import SchemeError
from studio.quantization.methods import Method, Rounding, parse_method
from studio.quantization.mode import BITS, GROUP_SIZES, SCALE_DTYPES, Format, Mode
from studio.quantization.native.round_to_nearest import measures
from studio.quantization.packing import PackedTensor, pack, unpack, zero_points
from studio.quantization.quantize import base_schemes, measure, measure_in_torch
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.affine import affine
from studio.quantization.rounding.integer import asymmetric, symmetric
from studio.quantization.rounding.nearest import dequantize
from studio.quantization.scheme import Scheme, backup_modes, parse_backup, parse_mode
from tests import made_up


@pytest.mark.parametrize(
    ("facts", "valid"),
    [
        ({"bits": 1}, "2 to 8"),
        ({"bits": 9}, "2 to 8"),
        ({"group_sizes": ()}, str(GROUP_SIZES)),
        ({"group_sizes": (0,)}, str(GROUP_SIZES)),
        ({"group_sizes": (1,)}, str(GROUP_SIZES)),
        ({"group_sizes": (32, 64)}, str(GROUP_SIZES)),
        ({"scale_dtype": "F64"}, ", ".join(SCALE_DTYPES)),
        ({"code_dtype": "I8"}, "U8"),
        ({"bits": 8, "code_dtype": "F16"}, "U8, I8, F8_E4M3"),
        ({"zero_point_bits": 3}, "0, 4, 5, 6, 7, 8"),
        ({"zero_point_bits": 9}, "0, 4, 5, 6, 7, 8"),
        ({"bits": 8, "zero_point_bits": 4}, "0, 8"),
        ({"tensor_params": ("scale", "F32", 1)}, "codes, scale, zero_point, offset"),
        ({"has_offset": True, "zero_point_bits": 4}, "0"),
        ({"has_offset": True, "scale_dtype": "F8_E8M0"}, "F16, BF16, F32"),
        ({"tensor_params": ("table", "F128", 1)}, "F32"),
        ({"tensor_params": ("table", "F32", 0)}, "1, 2, …"),
    ],
    ids=str,
)
def test_a_format_that_cannot_be_stored_is_answered_with_what_can(facts: dict[str, Any], valid: str) -> None:
    with pytest.raises(ValueError, match="no format has") as caught:
        Format(**{"bits": 4, "grid": lambda: symmetric(4), **facts})
    assert valid in str(caught.value)


@pytest.mark.parametrize("bits", BITS)
def test_every_width_can_be_a_format(bits: int) -> None:
    assert Format(bits, lambda: symmetric(bits)).bits == bits


@pytest.mark.parametrize("mode", list(Mode), ids=str)
def test_every_registered_format_has_a_grid_that_goes_with_it(mode: Mode) -> None:
    assert mode.grid.bits in (0, mode.bits)
    assert mode.default_backup in backup_modes().values()


@pytest.mark.parametrize(
    "form",
    [
        Format(4, lambda: asymmetric(4)),
        Format(4, lambda: symmetric(4), zero_point_bits=4),
        Format(6, lambda: symmetric(4)),
        Format(4, lambda: affine(4)),
        Format(4, lambda: symmetric(4), has_offset=True),
        Format(4, lambda: symmetric(4), tensor_params=("table", "F16", 16)),
    ],
    ids=["no_zero_point", "zero_point", "bits", "no_offset", "offset", "shared"],
)
def test_a_grid_that_does_not_go_with_its_format_is_refused(form: Format) -> None:
    mode = Mode.register("made_up", form)
    try:
        with pytest.raises(ValueError, match="made_up"):
            _ = mode.grid
    finally:
        Mode.remove("made_up")


def test_a_mode_is_there_while_it_is_registered() -> None:
    before = list(Mode)
    with made_up.registered() as modes:
        assert list(Mode) == [*before, *modes]
        made = modes[0]
        assert made is Mode("made6_zeros") is parse_mode("made6_zeros") is Mode.MADE6_ZEROS
        assert pickle.loads(pickle.dumps(made)) is made
        assert deepcopy(made) is made
        assert parse_backup("made7_squares") is Mode.MADE7_SQUARES
        assert Scheme.parse("made3_zeros-g64") == Scheme(Mode.MADE3_ZEROS, 64)
        assert {scheme.mode for scheme in base_schemes(64, GROUP_SIZES)} >= {Mode.MADE7_SQUARES}
        with pytest.raises(SchemeError, match="made6_zeros"):
            parse_mode("no_such")
        with pytest.raises(ValueError, match="registered already"):
            Mode.register("made6_zeros", made.stored_as)
    assert list(Mode) == before
    with pytest.raises(SchemeError, match="int4_asym"):
        parse_mode("made6_zeros")
    with pytest.raises(AttributeError, match="int4_asym"):
        _ = Mode.MADE6_ZEROS


@pytest.mark.parametrize("name", ["", "INT9", "int 9", "int-9", "9int", "ïnt9"])
def test_a_name_that_could_be_no_option_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Mode.register(name, Mode.NF4.stored_as)


def test_a_method_is_there_while_it_is_registered() -> None:
    with made_up.method("made_up", Rounding(1)) as made:
        assert parse_method("made_up") is made
        assert not made.needs_inputs
        with pytest.raises(SchemeError, match="made_up"):
            parse_method("no_such")
    assert "made_up" not in Method
    with pytest.raises(SchemeError, match="fisher_gptq"):
        parse_method("made_up")


@pytest.mark.parametrize("name", made_up.FORMATS)
@pytest.mark.parametrize("shape", [(6, 96), (5, 96), (3, 32), (1, 160)], ids=str)
@pytest.mark.parametrize("group", [-1, 32, 16], ids="g{}".format)
def test_a_format_of_any_width_is_packed_in_its_own_bits(name: str, shape: tuple[int, int], group: int) -> None:
    """Rows from anywhere too, and pieces of any length lie end to end: no zero point is cut to four bits."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 1
    with made_up.registered():
        scheme = Scheme(Mode(name), group)
        found = round_to_nearest(weight, scheme).stored(scheme.mode.stored_as.scale_dtype)
        packed = pack(found, scheme)
        parts = {part.name: (part.shape, part.nbytes) for part in scheme.parts(shape)}
        assert parts == {part: (tuple(array.shape), array.nbytes) for part, array in packed.arrays().items()}
        back = unpack(PackedTensor.of(scheme, shape, packed.arrays()))
        assert torch.equal(back.codes, found.codes)
        if found.zero_point is None:
            assert zero_points(packed) is None
        else:
            assert torch.equal(back.zero_point, found.zero_point)  # type: ignore[arg-type]
        whole = dequantize(found, scheme.mode)
        for start in range(shape[0]):
            for stop in range(start + 1, shape[0] + 1):
                assert torch.equal(packed.dequantize(start, stop), whole[start:stop])
        pieces = [pack(round_to_nearest(piece, scheme), scheme).arrays() for piece in weight.split(1)]
        for part, array in packed.arrays().items():
            assert torch.equal(torch.cat([piece[part] for piece in pieces]), array)


@pytest.mark.parametrize("name", made_up.FORMATS)
def test_what_compiled_code_does_not_know_is_measured_by_torch(name: str) -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    with made_up.registered():
        scheme = Scheme(Mode(name), 32)
        assert not measures(scheme.mode)
        schemes = [Scheme(Mode.INT4_ASYM, 32), scheme]
        found, expected = measure(weight, schemes), measure_in_torch(weight, schemes)
        assert found.differences[scheme] == expected.differences[scheme]


def test_the_grid_of_another_scale_is_another_format() -> None:
    """int4_sym's own grid: with scales that compiled code does not store it is torch's."""
    mode = Mode.register("made_up", Format(4, lambda: symmetric(4), scale_dtype="F32"))
    try:
        assert not measures(mode)
        assert measures(Mode.INT4_SYM)
        weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
        assert pack(round_to_nearest(weight, Scheme(mode, 32)), Scheme(mode, 32)).scale.dtype == torch.float32
    finally:
        Mode.remove("made_up")


@pytest.mark.parametrize("mode", [Mode.INT4_SYM, Mode.INT4_ASYM], ids=str)
def test_zero_points_are_stored_where_the_format_has_them(mode: Mode) -> None:
    other = Mode.INT4_ASYM if mode is Mode.INT4_SYM else Mode.INT4_SYM
    rounded = round_to_nearest(torch.randn(4, 32), Scheme(mode, 32))
    with pytest.raises(ValueError, match="zero points"):
        pack(rounded, Scheme(other, 32))


@pytest.mark.parametrize("mode", [Mode.INT4_SYM, Mode.INT4_AFFINE], ids=str)
def test_offsets_are_stored_where_the_format_has_them(mode: Mode) -> None:
    other = Mode.INT4_AFFINE if mode is Mode.INT4_SYM else Mode.INT4_SYM
    rounded = round_to_nearest(torch.randn(4, 32), Scheme(mode, 32))
    with pytest.raises(ValueError, match="offsets"):
        pack(rounded, Scheme(other, 32))
