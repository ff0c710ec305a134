"""What measures layers says where it stands by the weights it has seen."""

import pytest

from studio.base.progress import Progress
from studio.planning.layer_measured import LayerMeasured, progress_of, reading

HALF = Progress("survey", 50, 100, "up")


def test_a_layer_that_is_handed_over_is_progress_too() -> None:
    assert progress_of(HALF) is HALF
    assert progress_of(LayerMeasured("up", 0.5, HALF)) is HALF


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_layer_that_is_read_several_times_counts_once(passes: int) -> None:
    told = reading("survey", "up", 40, 100, passes)
    assert told(0) == Progress("survey", 40, 100, "up")
    assert told(30 * passes) == Progress("survey", 70, 100, "up")
    counts = [told(seen).done for seen in range(30 * passes + 1)]
    assert counts == sorted(counts)
