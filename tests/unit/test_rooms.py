"""The rooms of the house: which folder may import which, and how long a file may be.

Read from the sources themselves: every `import` counts, also one inside a function; those for type checkers alone do not.
"""

import ast
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 420
"""Lines of the longest Python file."""

LAYERS: dict[str, tuple[set[str], ...]] = {
    "darumeru": (
        {"cli", "__main__"},
        {"exports", "leaderboard", "arena", "watch", "gate", "signal", "contamination", "trackers", "publish"},
        {"imports", "race"},
        {"evaluation"},
        {"workers"},
        {"inference", "task", "record", "doctor"},
        {"engines", "data", "scoring"},
        {
            "settings",
            "chats",
            "options",
            "web",
            "requests",
            "files",
            "weights",
            "plugins",
            "processor",
            "hub",
            "extras",
            "errors",
            "demo",
            "version",
        },
    ),
    "lep": (
        {"cli", "__main__"},
        {"study"},
        {"pipeline"},
        {"calibration", "propagation", "pretraining", "initialisation", "vocab"},
        {"measure", "corpus", "tokenizer"},
        {"model"},
        {"options"},
    ),
}
"""Rooms of each package from top to bottom. A room may import what lies beside or below it, never what lies above."""


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(module: str) -> tuple[str, str]:
    """Package and room of a dotted name; the package's own `__init__` is the room `` ."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a tree but those that only a type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        if for_type_checkers(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from nodes(other)
        else:
            yield from nodes(child)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@cache
def imports(package: str) -> tuple[tuple[str, str], ...]:
    """(place FILE:LINE, dotted name of the module) for every import of our own packages in a package."""
    found = []
    for path in files(package):
        place = path.relative_to(ROOT)
        inside = list(place.with_suffix("").parts)
        for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = ".".join(inside[: -node.level]) if node.level else ""
                base = ".".join(part for part in (start, node.module) if part)
                names = [inner if is_module(inner := f"{base}.{alias.name}") else base for alias in node.names]
            else:
                continue
            found += [
                (f"{place}:{getattr(node, 'lineno', 0)}", name) for name in names if name.partition(".")[0] in LAYERS
            ]
    return tuple(found)


def importer(place: str) -> tuple[str, str]:
    file = place.rpartition(":")[0]
    return room(".".join(Path(file).with_suffix("").parts))


def depth(package: str, name: str) -> int:
    """Number of a room's layer, the top being 0."""
    numbers = [number for number, layer in enumerate(LAYERS[package]) if name in layer]
    assert numbers, f"{package}/{name} is in no layer: add it to LAYERS in {Path(__file__).name}."
    return numbers[0]


def rooms(package: str) -> set[str]:
    found = {path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in files(package)}
    return found - {"__init__"}


@pytest.mark.parametrize("package", LAYERS)
def test_every_room_has_its_layer(package: str) -> None:
    assert rooms(package) <= set().union(*LAYERS[package])


def test_darumeru_never_imports_lep() -> None:
    assert [place for place, name in imports("darumeru") if room(name)[0] == "lep"] == []


@pytest.mark.parametrize("package", LAYERS)
def test_nothing_imports_upward(package: str) -> None:
    wrong = []
    for place, name in imports(package):
        _, here = importer(place)
        owner, there = room(name)
        if owner != package or here in ("__init__", there) or not there:
            continue
        if depth(package, there) < depth(package, here):
            wrong.append(f"{place} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("package", LAYERS)
def test_no_circle_between_rooms(package: str) -> None:
    arrows: dict[str, dict[str, str]] = {}
    for place, name in imports(package):
        here, (owner, there) = importer(place)[1], room(name)
        if owner == package and there and here not in ("__init__", there):
            arrows.setdefault(here, {}).setdefault(there, place)
    assert circle(arrows) is None


def circle(arrows: dict[str, dict[str, str]]) -> list[str] | None:
    """A circle in a graph as `room (place of the import)`, None where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            ring = [*way[way.index(name) :], name]
            return [f"{a} → {b} ({arrows[a][b]})" for a, b in pairwise(ring)]
        if name in done:
            return None
        for other in arrows.get(name, {}):
            if (found := walk(other, [*way, name])) is not None:
                return found
        done.add(name)
        return None

    return next((found for name in arrows if (found := walk(name, [])) is not None), None)


def test_a_circle_is_found() -> None:
    graph = {"a": {"b": "1"}, "b": {"c": "2"}, "c": {"b": "3"}}
    assert circle(graph) == ["b → c (2)", "c → b (3)"]
    assert circle({"a": {"b": "1", "c": "2"}, "b": {"c": "3"}}) is None


@pytest.mark.parametrize("package", LAYERS)
def test_no_file_is_too_long(package: str) -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files(package)}
    assert {file: size for file, size in sizes.items() if size > LONGEST} == {}
