"""Models that speak: the same steps for every column of a chat, by the fastest way that a model has on this machine."""

from studio.decoder.general import GeneralDecoder, stop_ids
from studio.decoder.interface import KV_BITS, MOST_TOKENS, Decoder, Way
from studio.decoder.load import open_compressed, open_original

__all__ = ["KV_BITS", "MOST_TOKENS", "Decoder", "GeneralDecoder", "Way", "open_compressed", "open_original", "stop_ids"]
