"""What each layer becomes, as a figure of the map: its bits have no number to look up, the plan says them.

Knows no error.
"""

from collections.abc import Mapping
from typing import ClassVar

from studio.planning.layer_figure import Known, LayerFigure


class PlannedBits(LayerFigure):
    """The bits of each layer's codes. Shown, too, as long as nothing is known of another figure."""

    texts: ClassVar[tuple[str, ...]] = ("choice", "legend")

    def of_layer(self, known: Known, layer: str) -> Mapping[str, float] | None:
        return None

    def on_map(self, known: Known) -> Mapping[str, float] | None:
        return None


FIGURE = PlannedBits("bits")
