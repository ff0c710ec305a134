"""Tuned rounding: a block says more nearly what it said, what is found can be stored, and it never gets worse."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Layer
from studio.compression.compress import compress
from studio.planning.choice import Choice
from studio.planning.plan import Plan, make_plan
from studio.quantization.methods import Method
from studio.quantization.packing import PackedTensor, pack, unpack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.least_squares import least_squares
from studio.quantization.rounding.sign_round import Start, tuned
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.block_model import BlockModel
from tests.steps import finish

MODES = (Mode.INT4_ASYM, Mode.INT4_AFFINE, Mode.INT4_SYM, Mode.NF4, Mode.CB4_LEARNED, Mode.FP4)
SCHEMES = [Scheme.of(mode, 32) for mode in MODES]
GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = (torch.randn(48, 64, generator=GENERATOR) * 0.1, torch.randn(32, 48, generator=GENERATOR) * 0.1)
GIVEN = torch.randn(64, 16, generator=GENERATOR) @ torch.randn(16, 64, generator=GENERATOR)


def said(weights: Mapping[str, Tensor]) -> Tensor:
    return torch.nn.functional.silu(GIVEN @ weights["first"].T) @ weights["second"].T


def loss(weights: Mapping[str, Tensor], step: int) -> Tensor:
    return (said(weights) - said({"first": FIRST, "second": SECOND})).square().mean()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_two_layers_together_say_more_nearly_what_they_said(scheme: Scheme) -> None:
    scheme_of = {"first": scheme, "second": Scheme(scheme.mode, 16)}
    weights = {"first": FIRST, "second": SECOND}
    starts = {n: Start(w, scheme_of[n], least_squares(w, scheme_of[n])) for n, w in weights.items()}
    found = finish(tuned(starts, loss))

    def error(rounded: Mapping[str, object]) -> float:
        return float(loss({n: pack(r, scheme_of[n]).dequantize() for n, r in rounded.items()}, -1))  # type: ignore[arg-type]

    assert error(found) < 0.75 * error({n: start.rounded for n, start in starts.items()})
    assert error(found) < 0.6 * error({n: round_to_nearest(w, scheme_of[n]) for n, w in weights.items()})
    for name, rounded in found.items():
        assert torch.equal(unpack(pack(rounded, scheme_of[name])).codes, rounded.codes)


def test_what_cannot_be_bettered_comes_back_as_it_was() -> None:
    start = Start(FIRST, SCHEMES[0], round_to_nearest(FIRST, SCHEMES[0]))

    def flat(weights: Mapping[str, Tensor], step: int) -> Tensor:
        return weights["first"].sum() * 0

    assert finish(tuned({"first": start}, flat, 4))["first"] is start.rounded


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_tuned_model_says_more_nearly_what_the_original_does(
    architecture: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = of_folder(tiny_model(architecture))
    tokens = torch.arange(256).reshape(8, 32) * 7 % 200
    original = finish(BlockModel(checkpoint, torch.float32).run(tokens))
    errors = {}
    for method in (Method.NEAREST, Method.TUNED):
        plan = make_plan(checkpoint.layers, Choice(Mode.INT4_ASYM, 32, method=method))
        file = tmp_path / f"{method}.safetensors"
        finish(compress(checkpoint, plan, file, tokens if method.needs_inputs else None))
        dense = stored(plan, file)
        model = BlockModel(checkpoint, torch.float32, partial(replaced, dense))
        errors[method] = float((finish(model.run(tokens)) - original).square().sum())
    assert errors[Method.TUNED] < 0.5 * errors[Method.NEAREST]


def stored(plan: Plan, file: Path) -> dict[str, Tensor]:
    """Return what the packed weights of a file stand for."""
    found = {}
    with safe_open(file, framework="pt") as arrays:
        for a in plan.assignments:
            if a.scheme is not None:
                names = [part.name for part in a.scheme.parts(a.layer.matrix)]
                parts = {name: arrays.get_tensor(f"{a.layer.name}.{name}") for name in names}
                found[a.layer.name] = PackedTensor.of(a.scheme, a.layer.matrix, parts).dequantize()
    return found


def replaced(dense: Mapping[str, Tensor], layer: Layer, tensor: Tensor) -> Tensor:
    return dense.get(layer.name, tensor)
