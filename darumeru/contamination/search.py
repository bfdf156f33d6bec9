"""A corpus read once: which documents of a benchmark stand in it, and how much of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.contamination.benchmark import Benchmark, open_benchmark
from darumeru.contamination.effect import Effect, effect_on
from darumeru.contamination.runs import Hits, RunIndex, batched
from darumeru.contamination.settings import ContaminationSettings
from darumeru.data.texts import read_texts
from darumeru.errors import UserError
from darumeru.record.run import load_run

THREADS = 2
"""Hashing runs in numpy, which lets go of the interpreter, beside the thread that reads."""


@dataclass(frozen=True)
class Found:
    """A document of the benchmark that stands in the corpus."""

    id: int
    """Its index in the split, from 0, as in the samples of a run."""
    share: float
    """Of its different runs of words, those that the corpus has."""
    texts: int
    """Texts of the corpus that share a run with it."""
    source: str
    """Name of the file with the first of them."""
    text: int
    """Number of that text in its file, from 1."""
    words: str
    """A run that it shares, as it is compared: small letters, without punctuation."""


@dataclass(frozen=True)
class TaskFindings:
    """What was found of a task."""

    documents: int
    searched: int
    """Documents with a text of enough words; no other can be found."""
    found: list[Found]


@dataclass(frozen=True)
class Contamination:
    """Result of `darumeru contaminated`."""

    suite: str
    words: int
    min_share: float
    texts: int
    characters: int
    affected: int
    """Texts of the corpus that share a run with any document."""
    tasks: dict[str, TaskFindings]
    runs: list[Effect] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the findings as a JSON object."""
        return asdict(self)


def find_contamination(
    settings: ContaminationSettings, progress: Callable[[int], None] = lambda texts: None
) -> Contamination:
    """Find the documents of a benchmark in training texts, by runs of words that both have.

    The benchmark's runs are indexed in memory, the corpus is read once, a batch of texts at a time.

    Args:
        settings: what is asked.
        progress: is told now and then how many texts were read.

    Raises:
        UserError: a corpus, suite, bundle or run that cannot be used, or a corpus without a text.
    """
    runs = [load_run(run) for run in settings.run]
    for run in runs:
        if not run.complete:
            raise UserError(
                f"Run '{run.path}' is not finished: start the same 'darumeru run' again, then give it here."
            )
    benchmark = open_benchmark(
        settings.suite, settings.tasks, settings.data, settings.lock, settings.include_path, settings.words
    )
    tally = _Tally(benchmark.index, benchmark.documents)
    for source in settings.corpus:
        tally.read(source, read_texts([source], field=settings.field, halves=True), progress)
    if not tally.characters:
        raise UserError(f"There is no text in {', '.join(settings.corpus)}.")
    findings = tally.findings(benchmark, settings.min_share)
    contaminated = {name: frozenset(f.id for f in task.found) for name, task in findings.items()}
    return Contamination(
        suite=settings.suite,
        words=settings.words,
        min_share=settings.min_share,
        texts=tally.texts,
        characters=tally.characters,
        affected=tally.affected,
        tasks=findings,
        runs=[effect_on(run, benchmark.tasks, contaminated) for run in runs],
    )


class _Tally:
    """What a corpus has in common with an index, counted while it is read."""

    def __init__(self, index: RunIndex, documents: int) -> None:
        self._index = index
        self._seen = np.zeros(len(index), dtype=np.bool_)
        self._texts = np.zeros(documents, dtype=np.int64)
        self._first: dict[int, tuple[str, int, int]] = {}
        self.texts = self.characters = self.affected = 0

    def read(self, source: str, texts: Iterable[str], progress: Callable[[int], None]) -> None:
        """Look through the texts of a source."""
        name = source if source.startswith("hub:") else Path(source).name
        before = self.texts
        for batch, hits in _ahead(self._index.find, batched(texts, len)):
            self._note(name, self.texts - before, hits)
            self.texts += len(batch)
            self.characters += sum(map(len, batch))
            progress(self.texts)

    def _note(self, source: str, before: int, hits: Hits) -> None:
        if not len(hits.run):
            return
        self._seen[hits.run] = True
        self.affected += len(np.unique(hits.text))
        which, owner = self._index.owners(hits.run)
        pairs, first = np.unique(np.stack([owner, hits.text[which]]), axis=1, return_index=True)
        self._texts += np.bincount(pairs[0], minlength=len(self._texts))
        for document, text, place in zip(*pairs.tolist(), first.tolist(), strict=True):
            self._first.setdefault(document, (source, before + text + 1, int(hits.run[which[place]])))

    def findings(self, benchmark: Benchmark, min_share: float) -> dict[str, TaskFindings]:
        """Return what was found, by task."""
        runs = self._index.counts(len(self._texts))
        share = self._index.counts(len(self._texts), self._seen) / np.maximum(runs, 1)
        found: dict[str, TaskFindings] = {}
        for name, task in benchmark.tasks.items():
            start, count = benchmark.first[name], len(task.docs())
            documents = []
            for number in range(start, start + count):
                if number in self._first and share[number] >= min_share:
                    source, text, run = self._first[number]
                    documents.append(
                        Found(
                            id=number - start,
                            share=round(float(share[number]), 4),
                            texts=int(self._texts[number]),
                            source=source,
                            text=text,
                            words=self._index.words_of(run),
                        )
                    )
            found[name] = TaskFindings(count, int((runs[start : start + count] > 0).sum()), documents)
        return found


def _ahead(call: Callable[[list[str]], Hits], batches: Iterable[list[str]]) -> Iterator[tuple[list[str], Hits]]:
    """Yield batches in their order with what a call says of them; a few are computed while the next is read."""
    waiting: deque[tuple[list[str], Future[Hits]]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches:
            waiting.append((batch, pool.submit(call, batch)))
            if len(waiting) > 2 * THREADS:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
