"""What the tests of a whole session share: choices by name, a job run to an event, answers, files and their bytes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from studio.base.progress import Progress
from studio.chat.answers import Answers
from studio.checkpoint.headers import read_header
from studio.planning.choice import Choice
from studio.runtime.sampling import Sampling
from studio.session.session import Session

TinyModel = Callable[[str], Path]


WEIGHTS, PACKED = "model.safetensors", "weights.studio"


QUESTION = "What is the capital of France?"


SHORT = Sampling(max_new_tokens=8)


CHOICES = {
    "int8_asym": ("int8_asym", -1, 1, "int8_asym"),
    "int8_sym": ("int8_sym", -1, 1, "int8_asym"),
    "int4_asym-g32": ("int4_asym", 32, 1, "int8_asym"),
    "int4_sym-gall": ("int4_sym", -1, 1, "int8_asym"),
    "nf4-g64": ("nf4", 64, 1, "int8_sym"),
    "int4_asym-g64-0.5-none": ("int4_asym", 64, 0.5, "none"),
}


INT8 = Choice.of(*CHOICES["int8_asym"])


INT4 = Choice.of(*CHOICES["int4_asym-g32"])


def until(steps: Iterator[Progress], stage: str) -> Progress:
    """Run a job up to the first event of ``stage``."""
    return next(event for event in steps if event.stage == stage)


def ask(session: Session, prompt: str = QUESTION, sampling: Sampling = SHORT) -> Answers:
    """Return the whole answers to a prompt."""
    *_, last = session.chat(prompt, sampling)
    assert isinstance(last, Answers)
    return last


def files(folder: Path) -> set[Path]:
    """Return every file below a folder, hidden ones too."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def tensor_bytes(file: Path) -> int:
    return sum(entry.nbytes for entry in read_header(file).values())


@torch.inference_mode()
def logits(model: nn.Module, length: int = 48) -> Tensor:
    """Return a model's logits after every one of ``length`` tokens, fp64 [T, V]."""
    ids = torch.randint(3, 256, (1, length), generator=torch.Generator().manual_seed(1))
    found: Tensor = model(ids).logits
    return found[0].double()


def errors(answers: Answers) -> list[str | None]:
    """Return why each column did not answer."""
    return [None if reply.error is None else reply.error.key for reply in answers.replies]


def until_answers(steps: Iterator[Progress | Answers]) -> Answers:
    return next(item for item in steps if isinstance(item, Answers) and all(reply.tokens for reply in item.replies))
