"""What a scheme is called, what it takes, and how many bytes it costs."""

import re

import pytest

from studio.base.errors import SchemeError
from studio.quantization.scheme import (
    GROUP_SIZES,
    WHOLE_CHANNEL,
    Mode,
    Part,
    Scheme,
    backup_modes,
    fitting_group_sizes,
    parse_backup,
    parse_mode,
)

SCHEMES = [Scheme(mode, group) for mode in Mode for group in mode.stored_as.group_sizes]
FIXED = {
    Mode.INT8_SYM: WHOLE_CHANNEL,
    Mode.INT8_ASYM: WHOLE_CHANNEL,
    Mode.MXFP4: 32,
    Mode.NVFP4: 16,
    Mode.MXFP8_E4M3: 32,
    **{mode: mode.block_format.sub_block for mode in Mode if mode.is_in_blocks},
}
"""The modes whose group size nobody chooses."""


@pytest.mark.parametrize(
    ("name", "shape", "by_hand"),
    [
        # codes + scales + zero points
        ("int8_sym", (576, 1536), 576 * 1536 + 576 * 2),
        ("int8_asym", (576, 1536), 576 * 1536 + 576 * 2 + 576),
        ("int4_sym-g64", (576, 576), 576 * 288 + 576 * 9 * 2),
        ("int4_asym-g64", (576, 576), 576 * 288 + 576 * 9 * 2 + 576 * 9 // 2),
        ("nf4-g64", (576, 576), 576 * 288 + 576 * 9 * 2),
        ("int4_asym-gall", (576, 1536), 576 * 768 + 576 * 2 + 288),
        ("int4_sym-g128", (1, 128), 64 + 2),
        ("int5_sym-g32", (576, 576), 576 * 360 + 576 * 18 * 2),
        ("int3_sym-g64", (576, 576), 576 * 216 + 576 * 9 * 2),
        ("int4_affine-g64", (576, 576), 576 * 288 + 576 * 9 * 4),
        ("int3_affine-g64", (576, 576), 576 * 216 + 576 * 9 * 4),
        ("int2_sym-g64", (576, 576), 576 * 144 + 576 * 9 * 2),
        ("fp4-g64", (576, 576), 576 * 288 + 576 * 9 * 2),
        ("cb4-g64", (576, 576), 576 * 288 + 576 * 9 * 2),
        ("mxfp4", (576, 576), 576 * 288 + 576 * 18),
        ("nvfp4", (576, 576), 576 * 288 + 576 * 36 + 4),
        ("fp8_e4m3-g64", (576, 576), 576 * 576 + 576 * 9 * 2),
        ("fp8_e4m3-gall", (576, 1536), 576 * 1536 + 576 * 2),
        ("mxfp8_e4m3", (576, 576), 576 * 576 + 576 * 18),
        ("cb4_learned-g64", (576, 576), 576 * 288 + 576 * 9 * 2 + 16 * 2),
        # odd: each row's codes start on a byte, zero points run on without a break
        ("int8_asym", (3, 5), 15 + 6 + 3),
        ("int4_sym-gall", (3, 5), 3 * 3 + 3 * 2),
        ("int4_asym-gall", (3, 5), 3 * 3 + 3 * 2 + 2),
        ("int4_asym-g3", (3, 9), 3 * 5 + 9 * 2 + 5),
        ("nf4-gall", (1, 1), 1 + 2),
        ("int3_sym-gall", (3, 5), 3 * 2 + 3 * 2),
        ("int3_sym-gall", (2, 9), 2 * 4 + 2 * 2),
        ("int2_sym-gall", (3, 5), 3 * 2 + 3 * 2),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bytes_are_those_counted_by_hand(name: str, shape: tuple[int, int], by_hand: int) -> None:
    assert Scheme.parse(name).nbytes(shape) == by_hand


@pytest.mark.parametrize("group", [32, 64, 128, 256], ids="g{}".format)
@pytest.mark.parametrize(
    ("mode", "side_bits"),
    [
        *((mode, 16) for mode in (Mode.INT4_SYM, Mode.NF4, Mode.FP4, Mode.CB4, Mode.INT3_SYM, Mode.INT2_SYM)),
        (Mode.FP8_E4M3, 16),
        (Mode.INT4_ASYM, 20),
    ],
    ids=str,
)
def test_bits_per_weight_are_those_of_nncf(mode: Mode, side_bits: int, group: int) -> None:
    rows, width = 48, 1024
    assert Scheme(mode, group).nbytes((rows, width)) * 8 / (rows * width) == mode.bits + side_bits / group


@pytest.mark.parametrize(("mode", "bits"), [(Mode.MXFP4, 4.25), (Mode.MXFP8_E4M3, 8.25), (Mode.NVFP4, 4.5)], ids=str)
def test_bits_per_weight_of_fixed_groups(mode: Mode, bits: float) -> None:
    """NVFP4's one fp32 number a tensor comes on top."""
    rows, width = 48, 1024
    once = 4 if mode is Mode.NVFP4 else 0
    assert (Scheme.of(mode, 64).nbytes((rows, width)) - once) * 8 / (rows * width) == bits


def test_parts_stand_in_the_order_of_the_file() -> None:
    assert Scheme(Mode.INT4_ASYM, 64).parts((576, 128)) == (
        Part("codes", "U8", (576, 64)),
        Part("scale", "F16", (576, 2)),
        Part("zero_point", "U8", (576,)),
    )
    assert Scheme(Mode.INT8_SYM).parts((4, 6)) == (Part("codes", "I8", (4, 6)), Part("scale", "F16", (4, 1)))
    assert Scheme(Mode.INT8_ASYM).parts((4, 6)) == (
        Part("codes", "U8", (4, 6)),
        Part("scale", "F16", (4, 1)),
        Part("zero_point", "U8", (4, 1)),
    )
    assert Scheme(Mode.NVFP4, 16).parts((4, 32)) == (
        Part("codes", "U8", (4, 16)),
        Part("scale", "F8_E4M3", (4, 2)),
        Part("global_scale", "F32", (1,)),
    )
    assert Scheme(Mode.MXFP8_E4M3, 32).parts((4, 64)) == (
        Part("codes", "F8_E4M3", (4, 64)),
        Part("scale", "F8_E8M0", (4, 2)),
    )
    assert Scheme(Mode.CB4_LEARNED).parts((4, 6)) == (
        Part("codes", "U8", (4, 3)),
        Part("scale", "F16", (4, 1)),
        Part("codebook", "F16", (16,)),
    )


def test_bits_are_those_the_name_says() -> None:
    """A name without a digit promises nothing."""
    first_digits = {mode: re.search(r"\d", mode.value) for mode in Mode}
    promised = {mode: int(digit[0]) for mode, digit in first_digits.items() if digit is not None}
    assert promised
    assert {mode: mode.bits for mode in promised} == promised


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_scheme_is_read_back_from_its_name(scheme: Scheme) -> None:
    assert Scheme.parse(str(scheme)) == scheme


def test_names_are_distinct_and_as_documented() -> None:
    assert len({str(scheme) for scheme in SCHEMES}) == len(SCHEMES)
    assert str(Scheme(Mode.INT4_ASYM, 64)) == "int4_asym-g64"
    assert str(Scheme(Mode.INT4_SYM)) == "int4_sym-gall"
    assert str(Scheme(Mode.INT8_SYM)) == "int8_sym"
    assert str(Scheme(Mode.MXFP4, 32)) == "mxfp4"
    assert str(Scheme(Mode.NVFP4, 16)) == "nvfp4"


@pytest.mark.parametrize(
    "name",
    [
        *("", "int5", "int4_asym", "int4_asym-gx", "int4_asym-g64.0", "int4_asym-g1", "int4_asym-g0", "int4_asym-g-2"),
        *("int8_sym-g64", "mxfp4-g32", "mxfp4-g64", "nvfp4-g16", "mxfp8_e4m3-gall", "fp8_e4m3", "cb4_learned"),
        # numbers that Python reads but ``str`` never writes: one scheme has one name
        *("int4_asym-g064", "int4_asym-g6_4", "int4_asym-g 64", "int4_asym-g-1", "int4_asym-g", "int8_sym-gall"),
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(SchemeError):
        Scheme.parse(name)


@pytest.mark.parametrize("name", ["q4_k_m", "INT4_SYM", "x" * 5000], ids=["foreign", "upper_case", "endless"])
def test_an_unknown_mode_is_answered_with_the_valid_ones(name: str) -> None:
    with pytest.raises(SchemeError) as caught:
        parse_mode(name)
    assert all(mode.value in str(caught.value) for mode in Mode)
    assert len(str(caught.value)) < 400


BACKUPS = tuple(backup_modes())


def test_an_unknown_backup_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(SchemeError) as caught:
        parse_backup("nf4")
    assert all(name in str(caught.value) for name in BACKUPS)


def test_every_backup_has_a_name() -> None:
    assert {"int8_asym", "int8_sym", "fp8_e4m3", "q8_0", "q6_k"} < set(BACKUPS)
    assert BACKUPS[-1] == "none"
    assert [parse_backup(name) for name in BACKUPS] == list(backup_modes().values())


@pytest.mark.parametrize("group", [WHOLE_CHANNEL, 16, 32, 64], ids="g{}".format)
@pytest.mark.parametrize("mode", FIXED, ids=str)
def test_a_mode_that_prescribes_its_group_takes_no_other(mode: Mode, group: int) -> None:
    assert not mode.is_grouped
    assert Scheme.of(mode, group) == Scheme(mode, FIXED[mode])
    if group != FIXED[mode]:
        with pytest.raises(SchemeError) as caught:
            Scheme(mode, group)
        assert caught.value.key == "group_size_of_mode"


def test_the_modes_that_prescribe_their_group_say_so() -> None:
    assert [mode.stored_as.group_sizes for mode in FIXED] == [(size,) for size in FIXED.values()]


@pytest.mark.parametrize("mode", [mode for mode in Mode if len(mode.stored_as.group_sizes) > 1], ids=str)
def test_every_other_mode_takes_any_group(mode: Mode) -> None:
    assert mode.is_grouped
    assert [Scheme.of(mode, group).group_size for group in (*GROUP_SIZES, 192, 2)] == [*GROUP_SIZES, 192, 2]


@pytest.mark.parametrize(("width", "group"), [(576, 128), (100, 64), (63, 64), (1, 32)])
def test_a_group_that_does_not_divide_the_width_is_refused(width: int, group: int) -> None:
    scheme = Scheme(Mode.INT4_SYM, group)
    assert not scheme.fits(width)
    with pytest.raises(SchemeError) as caught:
        scheme.nbytes((4, width))
    assert caught.value.values == {"group_size": group, "width": width}


@pytest.mark.parametrize(
    ("widths", "fitting"),
    [
        ((576,), (-1, 32, 64)),
        ((576, 1536), (-1, 32, 64)),
        ((4096, 14336), (-1, 32, 64, 128, 256)),
        ((48,), (-1,)),
        ((), (-1, 32, 64, 128, 256)),
    ],
    ids=["576", "576+1536", "4096+14336", "48", "none"],
)
def test_fitting_group_sizes_divide_every_width(widths: tuple[int, ...], fitting: tuple[int, ...]) -> None:
    assert fitting_group_sizes(widths) == fitting
