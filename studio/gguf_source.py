"""GGUF -> a folder with safetensors, once. Knows of one file; transformers reads it, dequantized.

Only the header is trusted enough to be parsed before transformers sees the file: magic, and the file's length against
the tensors it promises (gguf's own reader would fail deep inside numpy).
"""

import json
import shutil
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from studio.checkpoint import Checkpoint, fingerprint, of_folder, read_json
from studio.errors import CheckpointError, ResourceError, UserError, disk_error
from studio.settings import settings
from studio.units import format_bytes
from studio.workspace import partial_in, sweep_partials

NOTE = "source.json"
"""Beside the prepared files: what they were made from."""
SMALL_FILES = 64 << 20
"""Bytes that config, tokenizer and the like may take."""


def prepared_folder(file: Path) -> Path:
    """Return where the safetensors form of this .gguf file is or will be kept."""
    return settings().cache_dir / "prepared" / f"{file.stem[:60]}-{fingerprint([file])}"


def prepare(file: Path, name: str | None = None) -> Generator[str, None, Checkpoint]:
    """Yield the name of each step and return the checkpoint of a .gguf file, converting it on the first visit.

    The original at 16 bits is the dequantized file in fp16. Raises CheckpointError for a file that is not GGUF, is cut
    short, or has an architecture transformers cannot read.
    """
    if not file.is_file():
        raise CheckpointError("missing_file", file=file.name)
    folder = prepared_folder(file)
    if not (folder / NOTE).is_file():
        formats, weights = check(file)
        _check_disk(folder, 2 * weights + SMALL_FILES)
        sweep_partials(folder.parent, folder.name)
        partial = partial_in(folder.parent, folder.name)
        try:
            yield from _in_background(file, partial)
            (partial / NOTE).write_text(json.dumps({"format": formats, "bytes": file.stat().st_size}))
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    note = read_json(folder / NOTE)
    return of_folder(folder, name or str(file), source_format=str(note["format"]), source_bytes=int(note["bytes"]))


def check(file: Path) -> tuple[str, int]:
    """Return the types of a .gguf file's weights, most bytes first, and how many weights it has.

    Raises CheckpointError when it is not whole.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        sums: dict[str, int] = {}
        end = weights = 0
        for tensor in reader.tensors:
            weights += int(tensor.n_elements)
            end = max(end, tensor.data_offset + tensor.n_bytes)
            if len(tensor.shape) > 1:
                sums[tensor.tensor_type.name] = sums.get(tensor.tensor_type.name, 0) + int(tensor.n_bytes)
    except Exception as error:  # gguf raises whatever numpy raises on a file that is cut short
        raise CheckpointError("damaged_file", file=file.name) from error
    if end > file.stat().st_size or not sums:
        raise CheckpointError("damaged_file", file=file.name)
    return "/".join(sorted(sums, key=lambda name: -sums[name])), weights


def _check_disk(folder: Path, need: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise ResourceError(
            "cache_disk_too_small", path=str(settings().cache_dir), need=format_bytes(need), free=format_bytes(free)
        )


def _in_background(file: Path, folder: Path) -> Generator[str, None, None]:
    """Convert in a thread and yield twice a second, so that a page can show that it lives."""
    from concurrent.futures import TimeoutError as NotYet

    step = ["reading"]
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(_convert, file, folder, step.append)
        while True:
            try:
                work.result(timeout=0.4)
                return
            except NotYet:
                yield step[-1]


def _convert(file: Path, folder: Path, say: Callable[[str], Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float16,
            local_files_only=True,
            trust_remote_code=False,
        )
        say("tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
        say("saving")
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except UserError:
        raise
    except OSError as error:
        raise disk_error(error, folder) from error
    except Exception as error:  # transformers' reader raises many kinds; the user can do one thing about all of them
        raise CheckpointError(
            "gguf_unreadable", file=file.name, reason=str(error)[:120] or type(error).__name__
        ) from error
