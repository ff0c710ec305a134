"""Every mode of the vocabulary goes the whole way: compressed, loaded, packed into an archive and answering."""

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from studio.chat.answers import Answers
from studio.checkpoint.recipe import read_recipe
from studio.planning.choice import Choice
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.kernels import PackedStack
from studio.runtime.model import load_compressed, load_original, slow_schemes
from studio.runtime.native.tiling import takes
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from tests import family_models as families
from tests.conftest import save_tiny_model, tiny_tokenizer
from tests.steps import finish

SHORT = Sampling(max_new_tokens=4)
in_every_mode = pytest.mark.parametrize("mode", Mode, ids=str)


def tiny_moe(folder: Path) -> None:
    """Save a mixture of four experts, with a tokenizer."""
    import transformers

    torch.manual_seed(0)
    config = families.CONFIGS["mixtral"]()
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "llama": lambda folder: save_tiny_model(
        "llama", folder, hidden_size=256, intermediate_size=512, initializer_range=0.05
    ),
    "gpt2": lambda folder: save_tiny_model("gpt2", folder, n_embd=256, initializer_range=0.05),
    "mixtral": tiny_moe,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        make(folder / name)
    return {name: folder / name for name in MODELS}


@pytest.fixture
def session(tmp_path: Path, own_cache: Path) -> Iterator[Session]:
    visitor = Session(paths=True, workspace=tmp_path / "workspace")
    yield visitor
    visitor.close()


def compressed(session: Session, model: Path, mode: Mode) -> Path:
    finish(session.open(str(model)))
    session.planner.choose(Choice.of(mode.value, 32, 1.0))
    finish(session.compress())
    assert session.copy.folder is not None
    return session.copy.folder


@torch.inference_mode()
def logits(model: torch.nn.Module) -> Tensor:
    ids = torch.arange(3, 35).reshape(1, -1)
    found: Tensor = model(ids).logits
    return found[0].float()


@in_every_mode
def test_every_mode_answers_and_is_the_same_after_its_archive(
    session: Session, models: dict[str, Path], tmp_path: Path, mode: Mode
) -> None:
    folder = compressed(session, models["llama"], mode)
    before = logits(load_compressed(folder))
    file = finish(session.copy.archive(tmp_path / "download"))
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "elsewhere")
    after = logits(load_compressed(tmp_path / "elsewhere" / folder.name))
    assert torch.equal(before, after)
    *_, answers = session.chat("Count from one to ten.", SHORT)
    assert isinstance(answers, Answers)
    assert [reply.error for reply in answers.replies] == [None, None]
    assert all(reply.tokens for reply in answers.replies)
    assert answers.is_slow == (False, not takes(Scheme.of(mode, 32)))


@in_every_mode
@pytest.mark.parametrize("name", MODELS)
def test_every_mode_computes_what_its_numbers_stand_for(
    session: Session, models: dict[str, Path], name: str, mode: Mode
) -> None:
    """Weights along the rows (GPT-2) and stacks of experts (Mixtral) too."""
    folder = compressed(session, models[name], mode)
    assert session.checkpoint is not None
    assert session.plan is not None
    model = load_original(session.checkpoint)
    original = logits(model)
    recipe = read_recipe(folder)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with safe_open(folder / "weights.studio", framework="pt") as file:
        for weight in recipe.weights:
            arrays = {part.name: file.get_tensor(f"{weight.name}.{part.name}") for part in weight.parts}
            value = PackedTensor.of(Scheme.parse(weight.scheme), weight.shape, arrays).dequantize()
            parameter = parameters[weight.name]
            rows = value.reshape(*parameter.shape[:-2], -1, value.shape[-1])
            parameter.data.copy_(rows.mT if weight.transposed else rows)
    found = logits(load_compressed(folder))
    assert families.distance(found, logits(model)) < families.BOUND
    schemes = {weight.scheme for weight in recipe.weights}
    taken = Scheme.of(mode, 32)
    if name == "mixtral" and not taken.fits(32):  # its rows are shorter than such a block
        taken = Scheme.of(Mode(mode.stored_as.misfit), 32)
    assert str(taken) in schemes
    assert families.distance(found, original) > (0.1 if taken.mode.bits < 4 else 0)
    assert recipe.compressed_bytes == session.plan.compressed_bytes


def test_experts_are_held_packed_and_called_slow(session: Session, models: dict[str, Path]) -> None:
    model = load_compressed(compressed(session, models["mixtral"], Mode.INT2_SYM))
    assert any(isinstance(module, PackedStack) for module in model.modules())
    assert slow_schemes(model)
    assert not slow_schemes(load_original(session.checkpoint))  # type: ignore[arg-type]
