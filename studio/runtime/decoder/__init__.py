"""Models that speak: the same steps for every column of a chat, by the fastest way that a model has on this machine.

Knows no conversation.
"""

from studio.runtime.decoder.interface import KV_BITS, MOST_TOKENS, Backend, Cache, Decoder, Reason
from studio.runtime.decoder.kv_size import KeyValues, key_values
from studio.runtime.decoder.open_decoder import open_compressed, open_original
from studio.runtime.decoder.prefix_cache import PrefixCache
from studio.runtime.decoder.transformers_decoder import GeneralDecoder

__all__ = [
    "KV_BITS",
    "MOST_TOKENS",
    "Backend",
    "Cache",
    "Decoder",
    "GeneralDecoder",
    "KeyValues",
    "PrefixCache",
    "Reason",
    "key_values",
    "open_compressed",
    "open_original",
]
