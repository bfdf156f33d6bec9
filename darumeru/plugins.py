"""Objects found by name in a folder of the package or in an installed one: adding one edits no list.

A module `NAME.py` of the folder holds its object as `NAME`. An installed package declares its own in its metadata, under
the folder's entry point group:

    [project.entry-points."lep.propagation"]
    halfway = "my_package.halfway:halfway"

Names are read without importing anything, so that a command line can list them in its help.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from darumeru.errors import DarumeruError, UserError, unknown

T = TypeVar("T")


def names(package: str, group: str) -> list[str]:
    """Return the names of all that a package's folder and an entry point group hold, sorted; `a_b.py` is called `a-b`."""
    return sorted({place.name for place in _places(package, group)})


def find(package: str, group: str, name: str, kind: type[T], *, what: str) -> T:
    """Import and return the object of a name.

    Args:
        package: the package whose modules hold one object each.
        group: the entry point group of other packages' objects.
        name: as in `names`.
        kind: the class that the object must have.
        what: is looked for, in errors, such as "method".

    Raises:
        UserError: there is no such name, or more than one.
        DarumeruError: it cannot be imported, or is something else.
    """
    places = [place for place in _places(package, group) if place.name == name]
    if not places:
        raise unknown(what, name, names(package, group))
    if len(places) > 1:
        raise UserError(
            f"There are {len(places)} {what}s called '{name}': {', '.join(place.value for place in places)}. "
            "Uninstall or rename one."
        )
    try:
        found = places[0].load()
    except Exception as error:  # another package's code
        raise DarumeruError(f"The {what} '{name}' ({places[0].value}) cannot be imported: {error}") from error
    if not isinstance(found, kind):
        raise DarumeruError(
            f"The {what} '{name}' ({places[0].value}) is a {type(found).__name__}, not a {kind.__name__}."
        )
    return found


def _places(package: str, group: str) -> list[EntryPoint]:
    modules = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    own = [EntryPoint(name.replace("_", "-"), f"{package}.{name}:{name}", group) for name in modules if name[0] != "_"]
    return [*own, *entry_points(group=group)]
