"""Runs in the formats of other tools; a format is a file of `formats/`, found by its name."""

from darumeru.exports.export import as_text, export, format_names
from darumeru.exports.format import Export, Format, NothingToTellError

__all__ = ["Export", "Format", "NothingToTellError", "as_text", "export", "format_names"]
