"""Every packed product is the product with the dequantized weight, as close as bf16 allows."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Scheme
from studio.runtime.kernels import PackedEmbedding, PackedLinear, Product, compiled, lookup_for, product_for, tiled
from studio.runtime.kernels.int4 import Int4Product
from studio.runtime.kernels.int8 import Int8Product
from studio.runtime.kernels.tiled import TiledProduct

BF16_BOUND = 1e-2
"""bf16 keeps 8 bits, so one rounding errs by at most 2^-9 = 0.2 %. The scale, the zero point's shift, the dequantized
weight and the result are each rounded once: 0.8 % if all erred fully and the same way. Measured: 0.2 to 0.3 %."""


@dataclass(frozen=True)
class Case:
    scheme: str
    rows: int
    width: int
    product: type[Product]

    def __str__(self) -> str:
        return f"{self.scheme}-{self.rows}x{self.width}"

    def packed(self) -> PackedTensor:
        weight = torch.randn(self.rows, self.width, generator=torch.Generator().manual_seed(1)) + 0.1
        scheme = Scheme.parse(self.scheme)
        return pack(round_to_nearest(weight, scheme), scheme)

    def made(self, packed: PackedTensor | None = None) -> Product:
        """Return the product of the weight as it is without a compiler; its kind is checked first, for the wrong
        operator may crash the process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "decoding", lambda: None)
            product = product_for(packed or self.packed())
        assert type(product) is self.product
        return product

    def inputs(self, count: int) -> Tensor:
        return torch.randn(count, self.width, generator=torch.Generator().manual_seed(2)).bfloat16()


CASES = [
    Case("int4_sym-g32", 64, 96, Int4Product),
    Case("int4_sym-g64", 576, 576, Int4Product),
    Case("int4_asym-g64", 576, 576, Int4Product),
    Case("int4_asym-g128", 32, 256, Int4Product),
    Case("int4_asym-g256", 16, 512, Int4Product),
    # N that the operator does not take
    Case("int4_sym-g64", 50, 128, Int4Product),
    Case("int4_asym-g64", 1, 128, Int4Product),
    # groups wider than the operator takes, or between its own: several of its groups with the same numbers
    Case("int4_sym-gall", 33, 576, Int4Product),
    Case("int4_asym-gall", 33, 576, Int4Product),
    Case("int4_sym-gall", 48, 1536, Int4Product),
    Case("int4_asym-gall", 48, 1536, Int4Product),
    Case("int4_asym-g96", 48, 288, Int4Product),
    # nothing the operator takes divides 48 or 5
    Case("int4_sym-gall", 20, 48, TiledProduct),
    Case("int4_asym-gall", 20, 48, TiledProduct),
    Case("int4_asym-g16", 20, 48, TiledProduct),
    Case("int4_asym-gall", 7, 5, TiledProduct),
    Case("nf4-g64", 50, 576, TiledProduct),
    Case("nf4-gall", 7, 48, TiledProduct),
    Case("int8_sym", 576, 576, Int8Product),
    Case("int8_asym", 576, 576, Int8Product),
    Case("int8_sym", 50, 1536, Int8Product),
    Case("int8_asym", 50, 1536, Int8Product),
    Case("int8_sym", 17, 48, Int8Product),
    Case("int8_asym", 1, 16, Int8Product),
    # torch's int8 operator reads 16 weights at a time and past the end of a row that 16 does not divide
    Case("int8_sym", 17, 49, TiledProduct),
    Case("int8_asym", 17, 49, TiledProduct),
    Case("int8_asym", 4, 8, TiledProduct),
]
in_every_case = pytest.mark.parametrize("case", CASES, ids=str)
of_every_kind = pytest.mark.parametrize(
    "case",
    [
        Case(scheme, 50, 192, product)  # type: ignore[type-abstract]  # all of them concrete
        for scheme, product in [
            ("int4_sym-g64", Int4Product),
            ("int4_asym-g64", Int4Product),
            ("int8_sym", Int8Product),
            ("int8_asym", Int8Product),
            ("nf4-g64", TiledProduct),
        ]
    ],
    ids=str,
)


def exact(packed: PackedTensor, x: Tensor) -> Tensor:
    return x.double() @ packed.dequantize().double().T


def relative_error(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected).norm() / expected.norm())


@in_every_case
def test_a_weight_gets_the_fastest_product_that_takes_it(case: Case) -> None:
    product = case.made()
    assert case.product.takes(case.packed())
    assert product.is_fast == (case.product is not TiledProduct)


@in_every_case
@pytest.mark.parametrize("count", [1, 5, 65], ids="M{}".format)
def test_a_product_is_that_with_the_dequantized_weight(case: Case, count: int) -> None:
    packed, x = case.packed(), case.inputs(count)
    y = case.made(packed)(x)
    assert (y.dtype, y.shape) == (torch.bfloat16, (count, case.rows))
    assert relative_error(y, exact(packed, x)) < BF16_BOUND


@in_every_case
def test_every_row_of_the_weight_is_as_right_as_the_whole(case: Case) -> None:
    """So that no edge (the last rows, a group's border) hides in the norm of the rest."""
    packed, x = case.packed(), case.inputs(65)
    expected = exact(packed, x)
    errors = (case.made(packed)(x).double() - expected).norm(dim=0) / expected.norm(dim=0)
    assert errors.max() < BF16_BOUND


@in_every_case
def test_batch_rows_do_not_change_an_answer(case: Case) -> None:
    """Sums may be taken in another order, which shows in the last bit of bf16 at most."""
    product, x = case.made(), case.inputs(65)
    together = product(x)
    alone = torch.cat([product(row) for row in x.split(1)])
    torch.testing.assert_close(alone, together, rtol=2**-7, atol=1e-5 * float(together.abs().max()))


@of_every_kind
def test_weights_of_one_sign_are_no_harder(case: Case) -> None:
    scheme = Scheme.parse(case.scheme)
    for sign in (-1, 1):
        packed = pack(round_to_nearest(sign * (case.packed().dequantize().abs() + 0.5), scheme), scheme)
        x = case.inputs(5)
        assert relative_error(case.made(packed)(x), exact(packed, x)) < BF16_BOUND


def test_tiles_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("nf4-g64", 50, 128, TiledProduct)
    product, x = TiledProduct(case.packed()), case.inputs(5)
    whole = product(x)
    for weights in (1, 128, 7 * 128, 50 * 128 - 1):
        monkeypatch.setattr(tiled, "TILE_WEIGHTS", weights)
        assert torch.equal(product(x), whole)


@of_every_kind
def test_looked_up_rows_are_the_dequantized_ones(case: Case) -> None:
    """To the last bit of bf16: the sum of an int8_asym row is taken in another order."""
    packed = case.packed()
    indices = torch.tensor([[0, 49, 3], [3, 3, 17]])
    rows = lookup_for(packed).rows(indices)
    assert (rows.dtype, rows.shape) == (torch.bfloat16, (2, 3, 192))
    torch.testing.assert_close(rows, packed.dequantize()[indices].bfloat16(), rtol=2**-7, atol=0)


@of_every_kind
def test_a_lookup_multiplies_too(case: Case) -> None:
    """One array serves a tied head and its embedding."""
    packed, x = case.packed(), case.inputs(5)
    assert relative_error(lookup_for(packed)(x), exact(packed, x)) < BF16_BOUND


@of_every_kind
@pytest.mark.parametrize("outer", [(), (3,), (2, 3)], ids=["one", "rows", "batch"])
def test_a_linear_keeps_the_outer_shape_and_adds_its_bias(case: Case, outer: tuple[int, ...]) -> None:
    packed = case.packed()
    x = case.inputs(6)[: max(1, torch.Size(outer).numel())].reshape(*outer, 192)
    bias = torch.linspace(-50, 50, 50).bfloat16()
    y = PackedLinear(case.made(packed), bias)(x)
    assert (y.dtype, y.shape) == (torch.bfloat16, (*outer, 50))
    assert relative_error(y, exact(packed, x) + bias.double()) < BF16_BOUND
    without = PackedLinear(case.made(packed), None)(x)
    assert relative_error(without, exact(packed, x)) < BF16_BOUND


@of_every_kind
@pytest.mark.parametrize("view", ["last_token", "transposed", "strided"])
def test_a_linear_takes_a_view_as_it_takes_its_copy(case: Case, view: str) -> None:
    x = {
        "last_token": case.inputs(8).reshape(2, 4, 192)[:, -1],
        "transposed": case.inputs(6).T.contiguous().T,
        "strided": case.inputs(12).reshape(6, 384)[:, ::2],
    }[view]
    assert not x.is_contiguous()
    linear = PackedLinear(case.made(), None)
    assert torch.equal(linear(x), linear(x.contiguous()))


@of_every_kind
def test_an_embedding_is_its_rows_times_its_factor(case: Case) -> None:
    product = lookup_for(case.packed())
    indices = torch.tensor([[1, 0], [49, 1]])
    rows = product.rows(indices)
    assert torch.equal(PackedEmbedding(product, None)(indices), rows)
    assert torch.equal(PackedEmbedding(product, torch.tensor(24.0))(indices), rows * 24)
