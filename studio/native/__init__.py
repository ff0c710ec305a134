"""Compiled twins of slow torch code: plain C, built on first use where a compiler exists, never needed.

Knows nothing of models. What a twin gives is what the torch code gives, bit for bit; tests compare them.
"""

from studio.native.nearest import channel_error, pack_nearest, squared_errors

__all__ = ["channel_error", "pack_nearest", "squared_errors"]
