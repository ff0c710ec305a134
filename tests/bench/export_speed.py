"""What writing a GGUF file of a compressed folder costs, over reading and writing as many bytes once.

    python -m tests.bench.export_speed [--blocks 24] [--repeat 3] [--place DIR]

The folder is made up: random blocks in the shapes of a small Llama, of which as many as are asked for; no model is
fetched or rounded. Copying is what ``cp`` does (one thread, 1 MB at a time), with fsync; exporting is the whole of it:
header, vocabulary, every checksum of the source compared, the file's own checksum, fsync. They take turns, and each is
the least of its tries; whoever else uses the disk meanwhile is in both. ``--place /dev/shm`` leaves the disk out.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from studio.checkpoint.file_names import CONFIG, PACKED
from studio.checkpoint.recipe import RECIPE, Choices, PackedWeight, Recipe, Source, sha256
from studio.checkpoint.tensor_writer import Slot, TensorFile
from studio.export.targets import TARGETS, export
from studio.planning.choice import Choice
from studio.quantization.scheme import Scheme

WIDTH, INNER, HEADS, KEYS = 2048, 5632, 32, 4
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH // HEADS * KEYS, WIDTH),
    "self_attn.v_proj": (WIDTH // HEADS * KEYS, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH), "mlp.down_proj": (WIDTH, INNER),
}  # fmt: skip
"""TinyLlama's."""
NORMS = ("input_layernorm", "post_attention_layernorm")
PIECE = 1 << 20
Tries = dict[str, list[tuple[float, float]]]
"""What was done -> seconds, and seconds of processors, of each try."""


def made_up(folder: Path, blocks: int, scheme: str = "q4_k") -> Path:
    """Write a compressed folder of a Llama with so many blocks and random numbers for weights; return it."""
    from tests.conftest import tiny_tokenizer

    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(tokenizer),
        "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": blocks, "num_attention_heads": HEADS,
        "num_key_value_heads": KEYS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config))
    weights = [
        PackedWeight(name=f"model.layers.{block}.{part}.weight", shape=shape, scheme=scheme, relative_error=0.0)
        for block in range(blocks)
        for part, shape in SHAPES.items()
    ]
    norms = [
        f"model.layers.{i}.{n}.weight" for i in range(blocks) for n in ("input_layernorm", "post_attention_layernorm")
    ]
    kept = dict.fromkeys((*norms, "model.norm.weight"), (WIDTH,)) | {
        "model.embed_tokens.weight": (len(tokenizer), WIDTH)
    }
    slots = {f"{w.name}.{part.name}": Slot(part.dtype, part.shape) for w in weights for part in w.parts}
    slots |= {name: Slot("BF16", shape) for name, shape in kept.items()}
    random = torch.Generator().manual_seed(0)
    with TensorFile(folder / PACKED, slots, {"format": "pt"}) as file:
        for name, slot in slots.items():
            if slot.dtype == "U8":
                file.write(name, torch.randint(0, 256, slot.shape, dtype=torch.uint8, generator=random))
            else:
                file.write(name, torch.ones(slot.shape, dtype=torch.bfloat16))
    numel = sum(w.shape[0] * w.shape[1] for w in weights) + sum(torch.Size(shape).numel() for shape in kept.values())
    recipe = Recipe(
        source=Source(model="made-up", revision="0", format="BF16"),
        choices=Choices.model_validate(Choice.of(scheme).facts()),
        weights=tuple(weights),
        original_bytes=2 * numel,
        compressed_bytes=sum(slot.nbytes for slot in slots.values()),
        versions={},
        sha256={path.name: sha256(path) for path in sorted(folder.iterdir())},
    )
    assert Scheme.parse(scheme).mode.is_in_blocks
    (folder / RECIPE).write_text(recipe.model_dump_json())
    return folder


def copied(source: Path, to: Path) -> None:
    """Copy a file as ``cp`` does, and wait for the disk."""
    with source.open("rb", buffering=0) as read, to.open("wb", buffering=0) as write:
        while piece := read.read(PIECE):
            write.write(piece)
        os.fsync(write.fileno())


@contextmanager
def timed(name: str, found: Tries) -> Iterator[None]:
    began, worked = time.perf_counter(), time.process_time()
    yield
    found.setdefault(name, []).append((time.perf_counter() - began, time.process_time() - worked))


def measured(place: Path, blocks: int, repeat: int) -> Tries:
    """Return the seconds of each try, by what was done."""
    folder = made_up(place / "made-up", blocks)
    found: Tries = {}
    for _ in range(repeat):
        with timed("copy", found):
            copied(folder / PACKED, place / "copy")
        (place / "copy").unlink()
        with timed("export", found):
            for _step in export(TARGETS["gguf"], folder, place / "model.gguf", check=True):
                pass
        (place / "model.gguf").unlink()
        with timed("export, source not compared", found):
            for _step in export(TARGETS["gguf"], folder, place / "model.gguf"):
                pass
        (place / "model.gguf").unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=44, help="25 MB each as Q4_K")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--place", type=Path, default=None)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="studio-export-", dir=given.place))
    try:
        found = measured(place, given.blocks, given.repeat)
        nbytes = (place / "made-up" / PACKED).stat().st_size
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"{nbytes / 1e9:.2f} GB in {place.parent}")
    best = {name: (min(wall for wall, _ in tries), min(work for _, work in tries)) for name, tries in found.items()}
    for name, (wall, work) in best.items():
        tries = ", ".join(f"{each:.2f}" for each, _ in found[name])
        ratio = wall / best["copy"][0]
        speed = nbytes / wall / 1e6
        print(f"{name:30s} {wall:6.2f} s ({work:.2f} s of a core)  {speed:5.0f} MB/s  {ratio:.2f}x  ({tries})")
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
