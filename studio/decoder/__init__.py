"""Models that speak: the same steps for every column of a chat, by the fastest way that a model has on this machine."""

from studio.decoder.general import GeneralDecoder
from studio.decoder.interface import KV_BITS, MOST_TOKENS, Cache, Decoder, Reason, Way
from studio.decoder.kv import KeyValues, key_values
from studio.decoder.load import open_compressed, open_original
from studio.decoder.read import Read

__all__ = [
    "KV_BITS",
    "MOST_TOKENS",
    "Cache",
    "Decoder",
    "GeneralDecoder",
    "KeyValues",
    "Read",
    "Reason",
    "Way",
    "key_values",
    "open_compressed",
    "open_original",
]
