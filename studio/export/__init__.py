"""A compressed model -> files that others load. One target format a file, and the card."""

from studio.export.folder import EXPORTED_FILES, archive, write_folder

__all__ = ["EXPORTED_FILES", "archive", "write_folder"]
