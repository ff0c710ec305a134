"""A model's folder for another program: one file of weights, texts written anew, and files that go along as they are.

All sizes are told before the first byte. Knows no layout of a weight and no program.
"""

import json
import math
import shutil
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from studio.base.errors import CheckpointError, ResourceError, disk_error
from studio.base.progress import Progress
from studio.checkpoint.carried import copy_into, raw_pieces
from studio.checkpoint.checkpoint import read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CARD, CONFIG, GENERATION, INDEX
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.tensor_writer import Slot, SlotFile
from studio.checkpoint.weight_files import listed
from studio.export.compressed_model import CompressedModel, Writing
from studio.planning.plan import Assignment
from studio.quantization.packing import PackedTensor

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
Parts = Callable[[Assignment, int, PackedTensor | Tensor], Mapping[str, Tensor]]
"""Some rows of a tensor, the first of which is number ``int`` -> what the file holds of them, by its names."""


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds."""

    weights: Callable[[Path], SlotFile]
    """Folder -> the file of weights in it, not opened yet."""
    texts: Mapping[str, bytes]
    """Files that are written anew, by their path in the folder."""
    copied: list[Path]
    """Files of the model's folder that go along as they are."""
    carried: Mapping[str, TensorEntry] = field(default_factory=dict)
    """Tensors beside the model that go into the file of weights as they came."""

    @property
    def nbytes(self) -> int:
        """Of all files, to the last one."""
        beside = sum(map(len, self.texts.values())) + sum(path.stat().st_size for path in self.copied)
        return self.weights(Path()).size + beside

    def write(self, model: CompressedModel, parts: Parts, out: Path) -> Writing:
        """Write the folder to a new path, yielding bytes of all. Raises ResourceError for a disk without the room."""
        total = self.nbytes
        if shutil.disk_usage(out.parent).free < total:
            raise ResourceError("export_disk_full", path=str(out.parent))
        weights = self.weights(out)
        try:
            weights.path.parent.mkdir(parents=True)
            for name, text in self.texts.items():
                (out / name).write_bytes(text)
            for path in self.copied:
                shutil.copyfile(path, out / path.name)
        except OSError as error:
            raise disk_error(error, out) from error
        with weights as file:
            beside = total - file.nbytes
            for a, row, tensor in model.pieces():
                for name, part in parts(a, row, tensor).items():
                    file.write(name, part, _element(a, row, tensor, file.slots[name]))
                yield Progress.of_bytes("export", beside + file.written, total)
            for _ in copy_into(model.folder, self.carried, file):
                yield Progress.of_bytes("export", beside + file.written, total)
            file.sync()
        return out

    def compared(self, model: CompressedModel, parts: Parts, out: Path) -> Generator[Progress, None, int]:
        """Yield bytes read of a folder that was written so, and return how many tensors it has, all of them the same.

        The card may say anything. Raises CheckpointError for the first difference, by name.
        """
        expected = {name: text for name, text in self.texts.items() if name != CARD}
        expected |= {path.name: path.read_bytes() for path in self.copied}
        for name, content in expected.items():
            if not (out / name).is_file():
                raise CheckpointError("missing_file", file=name)
            if (out / name).read_bytes() != content:
                kind = "verify_tokenizer" if name.startswith("tokenizer") else "verify_setting"
                raise CheckpointError(kind, file=out.name, key=name)
        weights = self.weights(out)
        if not weights.path.is_file():
            raise CheckpointError("missing_file", file=weights.path.name)
        with weights.path.open("rb") as file:
            if weights.path.stat().st_size != weights.size or not _stand_around(weights, file):
                raise CheckpointError("verify_layout", file=weights.path.name, tensor=next(iter(weights.slots))[:120])
            done = 0
            for a, row, tensor in model.pieces():
                for name, part in parts(a, row, tensor).items():
                    file.seek(weights.place(name, _element(a, row, tensor, weights.slots[name])))
                    raw = part.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                    if file.read(len(raw)) != raw:
                        raise CheckpointError("verify_tensor", file=weights.path.name, tensor=name[:120])
                    done += len(raw)
                yield Progress.of_bytes("verify", done, weights.nbytes)
            for name, start, raw_part in raw_pieces(model.folder, self.carried):
                file.seek(weights.place(name) + start)
                if file.read(len(raw_part)) != raw_part.numpy().tobytes():
                    raise CheckpointError("verify_tensor", file=weights.path.name, tensor=name[:120])
                done += len(raw_part)
                yield Progress.of_bytes("verify", done, weights.nbytes)
        return len(weights.slots)


def _element(a: Assignment, row: int, tensor: PackedTensor | Tensor, slot: Slot) -> int:
    """Return at which of a slot's elements the rows of a tensor from ``row`` on begin."""
    rows = a.layer.matrix[0] if isinstance(tensor, PackedTensor) else max(a.layer.shape[:1], default=1)
    return math.prod(slot.shape) * row // max(rows, 1)


def _stand_around(weights: SlotFile, file: BinaryIO) -> bool:
    """Return whether what is in a file beside its tensors is what was written there."""
    for start, raw in weights.around.items():
        file.seek(start)
        if file.read(len(raw)) != raw:
            return False
    return True


def files_beside(folder: Path, without: Collection[str] = (CONFIG, INDEX)) -> list[Path]:
    """Return the files of a compressed folder that any program wants: tokenizer, template, how it generates.

    Raises CheckpointError for a link out of it.
    """
    return [folder / name for name in listed(folder) if is_wanted(name) and name not in without]


def as_json(words: Mapping[str, object]) -> bytes:
    """Return words as a file of JSON."""
    return json.dumps(words, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")


def generation(folder: Path) -> dict[str, Any]:
    """Return what a compressed folder says of generating: its own file of it, else which tokens end an answer.

    Raises CheckpointError for a file that cannot be read.
    """
    if (folder / GENERATION).is_file():
        return read_json(folder / GENERATION)
    config = load_config(read_json(folder / CONFIG))
    return {key: getattr(config, key, None) for key in SPECIAL}
