"""hub -> checkpoint -> model -> survey -> plan -> compress -> chat -> export: one direction, no going back."""

__version__ = "0.1.0"
