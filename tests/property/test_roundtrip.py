"""What holds for any weight, shape and scheme, not only for those somebody thought of."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from studio.quantization.packing import pack, pack_bits, unpack, unpack_bits
from studio.quantization.rounding import QuantizedWeight, dequantize, round_to_nearest
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme

quickly = settings(max_examples=50, deadline=None)
TORCH_DTYPES = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "F16": torch.float16,
    "F32": torch.float32,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
}
SYMMETRIC = {8: Mode.INT8_SYM, 5: Mode.INT5_SYM, 4: Mode.INT4_SYM, 3: Mode.INT3_SYM, 2: Mode.INT2_SYM}
SLACK = 1e-4
"""Of a step: what fp32 itself may lose in w / s + zp, where the codes go up to 255 (255 * 2^-23 and a little)."""


@st.composite
def schemes_and_shapes(draw: st.DrawFn) -> tuple[Scheme, tuple[int, int]]:
    """Return any scheme with a [N, K] it fits: odd widths, single rows and odd group sizes too."""
    mode = draw(st.sampled_from(list(Mode)))
    rows = draw(st.integers(1, 9))
    if not mode.is_grouped:
        scheme = Scheme.of(mode, WHOLE_CHANNEL)
        fixed = scheme.group_size if mode.stored_as.block is None else mode.stored_as.block[0]
        return scheme, (rows, draw(st.integers(1, 70)) if fixed == WHOLE_CHANNEL else fixed * draw(st.integers(1, 5)))
    if draw(st.booleans()):
        return Scheme(mode, WHOLE_CHANNEL), (rows, draw(st.integers(1, 70)))
    group_size = draw(st.one_of(st.sampled_from([32, 64, 128]), st.integers(2, 40)))
    return Scheme(mode, group_size), (rows, group_size * draw(st.integers(1, 5)))


@st.composite
def codes_on_a_grid(draw: st.DrawFn) -> tuple[Scheme, QuantizedWeight]:
    """Return any codes, scales, zero points and shared numbers at all, as a file may hold them."""
    scheme, (rows, width) = draw(schemes_and_shapes())
    groups, top = scheme.groups(width), 2**scheme.mode.bits - 1
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    form = scheme.mode.stored_as
    if form.block is not None:
        return scheme, round_to_nearest(torch.randn(rows, width, generator=random), scheme)
    scale = torch.randn(rows, groups, generator=random)
    if form.scale_dtype == "F8_E8M0":
        scale = scale.abs() + 2.0**-20  # neither a sign nor zero
    zero_point = torch.randint(0, top + 1, (rows, groups), dtype=torch.uint8, generator=random)
    codes = torch.randint(0, top + 1, (rows, width), dtype=torch.uint8, generator=random)
    if form.code_dtype == "F8_E4M3":
        codes[codes & 0x7F == 0x7F] = 0  # no number
    shared = None
    if form.tensor_params is not None:
        _, dtype, count = form.tensor_params
        shared = torch.randn(count, generator=random).to(TORCH_DTYPES[dtype])
    zeros = zero_point if scheme.mode.has_zero_point else None
    offset = torch.randn(rows, groups, generator=random) if form.has_offset else None
    return scheme, QuantizedWeight(codes, scale, zeros, shared, offset=offset).stored(form.scale_dtype)


@st.composite
def weights(draw: st.DrawFn) -> tuple[Scheme, Tensor]:
    """Return a scheme and a weight of any size, spread, shift and outliers within fp16's range."""
    scheme, shape = draw(schemes_and_shapes())
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(shape, generator=random) + draw(st.sampled_from([0.0, 0.1, -0.1, 5.0, -5.0]))
    if draw(st.booleans()):
        row, column = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        weight[row, column] = draw(st.floats(-1000, 1000, width=32))
    if draw(st.booleans()):
        weight[torch.rand(shape, generator=random) < 0.3] = 0
    return scheme, weight * draw(st.sampled_from([0.0, 1e-38, 1e-9, 2**-20, 0.02, 1.0, 30.0]))


def grouped(weight: Tensor, rounded: QuantizedWeight) -> Tensor:
    """Return [N, G, g] in fp64."""
    return weight.double().reshape(*rounded.scale.shape, -1)


def in_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes: of one number, torch takes any stride for a sound one."""
    return tensor.flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8)


@quickly
@given(codes_on_a_grid())
def test_unpacking_undoes_packing(drawn: tuple[Scheme, QuantizedWeight]) -> None:
    scheme, rounded = drawn
    back = unpack(pack(rounded, scheme))
    assert torch.equal(back.codes, rounded.codes)
    assert torch.equal(in_bytes(back.scale), in_bytes(rounded.scale))
    assert (
        (back.tensor_params is None) == (rounded.tensor_params is None) == (scheme.mode.stored_as.tensor_params is None)
    )
    if back.tensor_params is not None and rounded.tensor_params is not None:
        assert torch.equal(back.tensor_params, rounded.tensor_params)
    assert (back.zero_point is None) == (rounded.zero_point is None)
    if back.zero_point is not None and rounded.zero_point is not None:
        assert torch.equal(back.zero_point, rounded.zero_point)
    assert (back.offset is None) == (rounded.offset is None)
    if back.offset is not None and rounded.offset is not None:
        assert torch.equal(in_bytes(back.offset), in_bytes(rounded.offset))


@quickly
@given(codes_on_a_grid(), st.data())
def test_any_rows_unpack_alone(drawn: tuple[Scheme, QuantizedWeight], data: st.DataObject) -> None:
    scheme, rounded = drawn
    rows = rounded.codes.shape[0]
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    packed = pack(rounded, scheme)
    assert torch.equal(packed.dequantize(start, stop), dequantize(rounded, scheme.mode)[start:stop])


@quickly
@given(st.sampled_from([2, 3, 4]), st.integers(1, 4), st.integers(1, 40), st.data())
def test_codes_come_back_at_any_width(bits: int, rows: int, width: int, data: st.DataObject) -> None:
    numbers = st.lists(st.integers(0, 2**bits - 1), min_size=rows * width, max_size=rows * width)
    codes = torch.tensor(data.draw(numbers), dtype=torch.uint8).reshape(rows, width)
    packed = pack_bits(codes, bits)
    assert packed.shape == (rows, -(-width * bits // 8))
    assert torch.equal(unpack_bits(packed, bits, width), codes)
    assert torch.equal(unpack_bits(pack_bits(codes[0], bits), bits, width), codes[0]), "one axis is enough"


@quickly
@given(codes_on_a_grid())
def test_the_bytes_are_those_the_scheme_promises(drawn: tuple[Scheme, QuantizedWeight]) -> None:
    scheme, rounded = drawn
    rows, width = rounded.codes.shape
    arrays = pack(rounded, scheme).arrays()
    assert scheme.nbytes((rows, width)) == sum(array.nbytes for array in arrays.values())
    assert [(name, array.dtype, tuple(array.shape)) for name, array in arrays.items()] == [
        (part.name, TORCH_DTYPES[part.dtype], part.shape) for part in scheme.parts((rows, width))
    ]


@quickly
@given(schemes_and_shapes())
def test_a_scheme_is_read_back_from_its_name(drawn: tuple[Scheme, tuple[int, int]]) -> None:
    scheme, _ = drawn
    assert Scheme.parse(str(scheme)) == scheme


@quickly
@given(weights())
def test_an_asymmetric_code_is_within_half_a_step(drawn: tuple[Scheme, Tensor]) -> None:
    """Every weight lies within the range. The zero point is rounded, which shifts the grid by up to half a step; the
    weight that this pushes past an end is clipped back by no more than that, so half a step is never exceeded."""
    scheme, weight = drawn
    scheme = Scheme.of(Mode.INT8_ASYM if scheme.mode.bits == 8 else Mode.INT4_ASYM, scheme.group_size)
    rounded = round_to_nearest(weight, scheme)
    step = rounded.scale.double().unsqueeze(2)
    error = (grouped(dequantize(rounded, scheme.mode), rounded) - grouped(weight, rounded)).abs()
    assert (error <= (0.5 + SLACK) * step).all()


@quickly
@given(weights())
def test_a_symmetric_code_is_within_half_a_step_below_the_top(drawn: tuple[Scheme, Tensor]) -> None:
    """Codes run from -h to h - 1 and the extreme weight is -h exactly, so only a weight beyond h - 1/2 steps, on the
    other side from the extreme one, is clipped: to h - 1, by no more than one step."""
    scheme, weight = drawn
    scheme = Scheme.of(SYMMETRIC.get(scheme.mode.bits, Mode.INT8_SYM), scheme.group_size)
    rounded = round_to_nearest(weight, scheme)
    half = 2 ** (scheme.mode.bits - 1)
    step = rounded.scale.double().unsqueeze(2)
    steps = grouped(weight, rounded) / step
    error = (grouped(dequantize(rounded, scheme.mode), rounded) / step - steps).abs()
    inside = steps <= half - 0.5
    assert (steps >= -half - SLACK).all()
    assert (error[inside] <= 0.5 + SLACK).all()
    assert (error[~inside] <= 1 + SLACK).all()
    assert (grouped(rounded.codes, rounded)[~inside] == 2 * half - 1).all()


@quickly
@given(weights())
def test_an_nf4_code_is_the_nearest_level(drawn: tuple[Scheme, Tensor]) -> None:
    """The widest gap of the levels is 0.304 of the scale, so no weight is further than half of that from its own."""
    scheme, weight = drawn
    scheme = Scheme(Mode.NF4, scheme.group_size)
    rounded = round_to_nearest(weight, scheme)
    error = (grouped(dequantize(rounded, Mode.NF4), rounded) - grouped(weight, rounded)).abs()
    assert (error <= 0.1521 * rounded.scale.double().unsqueeze(2)).all()


@quickly
@given(weights())
def test_zero_comes_back_as_zero(drawn: tuple[Scheme, Tensor]) -> None:
    """But where there is an offset, or no level at zero."""
    scheme, weight = drawn
    if scheme.mode.stored_as.has_offset:
        weight = torch.zeros_like(weight)
    if scheme.mode.is_in_blocks and (scheme.mode.block_format.has_offset or 0 not in scheme.mode.block_format.levels):
        weight = torch.zeros_like(weight)
    restored = dequantize(round_to_nearest(weight, scheme).stored(scheme.mode.stored_as.scale_dtype), scheme.mode)
    assert (restored[weight == 0] == 0).all()


@quickly
@given(weights())
def test_storing_the_scale_costs_no_more_than_its_rounding(drawn: tuple[Scheme, Tensor]) -> None:
    """fp16 has 11 bits: 2^-11 relative, and below its normal range (2^-14) half of its smallest step, 2^-25. A power
    of two is held exactly, and so is E4M3, in which NVFP4's scales are found."""
    scheme, weight = drawn
    rounded = round_to_nearest(weight, scheme)
    found = rounded.scale.double()
    kept = rounded.stored(scheme.mode.stored_as.scale_dtype).scale.double()
    if scheme.mode.stored_as.scale_dtype != "F16":
        assert torch.equal(kept, found)
    assert ((kept - found).abs() <= torch.maximum(found.abs() * 2**-11, torch.tensor(2.0**-25))).all()
