"""Whether a folder for another program gives the numbers of the one it was made from: byte for byte, and read here.

Of the forms that this studio also reads. Knows no engine.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.checkpoint import of_folder, read_json
from studio.checkpoint.config import check_can_chat, load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.packed.formats import FORMATS, format_of, quantization_of
from studio.export.compressed_model import CompressedModel, opened
from studio.export.compressed_tensors import target as compressed_tensors_target
from studio.export.mlx import target as mlx_target
from studio.export.model_folder import ModelFolder, Parts
from studio.export.read_back import TEXT, Verified, answer_of, kld, logits_of
from studio.runtime.model import load_compressed, load_original, load_tokenizer

Form = tuple[Callable[[CompressedModel], ModelFolder], Callable[[ModelFolder], Parts]]
FORMS: dict[str, Form] = {
    "mlx": (mlx_target.laid_out, mlx_target.parts_of),
    "compressed-tensors": (compressed_tensors_target.laid_out, lambda _: compressed_tensors_target.parts),
}
"""By the name of the format that its config tells."""


def verified(out: Path, folder: Path) -> Generator[Progress, None, Verified]:
    """Yield steps and return how a folder that was written and the one it was made from differ.

    Raises UserError where one cannot be read, or ``out`` is not what ``folder`` would be written as.
    """
    config = load_config(read_json(folder / CONFIG))
    check_can_chat(config)
    laid_out, parts_of = _form_of(out)
    model = opened(folder)
    layout = laid_out(model)
    tensors = yield from layout.compared(model, parts_of(layout), out)
    yield Progress("load")
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(TEXT)[: _context(config)]
    ours = logits_of(load_compressed(folder), ids)
    yield Progress("load")
    reader = load_original(of_folder(out))
    read = logits_of(reader, ids)
    answer = tokenizer.decode(answer_of(reader, ids))
    return Verified(tensors, len(ids), kld(ours, read.log_softmax(-1)), float((ours - read).abs().max()), answer, None)


def _form_of(out: Path) -> Form:
    """Return the form of a folder. Raises CheckpointError for one that is none of them."""
    found = format_of(quantization_of(read_json(out / CONFIG))) if (out / CONFIG).is_file() else None
    name = next((name for name in FORMS if FORMATS[name] is found), None)
    if name is None:
        raise CheckpointError("verify_what", folder=out.name)
    return FORMS[name]


def _context(config: Any) -> int:
    return int(getattr(config, "max_position_embeddings", 0) or len(TEXT))
