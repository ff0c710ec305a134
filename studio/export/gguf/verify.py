"""Whether a GGUF file gives the numbers of the folder it was made from: byte for byte, here, and in llama.cpp.

Divergences are of the distribution of the next token, folder || file, in nats, over one built-in text. Knows nothing of
how the file was written.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.checkpoint import read_json
from studio.checkpoint.config import check_can_chat, load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.gguf.source import prepare
from studio.export.compressed_model import opened
from studio.export.gguf import llama_cpp
from studio.export.gguf.families import family_of
from studio.export.gguf.llama_cpp import PATIENCE, LlamaCpp, Question
from studio.export.gguf.same import compared
from studio.export.read_back import ANSWER, SAMPLE, TEXT, InLlamaCpp, Verified, answer_of, difference, kld, logits_of
from studio.runtime.model import load_compressed, load_original, load_tokenizer

ROUNDED = 0.007
"""By how much of its spread llama.cpp's product of a packed weight is off, whose inputs it rounds to 8 bits.

In a block whose largest is m that is m / 127 / sqrt(12), and m is 3.1 standard deviations in a block of 256.
"""
MARGIN = 10
"""How many times the derived divergence is taken for rounding: depth and outliers add to it, an error much more."""


def verified(file: Path, folder: Path) -> Generator[Progress, None, Verified]:
    """Yield steps and return how a file and its folder differ.

    Raises UserError where one cannot be read, or the file is not what the folder would be written as.
    """
    config = load_config(read_json(folder / CONFIG))
    check_can_chat(config)
    if not file.is_file():
        raise CheckpointError("missing_file", file=file.name)
    tensors = yield from compared(file, opened(folder))
    yield Progress("load")
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(TEXT)[: family_of(config).context(config)]
    checkpoint = yield from prepare(file)
    yield Progress("load")
    ours = logits_of(load_compressed(folder), ids)
    reader = load_original(checkpoint)
    read = logits_of(reader, ids)
    engine = llama_cpp.found()
    other, answer = None, list[int]()
    if engine is None:
        answer = answer_of(reader, ids)
    else:
        yield Progress("load")
        other, answer = _in_llama_cpp(engine, file, ids, ours, config.num_hidden_layers, tokenizer)
    apart = float((ours - read).abs().max())
    return Verified(tensors, len(ids), kld(ours, read.log_softmax(-1)), apart, tokenizer.decode(answer), other)


def _in_llama_cpp(
    engine: LlamaCpp, file: Path, ids: Sequence[int], ours: Tensor, layers: int, tokenizer: Any
) -> tuple[InLlamaCpp, list[int]]:
    """Return what llama.cpp makes of a file, and its answer. Raises CheckpointError where that is another model's."""
    [reply] = engine.ask(Question(file, ids, [SAMPLE], answer=ANSWER), patience=PATIENCE)
    given = reply.probabilities.log()
    measured = kld(ours, given)
    limit = bound(ours, layers)
    if not measured.mean <= limit:  # false for NaN too
        raise CheckpointError("verify_engine", file=file.name, found=f"{measured.mean:.2g}", limit=f"{limit:.2g}")
    return InLlamaCpp(measured, difference(ours, given), reply.tokens[0] == tokenizer.encode(SAMPLE)), reply.answer


def bound(ours: Tensor, layers: int) -> float:
    """Return the mean divergence in nats that llama.cpp's rounding explains, for logits [tokens, vocabulary].

    Four products a block and the head's are off by :data:`ROUNDED` of the logits' spread each, whose squares add up;
    logits that are off by e diverge by e^2 / 2. That, :data:`MARGIN` times.
    """
    spread = float((ours - ours.mean(-1, keepdim=True)).std())
    return MARGIN * ROUNDED**2 * (4 * layers + 1) * spread**2 / 2
