"""The figures of the map, in the order of its menu. A new one is a line here; docs/adding.md says what else.

Knows nothing of how one is found.
"""

from studio.planning import output_error, planned_bits, predicted_damage, weight_error
from studio.planning.layer_figure import LayerFigure, Measure

FIGURES: dict[str, LayerFigure] = {
    figure.name: figure
    for figure in (weight_error.FIGURE, output_error.FIGURE, predicted_damage.FIGURE, planned_bits.FIGURE)
}
DEFAULT = weight_error.FIGURE.name
"""What a map shows before a visitor picks."""
MEASURED: dict[str, Measure] = {name: by for name, figure in FIGURES.items() if (by := figure.measure) is not None}
"""What is measured of each layer by running the model on a short text, when it is first asked for."""
