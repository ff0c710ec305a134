"""A compressed model -> files that others load. One target format a file, and the card.

Knows no page, and rounds nothing.
"""

from studio.export.studio_folder import archive, write_folder

__all__ = ["archive", "write_folder"]
