"""A compressed model -> files that others load. One target format a file, and the card.

Knows no page, and rounds nothing.
"""

from studio.export.studio_folder import archive, source_of, write_folder

__all__ = ["archive", "source_of", "write_folder"]
