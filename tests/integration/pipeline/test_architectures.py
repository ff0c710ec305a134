"""Five architectures through a whole session: every kind of layer is packed, and computes what it stands for."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.headers import read_header
from studio.checkpoint.recipe import PackedWeight, read_recipe
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.rounding import NF4_LEVELS
from studio.quantization.scheme import Scheme
from studio.runtime.model import load_compressed, load_original, weight_bytes
from studio.session.session import Session
from tests.conftest import ARCHITECTURES, save_tiny_model
from tests.steps import finish
from tests.visits import CHOICES, PACKED, logits, tensor_bytes


@dataclass(frozen=True)
class Made:
    """A tiny model, and what compressing it left."""

    source: Checkpoint
    choice: Choice
    session: Session
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Made]]:
    """Each architecture compressed by each choice, once.

    Their weights are larger than the usual 0.02, so that the blocks and not the embedding make the logits.
    """
    sessions = []

    @cache
    def source(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp("source") / architecture
        save_tiny_model(architecture, folder, initializer_range=0.1)
        return folder

    @cache
    def make(architecture: str, choice: str) -> Made:
        session = Session(paths=True, workspace=tmp_path_factory.mktemp("workspace"))
        sessions.append(session)
        checkpoint = finish(session.open(str(source(architecture))))
        session.planner.choose(Choice.of(*CHOICES[choice]))
        finish(session.compress())
        assert session.copy.folder is not None
        return Made(checkpoint, session.choice, session, session.copy.folder)

    yield make
    for session in sessions:
        session.close()


in_every_case = pytest.mark.parametrize("choice", CHOICES)


of_every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


BF16_BOUND = 0.02
"""Relative error of the logits. bf16 rounds by at most 2^-9. From a token to its logits a block of these models rounds
about 15 times (norms, products, rotation, softmax, sums), and the rest 4 times; two blocks make 34 roundings, which add
up to sqrt(34) * 2^-9 = 1.1 % when they are independent, and the scales, rounded to bf16 too, to less than as much
again. Measured: 0.7 to 1.4 %; the model before it was rounded to 4 bits is 12 to 32 % away."""


def dequantized(file: Any, weight: PackedWeight) -> Tensor:
    """Return what the stored numbers of a weight stand for, fp64 [N, K]: the format's words, not the studio's code."""
    scheme = Scheme.parse(weight.scheme)
    width = weight.shape[1]
    codes = file.get_tensor(f"{weight.name}.codes")
    scale = file.get_tensor(f"{weight.name}.scale").double()
    if scheme.mode.bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1)[:, :width]
    if scheme.mode == "nf4":
        values = torch.tensor(NF4_LEVELS, dtype=torch.float64)[codes.int()]
    elif scheme.mode.has_zero_point:
        zero_point = file.get_tensor(f"{weight.name}.zero_point")
        if scheme.mode.bits == 4:
            zero_point = torch.stack((zero_point & 15, zero_point >> 4), dim=-1).flatten()[: scale.numel()]
        zero_point = zero_point.reshape(scale.shape).repeat_interleave(width // scale.shape[1], dim=1)
        values = codes.double() - zero_point.double()
    else:
        values = codes.double() - (8 if scheme.mode.bits == 4 else 0)
    dequantized: Tensor = values * scale.repeat_interleave(width // scale.shape[1], dim=1)
    return dequantized


def transformers_model(source: Path) -> nn.Module:
    """Return transformers' own model of a folder, in fp64."""
    from transformers import AutoModelForCausalLM

    reference: nn.Module = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float64, local_files_only=True)
    return reference.eval()


def reference_of(made: Made) -> nn.Module:
    """Return transformers' own model with every weight replaced by what the exported file holds in its place."""
    reference = transformers_model(made.source.path)
    parameters = dict(reference.named_parameters())
    packed = read_recipe(made.folder).weights
    with safe_open(made.folder / PACKED, framework="pt") as file:
        for weight in packed:
            value = dequantized(file, weight)
            parameters[weight.name].data.copy_(value.T if weight.transposed else value)
        stored = {f"{weight.name}.{part}" for weight in packed for part in ("codes", "scale", "zero_point")}
        for name in set(file.keys()) - stored:
            parameters[name].data.copy_(file.get_tensor(name))
    return reference


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@of_every_architecture
@in_every_case
def test_the_file_holds_exactly_the_bytes_of_the_plan(
    made: Callable[[str, str], Made], architecture: str, choice: str
) -> None:
    one = made(architecture, choice)
    planned = make_plan(one.source.layers, one.choice, one.session.model.scores)
    assert planned.is_exact
    assert tensor_bytes(one.folder / PACKED) == planned.compressed_bytes
    assert sum(planned.breakdown.values()) == planned.compressed_bytes
    assert read_recipe(one.folder).compressed_bytes == planned.compressed_bytes
    parameters = transformers_model(one.source.path).parameters()
    assert planned.original_bytes == 2 * sum(parameter.numel() for parameter in parameters)


@of_every_architecture
@in_every_case
def test_the_packed_model_is_transformers_model_with_the_dequantized_weights(
    made: Callable[[str, str], Made], architecture: str, choice: str
) -> None:
    one = made(architecture, choice)
    found, expected = logits(load_compressed(one.folder)), logits(reference_of(one))
    assert distance(found, expected) < BF16_BOUND
    for token in range(len(found)):
        assert distance(found[token], expected[token]) < 2 * BF16_BOUND
    if one.choice.mode.bits == 4:  # the bound tells the rounded model from the one it was made of
        assert distance(found, logits(transformers_model(one.source.path))) > 5 * BF16_BOUND


@of_every_architecture
def test_the_original_is_transformers_model(made: Callable[[str, str], Made], architecture: str) -> None:
    one = made(architecture, "int8_asym")
    assert distance(logits(load_original(one.source)), logits(transformers_model(one.source.path))) < BF16_BOUND


@of_every_architecture
@in_every_case
def test_loading_twice_gives_the_same_bits(made: Callable[[str, str], Made], architecture: str, choice: str) -> None:
    folder = made(architecture, choice).folder
    assert torch.equal(logits(load_compressed(folder)), logits(load_compressed(folder)))


@of_every_architecture
@in_every_case
def test_the_weights_are_in_memory_in_packed_form_only(
    made: Callable[[str, str], Made], architecture: str, choice: str
) -> None:
    """Of a row torch's layouts keep at most 10 bytes and 4 for every group of 32; the file has less of them.

    A dequantized weight, before an answer or after it, would be a tensor of floats as large as one.
    """
    one = made(architecture, choice)
    model = load_compressed(one.folder)
    shapes = [weight.shape for weight in read_recipe(one.folder).weights]
    before = weight_bytes(model)
    logits(model)
    assert weight_bytes(model) == before
    layouts = sum(rows * (10 + 4 * width // 32) for rows, width in shapes)
    assert before <= tensor_bytes(one.folder / PACKED) + layouts + 1000  # and the buffers of the rotation
    parameters = dict(model.named_parameters())
    kept = {parameters[name].data_ptr() for name in parameters.keys() & read_header(one.folder / PACKED).keys()}
    smallest = min(math.prod(shape) for shape in shapes)
    for name, value in tensors(model):
        if value.is_floating_point() and value.numel() >= smallest:
            assert value.data_ptr() in kept, name


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield everything a module holds, registered or not."""
    for path, module in model.named_modules():
        for name, value in (vars(module) | module._parameters | module._buffers).items():
            if isinstance(value, Tensor):
                yield f"{path}.{name}", value
