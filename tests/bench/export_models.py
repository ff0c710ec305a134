"""What exports are compared on: the dithered model, and the same cut to widths that blocks of 256 divide.

The cut one is made of real weights, so that inputs are as correlated as a real model's: the first 512 of 576 hidden
channels, 8 of 9 heads, each with its own copy of the keys and values that it shared. It writes nonsense, but its
distributions depend on what it reads, and whatever rounds its weights well rounds real ones well.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.calibration.listeners import ActivationListener
from studio.checkpoint.checkpoint import Checkpoint, of_folder, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CONFIG, WEIGHTS
from studio.checkpoint.layers import Kind, Layer
from studio.export.checksummed_file import ChecksummedFile
from studio.export.gguf.families import family_of, rope_tensors, write_numbers
from studio.export.gguf.file import Slot, header, new_writer, tensor_bytes, write_tensors
from studio.export.gguf.tensors import named_tensors, permuted
from studio.export.gguf.vocabulary import read_vocabulary
from studio.runtime.block_model import BlockModel
from tests.bench.quality_data import dithered
from tests.steps import finish

WIDTH, HEADS = 512, 8


def model(name: str, folder: Path) -> Checkpoint:
    """Return ``"dithered"`` or ``"cut"``, made in ``folder`` if it is not there."""
    whole = dithered(folder / "dithered")
    return whole if name == "dithered" else cut(whole, folder / "cut")


def cut(whole: Checkpoint, folder: Path) -> Checkpoint:
    """Return the cut model, made in ``folder`` if it is not there, as fp32 safetensors."""
    if not (folder / WEIGHTS).is_file():
        config = read_json(whole.path / CONFIG)
        folder.mkdir(parents=True, exist_ok=True)
        for other in whole.path.iterdir():
            if other.name != WEIGHTS:
                shutil.copyfile(other, folder / other.name)
        size = config["hidden_size"] // config["num_attention_heads"]
        share = config["num_attention_heads"] // config["num_key_value_heads"]
        weights = load_file(whole.path / WEIGHTS)
        save_file({name: _cut(name, weight, size, share) for name, weight in weights.items()}, folder / WEIGHTS)
        smaller = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": size}
        (folder / CONFIG).write_text(json.dumps(config | smaller), encoding="utf-8")
    return of_folder(folder, name="cut")


def _cut(name: str, weight: Tensor, size: int, share: int) -> Tensor:
    part = name.split(".")[-2]
    if part in ("k_proj", "v_proj"):
        weight = weight.unflatten(0, (-1, size)).repeat_interleave(share, 0)[:HEADS].flatten(0, 1)
    if part == "q_proj":
        weight = weight[: HEADS * size]
    elif part in ("o_proj", "down_proj") or weight.ndim == 1:
        weight = weight[:WIDTH]
    if part == "o_proj":
        weight = weight[:, : HEADS * size]
    elif part != "down_proj" and weight.ndim > 1:
        weight = weight[:, :WIDTH]
    return weight.contiguous()


def linear(checkpoint: Checkpoint) -> list[Layer]:
    """Return the weights of the blocks."""
    return [layer for layer in checkpoint.layers if layer.kind is Kind.LINEAR]


def moments(checkpoint: Checkpoint, tokens: Tensor) -> dict[str, Tensor]:
    """Return X^T X / T, fp32 [K, K], of each weight's inputs in the fp32 original, by the weight's name."""
    blocks = BlockModel(checkpoint, torch.float32)
    listener = ActivationListener(blocks.model, linear(checkpoint), lambda _, rows: rows.T @ rows / len(rows))
    finish(blocks.run(tokens))
    return listener.heard


def names_in_file(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what each tensor is called in a GGUF file, by its name here."""
    config = load_config(read_json(checkpoint.path / CONFIG))
    return {named.layer.name: named.name for named in named_tensors(checkpoint.layers, family_of(config), config)}


def write_f32(checkpoint: Checkpoint, file: Path) -> None:
    """Write a checkpoint as GGUF with every tensor in F32: what llama.cpp's quantizer is given."""
    config = load_config(read_json(checkpoint.path / CONFIG))
    family = family_of(config)
    named = named_tensors(checkpoint.layers, family, config)
    extra: Mapping[str, Tensor] = rope_tensors(config)
    f32 = gguf.GGMLQuantizationType.F32
    slots = {name: Slot(f32, tuple(tensor.shape)) for name, tensor in extra.items()}
    slots |= {each.name: Slot(f32, each.layer.shape) for each in named}
    writer = new_writer(family.name)
    writer.add_type("model")
    write_numbers(writer, family, config)
    read_vocabulary(checkpoint.path, config).write(writer)
    beginning = header(writer, slots)

    def pieces() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in extra.items():
            yield name, tensor.contiguous().view(torch.uint8).flatten()
        for each in named:
            tensor = permuted(checkpoint.read(each.layer).float(), each.rows_of_a_head).contiguous()
            yield each.name, tensor.view(torch.uint8).flatten()

    with ChecksummedFile(file, len(beginning) + tensor_bytes(slots)) as out:
        out.write(beginning)
        for _ in write_tensors(out, slots, pieces()):
            pass
