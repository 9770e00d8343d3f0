"""Exported files: written, read back and compared."""
