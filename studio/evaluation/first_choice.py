"""How often a compressed model's likeliest next token is another than the original's, from its KL divergence.

A guess in words for what is only predicted; what is measured says it itself. Knows no models.
"""

import math

SLOPE = 0.58
"""Differing share over the square root of the KL divergence in nats: 0.51 to 0.62 in all rows of
tests/bench/QUALITY.md, ours and others', whose KL divergences are 0.02 to 0.53; their median is 0.57. The root is that
of Pinsker's inequality."""


def differing_share(kld: float) -> float:
    """Return about which share of next tokens differs at a KL divergence of ``kld`` nats a token, 0 to 1."""
    return min(1.0, SLOPE * math.sqrt(max(0.0, kld)))
