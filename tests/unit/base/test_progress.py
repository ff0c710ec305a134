"""Progress says how far work is, or that nothing can be counted."""

import pytest

from studio.base.progress import JOBS, Progress
from studio.base.text import LANGUAGES, text


@pytest.mark.parametrize(("done", "total", "fraction"), [(0, 0, None), (0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0)], ids=str)
def test_the_fraction_is_of_what_can_be_counted(done: int, total: int, fraction: float | None) -> None:
    assert Progress("survey", done, total).fraction == fraction


def test_bytes_are_named() -> None:
    assert Progress.of_bytes("download", 1_200_000, 3_400_000).detail == "1.2 MB / 3.4 MB"


def test_a_part_is_progress_of_the_whole() -> None:
    part = Progress("blocks", 3, 9, "model.layers.3", is_shared=True)
    assert part.within("judge") == Progress("judge", 3, 9, "model.layers.3", is_shared=True)
    assert part.within("calibrate", "") == Progress("calibrate", 3, 9, is_shared=True)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_can_be_stopped_and_is_measured_has_a_name(language: str) -> None:
    stages = [job for job in JOBS if job in ("survey", "sample", "compress", "export")]
    for stage in (*stages, "headers", "reading", "download", "load", "rank", "calibrate", "generate", "judge"):
        assert text(f"stage.{stage}", language) != f"stage.{stage}"
