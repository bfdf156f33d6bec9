"""Results of other tools as records; a format is a file of `formats/`, found by its name.

What our tasks can score is scored anew, from the answers. Of other tasks the values of the documents are taken as they are
stated, and the intervals made of them.
"""

from darumeru.imports.record import find, import_run

__all__ = ["find", "import_run"]
