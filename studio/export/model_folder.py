"""A model's folder for another program: one file of weights, texts written anew, and files that go along as they are.

All sizes are told before the first byte. Knows no layout of a weight and no program.
"""

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from studio.base.errors import ResourceError, disk_error
from studio.base.progress import Progress
from studio.checkpoint.file_names import CONFIG, INDEX, WEIGHTS
from studio.checkpoint.hub import is_wanted
from studio.checkpoint.tensor_writer import Slot, TensorFile
from studio.export.compressed_model import CompressedModel, Writing
from studio.planning.plan import Assignment
from studio.quantization.packing import PackedTensor

Parts = Callable[[Assignment, int, PackedTensor | Tensor], Mapping[str, Tensor]]
"""Some rows of a tensor, the first of which is number ``int`` -> what the file holds of them, by its names."""


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds."""

    slots: Mapping[str, Slot]
    texts: Mapping[str, bytes]
    """Files that are written anew."""
    copied: list[Path]
    """Files of the model's folder that go along as they are."""
    metadata: Mapping[str, str]
    """Of the file of weights."""

    def tensor_file(self, folder: Path) -> TensorFile:
        """Return the file of weights, not opened yet."""
        return TensorFile(folder / WEIGHTS, self.slots, self.metadata)

    @property
    def nbytes(self) -> int:
        """Of all files, to the last one."""
        beside = sum(map(len, self.texts.values())) + sum(path.stat().st_size for path in self.copied)
        return self.tensor_file(Path()).size + beside

    def write(self, model: CompressedModel, parts: Parts, out: Path) -> Writing:
        """Write the folder to a new path, yielding bytes of all. Raises ResourceError for a disk without the room."""
        total = self.nbytes
        if shutil.disk_usage(out.parent).free < total:
            raise ResourceError("export_disk_full", path=str(out.parent))
        try:
            out.mkdir()
            for name, text in self.texts.items():
                (out / name).write_bytes(text)
            for path in self.copied:
                shutil.copyfile(path, out / path.name)
        except OSError as error:
            raise disk_error(error, out) from error
        with self.tensor_file(out) as file:
            beside = total - file.nbytes
            for a, row, tensor in model.pieces():
                for name, part in parts(a, row, tensor).items():
                    columns = part.numel() // max(len(part), 1) if part.ndim else 1
                    file.write(name, part, row * columns)
                yield Progress.of_bytes("export", beside + file.written, total)
            file.sync()
        return out


def files_beside(folder: Path, without: Collection[str] = (CONFIG, INDEX)) -> list[Path]:
    """Return the files of a compressed folder that any program wants: tokenizer, template, how it generates."""
    there = sorted(path for path in folder.iterdir() if path.is_file() and is_wanted(path.name))
    return [path for path in there if path.name not in without]
