"""What a scheme is called, what it takes, and how many bytes it costs."""

import pytest

from studio.errors import SchemeError
from studio.scheme import (
    BACKUP_MODES,
    GROUP_SIZES,
    WHOLE_CHANNEL,
    Mode,
    Part,
    Scheme,
    fitting_group_sizes,
    parse_backup,
    parse_mode,
)

SCHEMES = [Scheme(mode, group) for mode in Mode for group in (GROUP_SIZES if mode.is_grouped else (WHOLE_CHANNEL,))]


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
        # odd: each row's codes start on a byte, zero points run on without a break
        ("int8_asym", (3, 5), 15 + 6 + 3),
        ("int4_sym-gall", (3, 5), 3 * 3 + 3 * 2),
        ("int4_asym-gall", (3, 5), 3 * 3 + 3 * 2 + 2),
        ("int4_asym-g3", (3, 9), 3 * 5 + 9 * 2 + 5),
        ("nf4-gall", (1, 1), 1 + 2),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_bytes_are_those_counted_by_hand(name: str, shape: tuple[int, int], by_hand: int) -> None:
    assert Scheme.parse(name).nbytes(shape) == by_hand


@pytest.mark.parametrize("group", [32, 64, 128, 256], ids="g{}".format)
@pytest.mark.parametrize(
    ("mode", "side_bits"),
    [(Mode.INT4_SYM, 16), (Mode.NF4, 16), (Mode.INT4_ASYM, 20)],
    ids=["int4_sym", "nf4", "int4_asym"],
)
def test_bits_per_weight_are_those_of_nncf(mode: Mode, side_bits: int, group: int) -> None:
    rows, width = 48, 1024
    assert Scheme(mode, group).nbytes((rows, width)) * 8 / (rows * width) == 4 + side_bits / group


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


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_scheme_is_read_back_from_its_name(scheme: Scheme) -> None:
    assert Scheme.parse(str(scheme)) == scheme


def test_names_are_distinct_and_as_documented() -> None:
    assert len({str(scheme) for scheme in SCHEMES}) == len(SCHEMES)
    assert str(Scheme(Mode.INT4_ASYM, 64)) == "int4_asym-g64"
    assert str(Scheme(Mode.INT4_SYM)) == "int4_sym-gall"
    assert str(Scheme(Mode.INT8_SYM)) == "int8_sym"


@pytest.mark.parametrize(
    "name",
    [
        *("", "int5", "int4_asym", "int4_asym-gx", "int4_asym-g64.0", "int4_asym-g1", "int4_asym-g0", "int4_asym-g-2"),
        "int8_sym-g64",
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
    assert len(str(caught.value)) < 300


def test_an_unknown_backup_is_answered_with_the_valid_ones() -> None:
    with pytest.raises(SchemeError) as caught:
        parse_backup("nf4")
    assert all(name in str(caught.value) for name in ("int8_asym", "int8_sym", "none"))


def test_every_backup_has_a_name() -> None:
    assert [parse_backup(name) for name in ("int8_asym", "int8_sym", "none")] == list(BACKUP_MODES)


@pytest.mark.parametrize("mode", [Mode.INT8_SYM, Mode.INT8_ASYM], ids=str)
def test_an_8_bit_mode_takes_no_group_size(mode: Mode) -> None:
    with pytest.raises(SchemeError) as caught:
        Scheme(mode, 64)
    assert caught.value.key == "group_size_of_mode"


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
