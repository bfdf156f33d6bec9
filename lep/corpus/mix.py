"""`lep corpus mix`: a corpus of a wanted size from several sources, in wanted shares."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from darumeru.data.texts import read_texts
from darumeru.errors import DarumeruError, UserError
from darumeru.options import Option
from lep.corpus.write import named, new_corpus, watched, write_report
from lep.options import CorpusFile, Field, Force


@dataclass(frozen=True)
class Source:
    """A file or data set, and its weight among the others."""

    path: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Source:
        """`FILE` or `FILE=WEIGHT`; a name with `=` that is a file's is the file's.

        Raises:
            UserError: the weight is no positive number.
        """
        path, sign, weight = text.rpartition("=")
        if not sign or Path(text).is_file():
            return cls(text)
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UserError(
                f"The weight {weight!r} of {path} is not a number above 0. Write FILE=WEIGHT, such as a=0.7."
            )
        return cls(path, value)


def mix_corpus(
    sources: Sequence[Source],
    output: CorpusFile,
    *,
    documents: Annotated[int | None, Option("Documents to write; or give --chars.")] = None,
    characters: Annotated[int | None, Option("Characters to write; weights are of them, then.", flag="--chars")] = None,
    seed: Annotated[int, Option("Seed of the draw.")] = 0,
    field: Field = "text",
    force: Force = False,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write a mixture of sources to `output`; return the report that stands beside it.

    From each source documents are drawn at random without replacement. The next one always comes from the source that
    is furthest behind its weight (least taken / weight, in documents or in characters, as the amount is), so that
    shares hold to one document, and nearly so all along the file; a source's own order is kept. A source that runs out leaves the
    others to go on in their proportions. Sources are read twice, the first time for the lengths of the documents:
    some 30 bytes a document are in memory, and no texts but one of each source.

    Args:
        sources: with weights, in any unit.
        characters: at least so many are written; no more than one document too many.
        seed: equal sources, amount and seed give equal bytes.
        warn: takes sentences that the user should read: sources that ran out.

    Raises:
        UserError: sources, output or an amount that cannot be used, or no text.
        DarumeruError: a source changed between the two readings.
    """
    if (documents is None) == (characters is None):
        raise UserError("Say how much to write, by either --documents or --chars.")
    if (wanted := documents if documents is not None else characters or 0) < 1:
        raise UserError(f"The amount to write is at least 1, not {wanted}.")
    if seed < 0:
        raise UserError(f"--seed is 0 or more, not {seed}.")
    paths = [source.path for source in sources]
    real = [str(Path(path).resolve()) if Path(path).exists() else path for path in paths]
    if twice := sorted({path for path in real if real.count(path) > 1}):
        raise UserError(f"{twice[0]} is a source twice, and no document may be taken twice. Add up its weights.")
    unit = "documents" if documents is not None else "characters"
    with new_corpus(output, inputs=paths, force=force) as writer:
        lengths = [_lengths(path, field) for path in paths]
        if not any(map(len, lengths)):
            raise UserError(f"There is no text in {', '.join(paths)}.")
        weights = [source.weight for source in sources]
        order, chosen = draw(lengths, weights, wanted, by_characters=unit == "characters", seed=seed)
        readers = [
            _chosen(path, field, picks, len(all_)) for path, picks, all_ in zip(paths, chosen, lengths, strict=True)
        ]
        for text in watched((next(readers[source]) for source in order), "Mixing"):
            writer.write(text)
        for reader in readers:
            next(reader, None)  # reads on to the end, so that a change there is seen
    rows = []
    total = sum(weights)
    taken = [
        len(picks) if unit == "documents" else int(all_[picks].sum())
        for picks, all_ in zip(chosen, lengths, strict=True)
    ]
    for source, picks, all_, amount in zip(sources, chosen, lengths, taken, strict=True):
        rows.append({
            **named(source.path), "weight": source.weight, "wanted_share": round(source.weight / total, 6),
            "share": round(amount / sum(taken), 6), "documents": len(picks), "characters": int(all_[picks].sum()),
            "available_documents": len(all_), "available_characters": int(all_.sum()),
            "ran_out": len(picks) == len(all_) and (amount < wanted * source.weight / total - 1e-9),
        })  # fmt: skip
    reached = sum(taken) >= wanted
    for row in rows:
        if row["ran_out"]:
            warn(f"{row['name']} ran out after {row['documents']:,} documents: {row['share']:.1%} of the {unit} instead "
                 f"of {row['wanted_share']:.1%}.")  # fmt: skip
    if not reached:
        warn(f"All sources ran out: {sum(taken):,} {unit} instead of {wanted:,}.")
    measures = {
        "documents": writer.documents, "characters": writer.characters, "reached": reached, "sources": rows,
    }  # fmt: skip
    settings = {unit: wanted, "seed": seed, "field": field}
    return write_report(output, "corpus mix", inputs=paths, settings=settings, measures=measures)


def draw(
    lengths: Sequence[NDArray[np.int64]], weights: Sequence[float], wanted: int, *, by_characters: bool, seed: int
) -> tuple[NDArray[np.int32], list[NDArray[np.int64]]]:
    """Choose the documents of a mixture: the source of each in turn, and each source's documents in ascending order.

    Args:
        lengths: characters of each document, an array a source.
        weights: one a source.
        wanted: documents or characters in all.
        by_characters: which of the two.
        seed: a source's draw depends on it and on the source's position only.
    """
    orders = [np.random.default_rng([seed, position]).permutation(len(each)) for position, each in enumerate(lengths)]
    used = [0] * len(lengths)
    amounts = [0] * len(lengths)
    order = array("i")
    while sum(amounts) < wanted:
        behind = [at for at, each in enumerate(lengths) if used[at] < len(each)]
        if not behind:
            break
        source = min(behind, key=lambda at: amounts[at] / weights[at])
        amounts[source] += int(lengths[source][orders[source][used[source]]]) if by_characters else 1
        used[source] += 1
        order.append(source)
    chosen = [np.sort(each[:count]) for each, count in zip(orders, used, strict=True)]
    return np.frombuffer(order, dtype=np.int32) if order else np.zeros(0, np.int32), chosen


def _lengths(path: str, field: str) -> NDArray[np.int64]:
    found = array("q")
    for text in watched(_texts(path, field), f"Counting {Path(path).name}"):
        found.append(len(text))
    return np.frombuffer(found, dtype=np.int64) if found else np.zeros(0, np.int64)


def _texts(path: str, field: str) -> Iterator[str]:
    return (text for text in read_texts([path], field=field, halves=True) if text.strip())


def _chosen(path: str, field: str, picks: NDArray[np.int64], count: int) -> Iterator[str]:
    """The texts at the positions `picks`, which ascend; at the end it makes sure that there are `count`."""
    wanted = iter(picks.tolist())
    following = next(wanted, None)
    seen = 0
    for position, text in enumerate(_texts(path, field)):
        seen = position + 1
        if position == following:
            yield text
            following = next(wanted, None)
    if following is not None or seen != count:
        raise DarumeruError(f"{Path(path).name} changed while it was read; nothing was written. Repeat.")
