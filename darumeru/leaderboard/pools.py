"""The sections of a board.

A *pool* is a set of complete runs on the very same documents, asked and scored by the same versions of the tasks. Ranks are
given within a pool only. Sections of their own without ranks are the published rows (there are no samples to test), incomplete
runs, and other tools' results that have no task of the suite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from darumeru.files import fingerprint
from darumeru.leaderboard.entry import Entry, data_title

PUBLISHED_POOL = "published"
INCOMPLETE_POOL = "incomplete"
IMPORTED_POOL = "imported"


@dataclass(frozen=True)
class Pool:
    """A section of the board."""

    id: str
    title: str
    kind: str
    """`runs`, `published`, `incomplete` or `imported`."""


def _complete(entry: Entry, suite: str, tasks: Sequence[str]) -> bool:
    return entry.stated.suite.name == suite and set(tasks) <= set(entry.tasks)


def make_pools(entries: Sequence[Entry], suite: str, tasks: Sequence[str]) -> tuple[list[Pool], dict[str, str]]:
    """Return the pools, largest first, and each entry's pool by its id."""
    of: dict[str, str] = {}
    titles: dict[str, str] = {}
    versions: dict[str, str] = {}
    for entry in entries:
        if entry.published:
            of[entry.id] = PUBLISHED_POOL
        elif entry.imported and not set(tasks) & set(entry.tasks):
            of[entry.id] = IMPORTED_POOL
        elif not _complete(entry, suite, tasks):
            of[entry.id] = INCOMPLETE_POOL
        else:
            key = fingerprint([entry.tasks[t].rules for t in tasks])[:8]
            of[entry.id] = key
            limit = entry.stated.limit
            titles.setdefault(key, data_title(entry.stated) + (f", {limit} per task" if limit else ""))
            versions.setdefault(key, _versions(entry, tasks))
    size = Counter(of.values())
    for names in (versions, {key: key[:4] for key in titles}):
        same = Counter(titles.values())
        titles = {key: f"{title} · {names[key]}" if same[title] > 1 else title for key, title in titles.items()}
    ranked = sorted(titles, key=lambda key: (-size[key], titles[key], key))
    pools = [Pool(key, titles[key], "runs") for key in ranked]
    if size[PUBLISHED_POOL]:
        pools.append(Pool(PUBLISHED_POOL, "arXiv 2412.21140", "published"))
    if size[INCOMPLETE_POOL]:
        pools.append(Pool(INCOMPLETE_POOL, "", "incomplete"))
    if size[IMPORTED_POOL]:
        pools.append(Pool(IMPORTED_POOL, "", "imported"))
    return pools, of


def _versions(entry: Entry, tasks: Sequence[str]) -> str:
    """`tasks 2.0`; of several versions all, and the scoring's where it is not the first."""
    asked = sorted({str(entry.tasks[t].version) for t in tasks})
    scored = sorted({entry.tasks[t].scoring for t in tasks} - {1})
    return f"tasks {', '.join(asked)}" + (f", scoring {', '.join(map(str, scored))}" if scored else "")
