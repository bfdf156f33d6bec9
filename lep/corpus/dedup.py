"""`lep corpus dedup`: one of each text, near duplicates found by MinHash and locality-sensitive hashing.

A document is a set of word n-grams; MinHash estimates the Jaccard similarity |A ∩ B| / |A ∪ B| of two such sets from
`num_perm` smallest hashes (Broder 1997), and documents that share one of b bands of r hashes are compared (Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3). `datasketch` hashes and chooses b and r; the bands lie in an
SQLite file beside the output instead of its tables in memory, which need kilobytes for each document.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import regex
from numpy.typing import NDArray

from darumeru.data.texts import read_texts
from darumeru.errors import DarumeruError, UserError
from darumeru.extras import need
from darumeru.options import Option
from lep.corpus.write import example, new_corpus, watched, write_report
from lep.options import Corpus, CorpusFile, Field, Force

_EXAMPLES = 10
_CACHE_KIB = 256 << 10
"""Memory for the index on disk, in KiB."""

# Scripts without spaces between words: each of their characters counts as a word.
_WORDS = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
    r"|[\w--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+",
    regex.V1,
)


def shingles(text: str, ngram: int) -> Iterator[bytes]:
    """The word n-grams of a text, without case, punctuation and white space; all words, where there are fewer."""
    words = _WORDS.findall(text.casefold()) or [text]
    for start in range(max(1, len(words) - ngram + 1)):
        yield " ".join(words[start : start + ngram]).encode("utf-8", "surrogatepass")


class NearIndex:
    """Finds a kept document that is like a new one.

    Memory: SQLite's cache (256 MiB at most) and the document at hand. Disk: 4 · num_perm bytes and b entries of about 20
    bytes for each kept document, 16 bytes and a little for each different one.

    Args:
        folder: for the temporary file.
        threshold: least similarity of a duplicate.
        num_perm: hashes of a document; the standard error of a similarity s is √(s (1 − s) / num_perm).
        ngram: words in a shingle.
        seed: of the permutations.

    Raises:
        UserError: settings that make no index.
    """

    def __init__(self, folder: Path, *, threshold: float, num_perm: int, ngram: int, seed: int) -> None:
        need("datasketch", extra="lep")
        from datasketch import MinHash, MinHashLSH

        if not 0 < threshold <= 1:
            raise UserError(f"--threshold is a similarity above 0 and at most 1, not {threshold}.")
        if not 2 <= num_perm <= 4096 or ngram < 1 or not 0 <= seed < 1 << 32:
            raise UserError(
                f"--num-perm is from 2 to 4096, --ngram at least 1, --seed from 0 to 2^32 - 1, "
                f"not {num_perm}, {ngram} and {seed}."
            )
        try:
            lsh = MinHashLSH(threshold=threshold, num_perm=num_perm)
        except ValueError as error:
            raise UserError(
                f"No bands for --threshold {threshold} of {num_perm} hashes ({error}). Use more --num-perm."
            ) from None
        self.bands, self.rows = int(lsh.b), int(lsh.r)
        self._threshold, self._ngram = threshold, ngram
        self._blank = MinHash(num_perm=num_perm, seed=seed)
        self._file = folder / "index.sqlite"
        self._base = sqlite3.connect(self._file, isolation_level=None)
        self._base.executescript(
            f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{_CACHE_KIB};"
            "CREATE TABLE texts (digest BLOB PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE kept (number INTEGER PRIMARY KEY, hashes BLOB);"
            "CREATE TABLE bands (hash INTEGER, number INTEGER, PRIMARY KEY (hash, number)) WITHOUT ROWID;"
            "BEGIN;"
        )

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    @property
    def bytes(self) -> int:
        """Size of the index so far, on disk or about to be."""
        pages, size = (self._base.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
        return int(pages * size)

    def is_new(self, text: str) -> bool:
        """Return whether no equal text was asked about before; white space at the ends is ignored."""
        digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return self._base.execute("INSERT OR IGNORE INTO texts VALUES (?)", (digest,)).rowcount == 1

    def keep(self, number: int, text: str) -> tuple[int, float] | None:
        """Put document `number` into the index, unless it is like one there: then that one's number and similarity.

        Of several the most similar is given, of equally similar ones the first.
        """
        hashes = self._hashes(text)
        keys = self._keys(hashes)
        marks = ", ".join("?" * len(keys))
        candidates = self._base.execute(
            f"SELECT number, hashes FROM kept WHERE number IN (SELECT number FROM bands WHERE hash IN ({marks}))",  # noqa: S608
            keys,
        )
        best: tuple[int, float] | None = None
        for other, stored in candidates:
            similarity = float(np.mean(hashes == np.frombuffer(stored, dtype=hashes.dtype)))
            if similarity >= self._threshold and (best is None or (-similarity, other) < (-best[1], best[0])):
                best = (int(other), similarity)
        if best is None:
            self._base.execute("INSERT INTO kept VALUES (?, ?)", (number, hashes.tobytes()))
            self._base.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(key, number) for key in keys])
        return best

    def _hashes(self, text: str) -> NDArray[np.uint32]:
        """The text's smallest hashes, num_perm of them."""
        minhash = self._blank.copy()
        batch: set[bytes] = set()
        for shingle in shingles(text, self._ngram):
            batch.add(shingle)
            if len(batch) == 4096:  # a batch is a matrix of 4,096 × num_perm
                minhash.update_batch(batch)
                batch.clear()
        minhash.update_batch(batch)
        return np.asarray(minhash.hashvalues, dtype=np.uint32)

    def _keys(self, hashes: NDArray[np.uint32]) -> list[int]:
        """A 64-bit key of each band."""
        keys = []
        for band in range(self.bands):
            part = hashes[band * self.rows : (band + 1) * self.rows].tobytes()
            digest = hashlib.blake2b(part, digest_size=8, salt=struct.pack("<I", band)).digest()
            keys.append(struct.unpack("<q", digest)[0])
        return keys


def dedup_corpus(
    corpus: Corpus,
    output: CorpusFile,
    *,
    threshold: Annotated[float, Option("Least similarity (Jaccard) of duplicates.")] = 0.8,
    num_perm: Annotated[int, Option("MinHash permutations; more are more exact.")] = 128,
    ngram: Annotated[int, Option("Words in a shingle.")] = 5,
    seed: Annotated[int, Option("Seed of the permutations.")] = 0,
    field: Field = "text",
    force: Force = False,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write the documents of `corpus` that are like no earlier kept one to `output`; return the report beside it.

    The first of equal or similar documents stays. A document is compared with kept ones only, so that of a chain
    A ~ B ~ C with A unlike C both ends stay. Order is kept; the same input gives the same output. See `NearIndex` for
    memory and disk.

    Args:
        warn: takes sentences that the user should read.

    Raises:
        UserError: input, output or settings that cannot be used, or no text.
        DarumeruError: the disk is full.
    """
    documents = characters = empty = 0
    counts = {"exact": {"documents": 0, "characters": 0}, "near": {"documents": 0, "characters": 0}}
    examples: list[dict[str, Any]] = []
    with (
        new_corpus(output, inputs=corpus, force=force) as writer,
        tempfile.TemporaryDirectory(prefix=f".{output.name}.", suffix=".index", dir=output.absolute().parent) as folder,
    ):
        index = NearIndex(Path(folder), threshold=threshold, num_perm=num_perm, ngram=ngram, seed=seed)
        try:
            for text in watched(read_texts(corpus, field=field, halves=True), "Removing duplicates"):
                documents += 1
                characters += len(text)
                if not text.strip():
                    empty += 1
                    continue
                kind = "exact"
                if index.is_new(text):
                    like = index.keep(documents, text)
                    if like is None:
                        writer.write(text)
                        continue
                    kind = "near"
                    if len(examples) < _EXAMPLES:
                        examples.append({"kept": like[0], "dropped": documents, "similarity": round(like[1], 3),
                                         "text": example(text)})  # fmt: skip
                counts[kind]["documents"] += 1
                counts[kind]["characters"] += len(text)
            size = index.bytes
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            raise DarumeruError(
                f"No space left on the disk of {output} for the index; nothing was written. Free some and repeat."
            ) from error
        finally:
            index.close()
        if not writer.documents:
            raise UserError(f"There is no text in {', '.join(map(str, corpus))}.")
    settings = {"threshold": threshold, "num_perm": num_perm, "ngram": ngram, "seed": seed, "field": field}
    measures = {
        "documents": documents, "characters": characters,
        "kept_documents": writer.documents, "kept_characters": writer.characters,
        "empty_documents": empty, "duplicates": counts, "examples": examples,
        "bands": index.bands, "rows": index.rows, "index_bytes": size,
    }  # fmt: skip
    return write_report(output, "corpus dedup", inputs=corpus, settings=settings, measures=measures)
