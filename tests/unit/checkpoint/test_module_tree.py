"""Building a model's tree: what other threads see of it, and what its buffers hold."""

import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils._device
import transformers
from torch import nn

import studio
from studio.checkpoint.config import load_config
from studio.checkpoint.module_tree import module_tree
from tests.unit.checkpoint.test_architecture import CONFIGS

SOURCES = sorted(Path(studio.__file__).parent.rglob("*.py"))
SWAPPING = re.compile(
    r"\b(init_empty_weights|init_on_device|set_default_dtype|set_default_device|from_config|no_init_weights)\("
    r"|AutoModel\w*\.from_pretrained|torch\.device\(.meta.\):"
)


def test_another_thread_sees_nothing_of_a_tree_being_built() -> None:
    """Right values of a race that overran the heap: 32-bit buffers alone, and torch's own functions."""
    untouched = _shared_state()
    seen: Counter[Any] = Counter()
    is_over = threading.Event()

    def build() -> None:
        for _ in range(3):
            module_tree(load_config(CONFIGS["llama"].to_dict() | {"dtype": "float16"}), "sdpa", torch.bfloat16)

    def look() -> None:
        while not is_over.is_set():
            seen[torch.empty(8).dtype, _shared_state() == untouched] += 1  # dtype left out on purpose

    looking = threading.Thread(target=look)
    looking.start()
    builders = [threading.Thread(target=build) for _ in range(4)]
    for thread in builders:
        thread.start()
    for thread in builders:
        thread.join()
    is_over.set()
    looking.join()
    assert set(seen) == {(torch.float32, True)}
    assert _shared_state() == untouched


def _shared_state() -> tuple[Any, ...]:
    """Return what transformers' and accelerate's own ways of building swap for the whole process."""
    functions = [nn.init.normal_, nn.init.copy_ if hasattr(nn.init, "copy_") else None, nn.init.zeros_, torch.linspace]
    methods = [nn.Module.register_parameter, nn.Module.register_buffer, transformers.PreTrainedModel.init_weights]
    return (torch.get_default_dtype(), torch.utils._device.CURRENT_DEVICE, *map(id, (*functions, *methods)))


def test_there_is_one_place_that_builds_trees() -> None:
    """Others would swap the process's state again."""
    rooms = Path(studio.__file__).parent
    builders = {str(file.relative_to(rooms)) for file in SOURCES if SWAPPING.search(file.read_text())}
    # The second in a process of its own; the third shows a command, and calls nothing.
    assert builders == {
        "checkpoint/module_tree.py", "checkpoint/gguf/tensors.py", "export/compressed_tensors/target.py"
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_buffers_are_those_of_transformers(name: str, dtype: torch.dtype) -> None:
    config = load_config(CONFIGS[name].to_dict())
    built = dict(module_tree(config, "eager", dtype).named_buffers())
    own = _transformers_model(load_config(CONFIGS[name].to_dict()), dtype)
    expected = dict(own.named_buffers())
    assert built.keys() == expected.keys()
    for key, buffer in expected.items():
        assert built[key].dtype == buffer.dtype, key
        torch.testing.assert_close(built[key], buffer, rtol=0, atol=0, equal_nan=True)


def _transformers_model(config: Any, dtype: torch.dtype) -> nn.Module:
    from studio.checkpoint.config import Task, task

    of_task = {
        Task.DECODER: transformers.AutoModelForCausalLM,
        Task.ENCODER: transformers.AutoModelForMaskedLM,
        Task.ENCODER_DECODER: transformers.AutoModelForSeq2SeqLM,
        Task.BARE: transformers.AutoModel,
    }
    model: nn.Module = of_task[task(config)].from_config(config, dtype=dtype, attn_implementation="eager")
    return model


def test_parameters_take_no_memory() -> None:
    model = module_tree(load_config(CONFIGS["llama"].to_dict()), "sdpa", torch.bfloat16)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())


def test_buffers_may_stay_without_memory() -> None:
    model = module_tree(load_config(CONFIGS["llama"].to_dict()), "eager", torch.bfloat16, has_buffers=False)
    assert all(buffer.is_meta for buffer in model.buffers())
