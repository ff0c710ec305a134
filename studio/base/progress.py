"""Where long work stands, from the loop that does it to the page or terminal that shows it. Knows nothing of the work.

Every long job is a generator of :class:`Progress`. What it finds on its way travels in events of its own.
"""

from dataclasses import dataclass, replace
from typing import Literal

from studio.base.fair_turns import Line
from studio.base.units import format_bytes

Job = Literal["open", "survey", "sample", "compress", "chat", "drift", "export", "push"]
"""What can be stopped, each by itself."""
JOBS: tuple[Job, ...] = ("open", "survey", "sample", "compress", "chat", "drift", "export", "push")


@dataclass(frozen=True)
class Progress:
    """Where work stands: ``Progress("compress", 42, 100, "model.layers.3.mlp.up_proj.weight")``."""

    stage: str
    """A key of the catalogue's ``stage`` table once it is shown; below, the name of a part of the work."""
    done: int = 0
    total: int = 0
    """What ``done`` will be at the end, 0 where nothing can be counted."""
    detail: str = ""
    """What is worked on, in a word: a layer, a module, so many bytes."""
    is_shared: bool = False
    """Whether it takes turns with another visitor's."""
    line: Line | None = None
    """Where its visitor stands who waits for a place, None for who has one."""

    @classmethod
    def of_bytes(cls, stage: str, done: int, total: int) -> "Progress":
        """Return progress whose detail names the bytes: ``"1.2 MB / 3.4 MB"``."""
        return cls(stage, done, total, f"{format_bytes(done)} / {format_bytes(total)}")

    @property
    def fraction(self) -> float | None:
        """0 to 1, None where nothing can be counted."""
        return self.done / self.total if self.total else None

    def within(self, stage: str, detail: str | None = None) -> "Progress":
        """Return the same progress as that of the stage that it is a part of."""
        return replace(self, stage=stage, detail=self.detail if detail is None else detail)
