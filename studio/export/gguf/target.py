"""The GGUF target: one file that llama.cpp loads, of the numbers that chat and were measured.

Nothing is rounded here: a weight's blocks are copied, rows of q and k moved where ggml wants them. Knows no mixes.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from studio.base.errors import ModelError, ResourceError, UserError, printable
from studio.base.prefetch import ahead
from studio.base.progress import Progress
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.layers import Kind
from studio.checkpoint.license import License
from studio.export.checksummed_file import ChecksummedFile
from studio.export.compressed_model import CompressedModel, Writing
from studio.export.gguf.becoming import no_type
from studio.export.gguf.families import Family, family_of, rope_tensors, write_numbers
from studio.export.gguf.file import Slot, header, new_writer, tensor_bytes, write_tensors
from studio.export.gguf.tensors import Named, named_tensors, permuted
from studio.export.gguf.types import block_bytes, kept_bytes, mode_of, slot, slot_or_raw
from studio.export.gguf.vocabulary import TOKENIZER_FILES, read_vocabulary
from studio.export.target import Target
from studio.planning.plan import Plan
from studio.planning.presets import Words
from studio.quantization.ggml.layouts import LAYOUTS
from studio.quantization.packing import PackedTensor

QUANTIZATION_VERSION = 2
"""Of ggml's layouts, since 2023."""
HUB_ID = re.compile(r"(?P<owner>[A-Za-z0-9][\w.-]{0,95})/(?P<name>[A-Za-z0-9][\w.-]{0,95})", re.ASCII)
MAX_NAME = 200
"""Characters of the model's name."""
PHI3_TOKENS = ("<unk>", "<s>", "</s>", "<|endoftext|>")
AHEAD = 3
"""Pieces that are read before they are written."""


def refusal(plan: Plan, checkpoint: Checkpoint, pre: str | None = None) -> UserError | None:
    """Return why a plan cannot be a GGUF file as it is; ``pre`` names a way of splitting words that somebody chose."""
    for a in plan.assignments:
        if a.scheme is not None and mode_of(a.scheme) is None:
            return no_type(plan, a)
        if a.scheme is not None and (a.layer.transposed or len(a.layer.shape) > 2):
            return ModelError("to_gguf_tensor", tensor=a.layer.name[:120], family=checkpoint.architecture[:60])
    if checkpoint.folder is None:
        return None
    try:
        config = load_config(read_json(checkpoint.folder / CONFIG))
        named_tensors([a.layer for a in plan.assignments], family_of(config), config)
    except UserError as error:
        return error
    stamps = (_stamp(checkpoint.folder / name) for name in (CONFIG, *TOKENIZER_FILES))
    return _vocabulary_fault(checkpoint.folder, pre, *stamps)


def _stamp(file: Path) -> tuple[int, int]:
    """Return what changes with a file: its size and time, zeros where there is none."""
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else (0, 0)


@lru_cache(maxsize=16)
def _vocabulary_fault(folder: Path, pre: str | None, *stamps: tuple[int, int]) -> UserError | None:
    """Return why a model's tokens cannot be in a GGUF file; found out once, for it is asked at every change of plan."""
    try:
        read_vocabulary(folder, load_config(read_json(folder / CONFIG)), pre)
    except UserError as error:
        return error
    return None


def size(plan: Plan) -> int:
    """Return the bytes of all tensors there: norms and biases are F32."""
    return tensor_bytes({a.layer.name: slot_or_raw(a) for a in plan.assignments})


@dataclass(frozen=True)
class Layout:
    """What a file of a model holds beside its words: the tensors in their order, each in the bytes of its type."""

    family: Family
    config: Any
    slots: dict[str, Slot]
    pieces: Callable[[], Iterator[tuple[str, Tensor]]]
    """Gives every tensor's bytes, uint8, in the order of the slots: pieces that follow one another, with its name."""


def laid_out(model: CompressedModel) -> Layout:
    """Return what a file of a compressed model holds."""
    config = load_config(read_json(model.folder / CONFIG))
    family = family_of(config)
    named = named_tensors([a.layer for a in model.plan.assignments], family, config)
    kept = {a.layer.name: model.checkpoint.saved_dtype(a.layer) for a in model.plan.assignments if a.scheme is None}
    extra = rope_tensors(config)
    slots = {name: Slot(gguf.GGMLQuantizationType.F32, tuple(tensor.shape)) for name, tensor in extra.items()}
    for a, name in zip(model.plan.assignments, named, strict=True):
        slots[name.name] = slot(a, kept.get(a.layer.name, torch.bfloat16))
    places = {each.layer.name: each for each in named}

    def pieces() -> Iterator[tuple[str, Tensor]]:
        for name, factors in extra.items():
            yield name, kept_bytes(factors, gguf.GGMLQuantizationType.F32)
        for a, _, tensor in model.pieces(whole_rows=lambda a: places[a.layer.name].rows_of_a_head):
            place = places[a.layer.name]
            yield place.name, _bytes(tensor, place, slots[place.name].kind, family.norm_plus)

    return Layout(family, config, slots, pieces)


def _header(model: CompressedModel, layout: Layout, pre: str | None) -> bytes:
    """Return what stands before the tensors."""
    writer = new_writer(layout.family.name)
    vocabulary = read_vocabulary(model.folder, layout.config, pre)
    title = printable(model.recipe.source.title[:MAX_NAME]) or "model"
    _describe(writer, model, harmless(title, vocabulary.tokens))
    write_numbers(writer, layout.family, layout.config)
    vocabulary.write(writer)
    return header(writer, layout.slots)


def file_size(model: CompressedModel, pre: str | None = None) -> int:
    """Return the bytes of the file, header and all."""
    layout = laid_out(model)
    return len(_header(model, layout, pre)) + tensor_bytes(layout.slots)


def write(model: CompressedModel, out: Path, pre: str | None = None) -> Writing:
    """Write the file, yielding bytes of all.

    Raises ResourceError for a disk that has no room for it, and what :func:`refusal` would have returned.
    """
    layout = laid_out(model)
    beginning = _header(model, layout, pre)
    total = len(beginning) + tensor_bytes(layout.slots)
    if shutil.disk_usage(out.parent).free < total:
        raise ResourceError("export_disk_full", path=str(out.parent))
    with ahead(layout.pieces(), AHEAD) as pieces, ChecksummedFile(out, total) as file:
        file.write(beginning)
        for done in write_tensors(file, layout.slots, pieces):
            yield Progress.of_bytes("export", done, total)
    model.checksums[out] = file.sha256
    return out


def _bytes(tensor: PackedTensor | Tensor, named: Named, kind: gguf.GGMLQuantizationType, norm_plus: float) -> Tensor:
    """Return a tensor as the file holds it, uint8."""
    if isinstance(tensor, PackedTensor):
        return permuted(block_bytes(tensor), named.rows_of_a_head)
    is_norm = named.layer.kind is Kind.OTHER and tensor.ndim == 1 and named.name.endswith("norm.weight")
    return kept_bytes(tensor.float() + norm_plus if is_norm else permuted(tensor, named.rows_of_a_head), kind)


def harmless(name: str, tokens: Sequence[str]) -> str:
    """Return a model's name as llama.cpp can load it: one that says Phi-3 has to have that model's special tokens."""
    if set(PHI3_TOKENS) <= set(tokens):
        return name
    return re.sub(r"(phi)-?(3)", r"\1 \2", name, flags=re.IGNORECASE)


def _describe(writer: gguf.GGUFWriter, model: CompressedModel, name: str) -> None:
    """Say what the file is and where it comes from."""
    recipe = model.recipe
    writer.add_type("model")
    writer.add_name(name)
    writer.add_quantized_by("Quantization Studio")
    writer.add_quantization_version(QUANTIZATION_VERSION)
    writer.add_file_type(_file_type(model.plan))
    license_ = License.of({"license": recipe.source.license.id, "license_name": recipe.source.license.name})
    if license_.id:
        writer.add_license(license_.name or license_.id)
    original = HUB_ID.fullmatch(recipe.source.base_model)  # a stranger's folder can say anything
    if original:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, original["name"])
        writer.add_base_model_organization(0, original["owner"])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{original[0]}")


def _file_type(plan: Plan) -> int:
    weights: dict[str, int] = {}
    for a in plan.assignments:
        mode = None if a.scheme is None else mode_of(a.scheme)
        if mode is not None:
            weights[mode.value] = weights.get(mode.value, 0) + a.layer.numel
    return LAYOUTS[max(weights, key=weights.__getitem__)].file_type if weights else 1  # 1: mostly F16


PRESETS: dict[str, Words] = {
    "smallest": {"budget": "iq4_xs", "target": "gguf", "method": "best"},
    "balanced": {"budget": "q4_k_m", "target": "gguf", "method": "best"},
    "safest": {"mode": "q8_0"},
}
"""The bytes of mixes that people search for, given to the weights that need them most, by predicted damage."""


def with_pre_tokenizer(name: str) -> Target:
    """Return the target that names a way of splitting words although it is not the tokenizer's own."""
    refuses, tells, writes = (partial(refusal, pre=name), partial(file_size, pre=name), partial(write, pre=name))
    return replace(TARGET, refusal=refuses, file_size=tells, write=writes, pre_tokenizer=name)


TARGET = Target(
    "gguf", suffix=".gguf", refusal=refusal, size=size, file_size=file_size, write=write, usual={"mix": "q4_k_m"},
    with_pre_tokenizer=with_pre_tokenizer, presets=PRESETS,
)  # fmt: skip
