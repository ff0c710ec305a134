"""Output errors are what their formula says, for every scheme, and are kept as long as they are whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.base.errors import CheckpointError
from studio.base.settings import settings
from studio.calibration.activations import Inputs, calibrate
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Layer, ratio_defining
from studio.planning import layer_losses
from studio.planning.layer_measured import LayerMeasured, progress_of
from studio.planning.output_error import measure, output_errors, output_loss, recall
from studio.quantization.packing import pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from tests.steps import heard

SCHEMES = [
    Scheme(Mode.INT8_SYM),
    Scheme(Mode.INT8_ASYM),
    *(Scheme(mode, group) for mode in (Mode.INT4_SYM, Mode.INT4_ASYM, Mode.NF4) for group in (-1, 32, 64)),
]


@pytest.fixture
def llama(tiny_model: Callable[[str], Path]) -> Checkpoint:
    return of_folder(tiny_model("llama"))


@pytest.fixture
def inputs(llama: Checkpoint) -> dict[str, Inputs]:
    ids = torch.randint(3, 300, (1, 40), generator=torch.Generator().manual_seed(0))
    return heard(calibrate(llama, ids))[1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings(), "cache_dir", tmp_path / "cache")
    return tmp_path / "cache" / "survey"


@pytest.mark.parametrize("rows", [2, 6, 1 << 20], ids=["two", "six", "all"])
def test_it_is_what_the_formula_says_in_pieces_of_any_size(
    rows: int, llama: Checkpoint, inputs: dict[str, Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(layer: Layer) -> list[tuple[int, int]]:
        count = layer.matrix[0]
        return [(start, min(start + rows, count)) for start in range(0, count, rows)]

    monkeypatch.setattr(layer_losses, "chunks", pieces)
    _, errors = heard(output_errors(llama, inputs, SCHEMES))
    for layer in ratio_defining(llama.layers)[::5]:
        weight, given = llama.read(layer).double(), inputs[layer.name].rows.double()
        for scheme in SCHEMES:
            rounded = pack(round_to_nearest(weight, scheme), scheme).dequantize().double()
            expected = (given @ (weight - rounded).T).norm() / (given @ weight.T).norm()
            assert errors[layer.name][str(scheme)] == pytest.approx(float(expected), rel=1e-4)


def test_more_bits_and_smaller_groups_err_less(llama: Checkpoint, inputs: dict[str, Inputs]) -> None:
    _, errors = heard(output_errors(llama, inputs, SCHEMES))
    mean = {str(scheme): sum(each[str(scheme)] for each in errors.values()) / len(errors) for scheme in SCHEMES}
    assert mean["int8_asym"] < mean["int4_asym-g32"] < mean["int4_asym-gall"] < 1


def test_progress_counts_weights_and_ends_with_each_layers_errors(llama: Checkpoint, inputs: dict[str, Inputs]) -> None:
    steps, errors = heard(output_errors(llama, inputs, SCHEMES[:2]))
    assert {step.layer: step.result for step in steps if isinstance(step, LayerMeasured)} == errors
    assert (
        progress_of(steps[-1]).done
        == progress_of(steps[-1]).total
        == sum(layer.numel for layer in ratio_defining(llama.layers))
    )


def test_groups_that_do_not_divide_a_row_are_left_out(llama: Checkpoint, inputs: dict[str, Inputs]) -> None:
    wide = Scheme(Mode.INT4_SYM, 128)
    _, errors = heard(output_errors(llama, inputs, [SCHEMES[0], wide]))
    widths = {layer.name: layer.matrix[1] for layer in ratio_defining(llama.layers)}
    assert {name for name, found in errors.items() if str(wide) in found} == {n for n, k in widths.items() if k == 128}


def test_a_layer_that_was_given_nothing_has_no_errors(llama: Checkpoint, inputs: dict[str, Inputs]) -> None:
    first = next(iter(inputs))
    rest = {name: given for name, given in inputs.items() if name != first}
    _, errors = heard(output_errors(llama, rest, SCHEMES[:1]))
    assert [name for name, found in errors.items() if not found] == [first]


def test_any_candidate_can_be_judged(llama: Checkpoint, inputs: dict[str, Inputs]) -> None:
    layer = ratio_defining(llama.layers)[0]
    candidates = {"same": lambda weight: weight, "none": torch.zeros_like, "half": lambda weight: weight / 2}
    _, found = list(layer_losses.layer_figures(llama, layer, output_loss(inputs[layer.name].rows), candidates))[-1]
    assert found == pytest.approx({"same": 0.0, "none": 1.0, "half": 0.5})


def test_an_output_of_zeros_has_no_error(llama: Checkpoint) -> None:
    layer = ratio_defining(llama.layers)[0]
    loss = output_loss(torch.zeros(3, layer.matrix[1]))
    _, (_, found) = layer_losses.layer_figures(llama, layer, loss, {"none": torch.zeros_like})
    assert found == {"none": 0.0}


def test_weights_that_are_not_finite_are_named(llama: Checkpoint, inputs: dict[str, Inputs], tmp_path: Path) -> None:
    tensors = load_file(llama.path / WEIGHTS)
    layer = ratio_defining(llama.layers)[3]
    tensors[layer.name][0, 0] = torch.nan
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})  # with the same header
    with pytest.raises(CheckpointError) as caught:
        heard(output_errors(replace(llama, folder=tmp_path), inputs, SCHEMES[:1]))
    assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": layer.name})


def test_they_are_measured_once(llama: Checkpoint, cache: Path) -> None:
    steps, errors = heard(measure(llama, SCHEMES))
    assert any(isinstance(step, LayerMeasured) for step in steps)
    assert recall(llama, SCHEMES) == errors
    assert heard(measure(llama, SCHEMES)) == ([], errors)
    assert recall(llama, SCHEMES[:2]) is None
    assert recall(replace(llama, revision="other"), SCHEMES) is None
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: json.dumps(dict(list(json.loads(text).items())[1:])),
        lambda text: json.dumps({name: {"int8_sym": 0.5} for name in json.loads(text)}),
        lambda text: json.dumps(dict.fromkeys(json.loads(text), 0.5)),
        lambda text: text.replace(": 0.", ": -0."),
        lambda text: text.replace(": 0.", ": 1e999, \"x\": 0."),
    ],
    ids=["cut", "list", "deep", "layer_gone", "scheme_gone", "flat", "negative", "infinite"],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_ignored(damage: Callable[[str], str], llama: Checkpoint, cache: Path) -> None:
    _, errors = heard(measure(llama, SCHEMES[:2]))
    (file,) = cache.iterdir()
    file.write_text(damage(file.read_text()))
    assert recall(llama, SCHEMES[:2]) is None
    assert heard(measure(llama, SCHEMES[:2]))[1] == errors
    assert recall(llama, SCHEMES[:2]) == errors


def test_a_cache_that_cannot_be_written_costs_nothing(
    llama: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(settings(), "cache_dir", tmp_path / "file")
    _, errors = heard(measure(llama, SCHEMES[:1]))
    assert all(errors.values())
    assert recall(llama, SCHEMES[:1]) is None
