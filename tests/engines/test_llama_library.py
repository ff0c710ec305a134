"""The peer of ``make bench-export`` is honest: llama.cpp's own quantizer, with the importance that it was given."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
import torch
import transformers as tf
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint, of_folder
from tests.bench.export_models import names_in_file, write_f32
from tests.bench.llama_library import quantize_file, quantize_rows
from tests.conftest import tiny_tokenizer
from tests.engines.installed import installed

TOKENIZER = tiny_tokenizer()
SHAPE = {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 256,
}  # fmt: skip
KINDS = ("q4_0", "q4_k", "q6_k", "iq4_xs")


@pytest.fixture(scope="module", autouse=True)
def library() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("STUDIO_NODE_LLAMA", str(installed()))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = tf.LlamaConfig(**SHAPE, vocab_size=len(TOKENIZER))
    tf.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    checkpoint = of_folder(folder)
    write_f32(checkpoint, folder / "f32.gguf")
    return checkpoint, folder / "f32.gguf"


def tensors(file: Path) -> dict[str, Tensor]:
    return {each.name: torch.from_numpy(each.data.copy()) for each in gguf.GGUFReader(file).tensors}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "imatrix"])
def test_a_file_holds_what_the_quantizers_core_makes_of_each_tensor(
    source: tuple[Checkpoint, Path], kind: str, weighted: bool, tmp_path: Path
) -> None:
    checkpoint, f32 = source
    generator = torch.Generator().manual_seed(1)
    names = [names_in_file(checkpoint)[layer.name] for layer in checkpoint.layers if layer.block is not None]
    numbers = {name: tensor for name, tensor in tensors(f32).items() if name in names and tensor.ndim == 2}
    powers = {name: torch.rand(tensor.shape[1], generator=generator).square() for name, tensor in numbers.items()}
    quantize_file(f32, tmp_path / "out.gguf", kind, powers if weighted else None, pure=True, embedding="q8_0")
    found = tensors(tmp_path / "out.gguf")
    assert len(numbers) == 14
    for name, tensor in numbers.items():
        assert found[name].equal(quantize_rows(tensor, kind, powers[name] if weighted else None)), name
        if weighted:
            assert not found[name].equal(quantize_rows(tensor, kind, None)), name
