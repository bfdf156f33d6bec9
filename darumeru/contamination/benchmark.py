"""A benchmark's documents as an index of their runs of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.contamination.runs import RunIndex
from darumeru.contamination.settings import WORDS
from darumeru.data.bundle import Row, open_bundle
from darumeru.task.suite import Catalogue

if TYPE_CHECKING:
    from darumeru.task.base import DarumeruTask

MOST = 10
"""A run of words that more documents have is the words of the task, not of a document."""


@dataclass(frozen=True)
class Benchmark:
    """The documents of tasks, and the runs of words by which they are found."""

    suite: str
    tasks: dict[str, DarumeruTask]
    first: dict[str, int]
    """Task → number of its first document in the index; the others follow in their order."""
    index: RunIndex

    @property
    def documents(self) -> int:
        """Number of the documents of all tasks."""
        return sum(len(task.docs()) for task in self.tasks.values())


def open_benchmark(
    suite: str = "darumeru",
    tasks: Sequence[str] = (),
    data: str = "hub",
    lock: Path | None = None,
    include_path: Sequence[Path] = (),
    words: int = WORDS,
) -> Benchmark:
    """Read the documents of a suite and index them.

    Args:
        suite: its name.
        tasks: only these of its tasks.
        data: the bundle that has the rows: `hub`, `mini` or a folder.
        lock: pins the hub's revisions.
        include_path: folders of further tasks and suites.
        words: the length of a run.

    Raises:
        UserError: no such suite, task or bundle, or data that is not as it must be.
    """
    catalogue = Catalogue(include_path)
    names = catalogue.suite(suite, tasks).tasks
    loaded = catalogue.load(names, open_bundle(data, lock))
    docs = {name: loaded[name].docs() for name in names}
    first = dict(zip(docs, accumulate(map(len, docs.values()), initial=0), strict=False))
    # Several questions on one passage share it.
    clusters = Counter(
        (name, c) for name in names for doc in docs[name] if (c := loaded[name].cluster(doc)) is not None
    )
    together = max(clusters.values(), default=0)
    texts = ((first[name] + i, text) for name in names for i, doc in enumerate(docs[name]) for text in texts_of(doc))
    return Benchmark(suite, {name: loaded[name] for name in names}, first, RunIndex(texts, words, max(MOST, together)))


def texts_of(row: Row) -> Iterator[str]:
    """Yield the texts of a row that are its own: of one with `inputs` these and the answer, not the template beside them."""
    return strings([row["inputs"], row.get("outputs")] if "inputs" in row else row)


def strings(value: Any) -> Iterator[str]:
    """Yield the texts in a value of JSON; a list of texts, such as the sentences of an article, is one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        if value and all(isinstance(item, str) for item in value):
            yield "\n".join(value)
        else:
            for item in value:
                yield from strings(item)
