"""A format that is registered, and nothing else, goes the whole way: survey, plan, compress, chat, export.

No layout knows these, so whatever took one by its width or its name would compute something else here.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from studio.base.errors import SchemeError
from studio.chat.answers import Answers
from studio.checkpoint.recipe import read_recipe
from studio.cli.commands import app
from studio.planning.choice import Choice
from studio.planning.survey import candidates
from studio.quantization.methods import Method, Rounding, parse_method
from studio.quantization.mode import Mode
from studio.quantization.packing import PackedTensor, pack, unpack
from studio.quantization.rounding import QuantizedWeight, Statistics, round_to_nearest
from studio.quantization.scheme import Scheme
from studio.runtime.decoder import open_compressed
from studio.runtime.decoder.interface import Backend
from studio.runtime.model import load_compressed, load_original
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from studio.ui.method_choices import method_choices
from tests import family_models as families
from tests import made_up
from tests.conftest import save_tiny_model
from tests.integration.test_every_mode import logits
from tests.steps import finish

in_each = pytest.mark.parametrize("name", made_up.FORMATS)
by_each_method = pytest.mark.parametrize("method", list(Method), ids=str)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with made_up.registered():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "llama"
    save_tiny_model("llama", folder, initializer_range=0.1)
    return folder


@pytest.fixture
def session(tmp_path: Path, own_cache: Path, here: None, model: Path) -> Iterator[Session]:
    visitor = Session(paths=True, workspace=tmp_path / "workspace")
    finish(visitor.open(str(model)))
    yield visitor
    visitor.close()


def packed_in(folder: Path) -> dict[str, PackedTensor]:
    """Return what an exported folder holds, by name."""
    with safe_open(folder / "weights.studio", framework="pt") as file:
        return {
            weight.name: PackedTensor.of(
                Scheme.parse(weight.scheme),
                weight.shape,
                {part.name: file.get_tensor(f"{weight.name}.{part.name}") for part in weight.parts},
            )
            for weight in read_recipe(folder).weights
        }


@in_each
def test_it_answers_with_the_numbers_that_it_is_exported_with(session: Session, name: str) -> None:
    """Every weight is in it, the embedding too: what is looked up goes the general way as well."""
    session.planner.choose(Choice.of(name, 32, 1.0, "none", all_layers=True))
    finish(session.compress())
    assert session.copy.folder is not None
    assert session.checkpoint is not None
    assert session.plan is not None
    packed = packed_in(session.copy.folder)
    layers = {layer.name: layer for layer in session.checkpoint.layers}
    assert {str(each.scheme) for each in packed.values()} == {f"{name}-g32"}
    assert sum(each.nbytes for one in packed.values() for each in one.arrays().values()) == sum(
        a.scheme.nbytes(a.layer.matrix) for a in session.plan.assignments if a.scheme is not None
    )
    for key, found in packed.items():
        rounded = round_to_nearest(session.checkpoint.read(layers[key]), found.scheme)
        assert same(unpack(found), rounded.stored(found.scheme.mode.stored_as.scale_dtype))
        assert same(unpack(found), unpack(pack(rounded, found.scheme)))
    dense = load_original(session.checkpoint)
    for key, parameter in dense.named_parameters():
        if key in packed:
            parameter.data.copy_(packed[key].dequantize())
    assert families.distance(logits(load_compressed(session.copy.folder)), logits(dense)) < families.BOUND
    decoder = open_compressed(session.copy.folder)
    assert (decoder.backend, decoder.reason) == (Backend.GENERAL, "scheme")
    *_, answers = session.chat("Count from one to ten.", Sampling(max_new_tokens=4))
    assert isinstance(answers, Answers)
    assert [reply.error for reply in answers.replies] == [None, None]
    assert all(reply.tokens for reply in answers.replies)
    assert answers.is_slow == (False, True)


@in_each
def test_it_is_surveyed_and_planned_in_a_mixture(session: Session, name: str) -> None:
    session.planner.choose(Choice.of(name, 32, 0.5))
    assert session.checkpoint is not None
    layers = [layer for layer in session.checkpoint.layers if layer.is_weight]
    assert f"{name}-g32" in map(str, candidates(layers[0], Mode(name)))
    finish(session.measurements.survey())
    finish(session.compress())
    plan, done = session.plan, session.copy.compressed
    assert plan is not None
    assert done is not None
    assert plan.is_exact
    schemes = {str(a.scheme) for a in plan.assignments if a.scheme is not None}
    assert schemes == {f"{name}-g32", "int8_asym"}
    assert sum(plan.breakdown.values()) == plan.compressed_bytes
    errors = session.planner.errors
    assert errors is not None
    for key, error in done.relative_error.items():
        if key in errors:
            assert errors[key] == pytest.approx(error, rel=1e-3)


@by_each_method
@in_each
def test_every_method_rounds_to_it(name: str, method: Method) -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(0)) * 0.05
    scheme = Scheme(Mode(name), 32)
    given = torch.randn(400, 96, generator=torch.Generator().manual_seed(1))
    if method.calibrated is None:
        found = method.data_free(weight, scheme, None)
    else:
        found = method.calibrated(weight, scheme, Statistics(given.T @ given / 400, 400))
    back = unpack(pack(found, scheme))
    assert torch.equal(back.codes, found.codes)
    assert (back.zero_point is None) == (not scheme.mode.has_zero_point)
    moved = (pack(found, scheme).dequantize() - weight).norm() / weight.norm()
    assert moved < {3: 0.3, 4: 0.25, 6: 0.04, 7: 0.05}[scheme.mode.bits]


def test_a_made_up_method_is_offered_and_rounds(session: Session) -> None:
    seen = []

    def calibrated(weight: torch.Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
        seen.append(statistics.tokens)
        return round_to_nearest(weight, scheme)

    with made_up.method("made_up", Rounding(100, lambda: calibrated)) as method:
        assert method.needs_inputs
        assert ("method.made_up", "made_up") in method_choices()
        with pytest.raises(SchemeError, match="made_up"):
            parse_method("no_such")
        session.planner.choose(Choice.of("made3_zeros", 32, 1.0, method="made_up"))
        finish(session.compress())
    assert seen
    assert session.copy.folder is not None
    assert read_recipe(session.copy.folder).choices.method == "made_up"


@in_each
def test_the_terminal_takes_it(model: Path, own_cache: Path, here: None, name: str) -> None:
    answer = CliRunner().invoke(app, ["estimate", str(model), "--mode", name, "--json"])
    assert answer.exit_code == 0, answer.output
    assert f'"{name}"' in answer.output
    refused = CliRunner().invoke(app, ["estimate", str(model), "--mode", "no_such"])
    assert refused.exit_code != 0
    assert all(mode in refused.output for mode in Mode)


def same(a: QuantizedWeight, b: QuantizedWeight) -> bool:
    pairs = [(a.codes, b.codes), (a.scale.float(), b.scale.float()), (a.zero_point, b.zero_point)]
    return all(x is y if x is None or y is None else torch.equal(x, y) for x, y in pairs)
