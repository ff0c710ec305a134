"""Tensors kept on disk from one visit to the next, in a folder that does not outgrow its bound. Knows no figure.

Each file is safetensors after a SHA-256 of itself: what was cut short or changed by hand is found and made again, and
nothing that is read can run code. The longest unused go first when there is no more room.
"""

import hashlib
import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

LOG = logging.getLogger(__name__)
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Shelf:
    """A folder of kept tensors: ``Shelf(cache_dir / "hidden", 1 << 30)``."""

    folder: Path
    most: int
    """Bytes that all its files may take together."""

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under ``name``, a path within the folder; what does not fit is not kept.

        A disk without room costs the next visit the time to make them again, no more.
        """
        file = self.folder / name
        if sum(tensor.nbytes for tensor in tensors.values()) > self.most:
            return
        content = save({key: tensor.contiguous() for key, tensor in tensors.items()})
        partial = file.with_name(f"{file.name}.{os.getpid()}-{uuid.uuid4().hex}")  # of this thread alone
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)
            partial.replace(file)
            self._make_room()
        except OSError as error:
            LOG.warning("%s is not kept: %s", file, error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def recall(self, name: str) -> dict[str, Tensor] | None:
        """Return the tensors of an earlier visit, None where there are none or not as they were written.

        Whether they can be what their name says is the caller's to check.
        """
        file = self.folder / name
        try:
            with file.open("rb") as stream:
                digest, content = stream.read(DIGEST_BYTES), stream.read()
            if digest != hashlib.sha256(content).digest():
                return None
            kept = load(content)
        except (OSError, SafetensorError):
            return None
        with suppress(OSError):
            os.utime(file)  # it was of use
        return kept

    def _make_room(self) -> None:
        """Remove the files unused for longest until the others fit."""
        seen = [(file.stat(), file) for file in self.folder.rglob("*") if file.is_file()]
        taken = sum(facts.st_size for facts, _ in seen)
        for facts, file in sorted(seen, key=lambda each: each[0].st_mtime_ns):
            if taken <= self.most:
                return
            file.unlink(missing_ok=True)
            taken -= facts.st_size
