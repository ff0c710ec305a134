"""Weights that other programs quantized and packed into words of 32 bits: one format a file, all in ``formats.py``.

Knows nothing of how they were rounded.
"""
