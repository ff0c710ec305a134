"""The weights of tokens are those of a direct backward pass, and rounding with them spares what matters."""

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from studio.base.settings import settings
from studio.base.tensor_cache import DIGEST_BYTES
from studio.calibration.token_weights import LEAST, SEED, kept_weights, rademacher_gradient, token_weights
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.layers import Layer, ratio_defining
from studio.compression.sequential import LayerRounded, round_sequentially
from studio.quantization.methods import Method
from studio.quantization.packing import pack
from studio.quantization.rounding import Statistics
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.block_model import BlockModel
from studio.runtime.model import load_original
from tests.steps import finish
from tests.unit.runtime.test_block_model import FAMILIES, present, save_family, some_tokens

TOKENS = torch.arange(96).reshape(2, 48) % 200


def directly(folder: Path, layers: list[Layer]) -> dict[str, Tensor]:
    """Return the squared gradients [T] at each layer's outputs, from the whole model at once."""
    model = load_original(of_folder(folder))
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)  # type: ignore[operator]
    found: dict[str, Tensor] = {}

    def hook(name: str, output: Tensor) -> None:
        output.register_hook(lambda g: found.__setitem__(name, g.float().square().sum(-1).flatten()))

    for layer in layers:
        module = model.get_submodule(layer.name.rpartition(".")[0])
        module.register_forward_hook(lambda _, __, output, name=layer.name: hook(name, output))
    logits = model(input_ids=TOKENS, use_cache=False).logits
    flat = logits.reshape(1, -1, logits.shape[-1])
    flat.backward(rademacher_gradient(flat.detach(), torch.Generator().manual_seed(SEED)))
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi3"])
def test_weights_are_those_of_a_direct_pass(architecture: str, tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model(architecture)
    layers = ratio_defining(of_folder(folder).layers)
    found = finish(token_weights(of_folder(folder), layers, TOKENS))
    direct = directly(folder, layers)
    assert found.keys() == {layer.name for layer in layers}
    owners: dict[int, list[str]] = {}
    for name, weights in found.items():
        owners.setdefault(id(weights), []).append(name)
    for names in owners.values():
        both = sum(direct[name] for name in names)
        assert isinstance(both, Tensor)
        expected = both / both.mean() + LEAST
        assert torch.allclose(found[names[0]], expected, rtol=0.1, atol=0.02)  # bf16 on both sides
        assert float(torch.corrcoef(torch.stack((found[names[0]], expected)))[0, 1]) > 0.999
    if architecture == "llama":
        assert sorted(map(len, owners.values())) == [1, 1, 1, 1, 2, 2, 3, 3]


def test_signs_have_the_mean_square_of_drawn_words() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0]).expand(1, 20_000, 3)
    gradient = rademacher_gradient(logits, torch.Generator().manual_seed(0))
    assert torch.allclose(gradient.sum(-1), torch.zeros(1, 20_000), atol=1e-5)
    assert float(gradient.mean(1).abs().max()) < 0.02
    chances = logits[0, 0].softmax(-1)
    expected = torch.diag(chances) - torch.outer(chances, chances)
    assert torch.allclose(gradient[0].T @ gradient[0] / 20_000, expected, atol=0.01)


def test_signs_tell_of_a_sure_model_what_a_drawn_word_seldom_does() -> None:
    """The square of a drawn word's gradient spreads a hundred times as much."""
    logits = torch.tensor([5.0, 0.0, 0.0]).expand(1, 20_000, 3)
    square = rademacher_gradient(logits, torch.Generator().manual_seed(0)).square().sum(-1)
    chances = logits[0, 0].softmax(-1)
    drawn = torch.tensor([float((torch.eye(3)[word] - chances).square().sum()) for word in range(3)])
    mean = float((chances * drawn).sum())
    assert float(square.mean()) == pytest.approx(mean, rel=0.05)
    assert float(square.var()) < 0.05 * float((chances * drawn.square()).sum() - mean**2)


def test_rounding_by_weights_moves_the_tokens_that_count_less() -> None:
    generator = torch.Generator().manual_seed(0)
    scheme = Scheme(Mode.INT4_ASYM, 32)
    weight = torch.randn(24, 96, generator=generator) * 0.05
    quiet, loud = (torch.randn(200, 8, generator=generator) @ torch.randn(8, 96, generator=generator) for _ in range(2))
    given = torch.cat((quiet, loud))
    counts = torch.cat((torch.full((200,), 1.9), torch.full((200,), 0.1)))
    calibrated = Method.FISHER_GPTQ.calibrated
    assert calibrated is not None

    def error(weights: Tensor) -> float:
        second = (given * weights.unsqueeze(1)).T @ given / len(given)
        moved = pack(calibrated(weight, scheme, Statistics(second, len(given))), scheme).dequantize() - weight
        return float((quiet @ moved.T).square().sum())

    assert error(counts) < 0.8 * error(torch.ones(400))


@pytest.fixture(scope="module")
def family_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Checkpoint, set[str]]]:
    """Each family's tiny model, and the weights that GPTQ alone rounds of it."""

    @cache
    def make(family: str) -> tuple[Checkpoint, set[str]]:
        checkpoint = save_family(family, tmp_path_factory.mktemp(family))
        return checkpoint, rounded(checkpoint, Method.GPTQ)

    return make


def rounded(checkpoint: Checkpoint, method: Method) -> set[str]:
    """Return the names of the weights that a method rounds."""
    schemes = {x.name: Scheme(Mode.INT4_SYM, 8) for x in ratio_defining(checkpoint.layers) if x.matrix[1] % 8 == 0}
    return {
        e.layer.name
        for e in round_sequentially(checkpoint, schemes, method, some_tokens(4))
        if isinstance(e, LayerRounded)
    }


@pytest.mark.share(4)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", [Method.FISHER_GPTQ, Method.TUNED, Method.AWQ], ids=str)
def test_every_family_can_be_rounded_so(
    family: str, method: Method, family_of: Callable[[str], tuple[Checkpoint, set[str]]]
) -> None:
    checkpoint, plain = family_of(family)
    assert rounded(checkpoint, method) == plain
    assert plain


def test_every_step_of_the_way_back_can_be_the_last(tmp_path: Path) -> None:
    streamed = BlockModel(save_family("llama", tmp_path))
    generator = torch.Generator()
    steps = list(streamed.run_backward(some_tokens(), lambda logits: rademacher_gradient(logits, generator)))
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert present(streamed) == set()
    threads = threading.active_count()
    for count in range(len(steps)):
        run = streamed.run_backward(some_tokens(), lambda logits: rademacher_gradient(logits, generator))
        for _ in range(count):
            next(run)
        run.close()
        assert threading.active_count() == threads
        assert present(streamed) == set()


def test_weights_are_kept_for_the_next_method(
    tiny_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "cache_dir", tmp_path)
    checkpoint = of_folder(tiny_model("llama"))
    layers = ratio_defining(checkpoint.layers)
    first = finish(kept_weights(checkpoint, layers, TOKENS))
    assert list(kept_weights(checkpoint, layers, TOKENS)) == []  # the model did not run
    again = finish(kept_weights(checkpoint, layers, TOKENS))
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert len({id(weights) for weights in again.values()}) == len({id(weights) for weights in first.values()})
    assert list(kept_weights(checkpoint, layers[1:], TOKENS)) != []  # of other layers
    [file] = [file for file in tmp_path.rglob("*.kept") if layers_of(file) == len(layers)]
    file.write_bytes(file.read_bytes()[:-1])
    assert list(kept_weights(checkpoint, layers, TOKENS)) != []


def layers_of(file: Path) -> int:
    """Return how many layers a kept file is of."""
    return len(load(file.read_bytes()[DIGEST_BYTES:])["of"])
