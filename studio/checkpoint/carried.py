"""Tensors that no layer is made of, copied as they lie in a model's files: bytes, not numbers.

They stand in one file of safetensors' layout beside the compressed weights, under the names and in the dtypes that they
came with. Knows no scheme, and of their values nothing.
"""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.byte_ranges import FolderRanges
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.left_out import LeftOut, left_out, left_out_names
from studio.checkpoint.tensor_writer import Slot, SlotFile, TensorFile

PIECE = 8 << 20
"""Bytes read and written at once."""
STAGE = "carry"
"""Of progress here: bytes are counted, the detail is the tensor."""
METADATA = {"format": "pt"}


def carried(checkpoint: Checkpoint, file: Path) -> Generator[Progress, None, Path | None]:
    """Write what the model's files hold beside it to ``file``, yielding bytes; return it, None where nothing is.

    An unfinished file is removed. Raises CheckpointError for a file that ends too soon, ResourceError for a full disk.
    """
    found = raw_entries(checkpoint)
    if not found:
        return None
    try:
        with TensorFile(file, slots_of(found), METADATA) as out:
            for name, done in copy_into(checkpoint.path, found, out):
                yield Progress(STAGE, done, out.nbytes, name)
            out.sync()
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file


def raw_entries(checkpoint: Checkpoint) -> dict[str, TensorEntry]:
    """Return what is left out by the names that the files themselves have: of a packed weight, each of its arrays."""
    found = [checkpoint.entries[name] for name in left_out_names(checkpoint.entries, checkpoint.layers)]
    places = {(entry.file, entry.start, entry.end) for entry in found}
    headers = [read_header(checkpoint.path / file) for file in sorted({entry.file for entry in found})]
    return {
        name: entry
        for header in headers
        for name, entry in header.items()
        if (entry.file, entry.start, entry.end) in places
    }


def slots_of(entries: Mapping[str, TensorEntry]) -> dict[str, Slot]:
    """Return the place that each takes in another file."""
    return {name: Slot(entry.dtype, entry.shape) for name, entry in entries.items()}


def copy_into(folder: Path, entries: Mapping[str, TensorEntry], out: SlotFile) -> Iterator[tuple[str, int]]:
    """Copy tensors of a folder's files into slots of their names, yielding each name and the bytes so far.

    Raises CheckpointError for a file that ends too soon.
    """
    done = 0
    for name, start, raw in raw_pieces(folder, entries):
        out.write_bytes(name, raw, start)
        done += len(raw)
        yield name, done


def raw_pieces(folder: Path, entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, int, Tensor]]:
    """Yield each tensor's bytes, uint8, in pieces with their first byte within it. Raises CheckpointError."""
    with FolderRanges(folder) as files:
        for name, entry in entries.items():
            for start in range(0, entry.nbytes, PIECE):
                length = min(PIECE, entry.nbytes - start)
                try:
                    raw = files.read(entry.file, entry.start + start, length)
                except OSError as error:
                    raise CheckpointError("damaged_file", file=entry.file) from error
                yield name, start, raw


def told(entries: Mapping[str, TensorEntry]) -> LeftOut | None:
    """Return what is to be said of tensors that were carried, or of some of them; None of none."""
    return left_out(entries, ())
