"""Whether a model's weights lie on a 4-bit grid already, as those of quantization-aware training or of a small file do.

Looks at the first rows of some layers. Knows nothing of plans.
"""

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import ratio_defining
from studio.quantization.rounding.regained import regained
from studio.quantization.scheme import Mode, Scheme

SCHEMES = (Scheme.of(Mode.Q4_0, 32), Scheme.of(Mode.Q4_1, 32))
"""The smaller one first: what it holds, the other does too."""
LAYERS = 24
"""Looked at, of all evenly; most models are known not to be on a grid after the first."""
ROWS = 1


def grid_of(checkpoint: Checkpoint) -> Scheme | None:
    """Return the scheme that holds every linear weight looked at without loss, None where there is none.

    Only for files that are here. Raises CheckpointError for damaged ones.
    """
    layers = [layer for layer in ratio_defining(checkpoint.layers) if layer.numel]
    chosen = layers[:: max(1, len(layers) // LAYERS)]
    rows = {}
    for scheme in SCHEMES:
        if chosen and all(scheme.fits(layer.matrix[1]) for layer in chosen):
            for layer in chosen:
                if layer not in rows:
                    rows[layer] = checkpoint.read(layer, 0, ROWS)
                if regained(rows[layer], scheme) is None:
                    break
            else:
                return scheme
    return None
