"""Formats and rounding: a weight -> codes and scales -> bytes, and back. Pure tensor maths; knows no model
and no file.
"""
