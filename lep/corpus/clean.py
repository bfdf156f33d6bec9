"""`lep corpus clean`: texts without markup, links, metadata and rubbish, in the scripts that were asked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import regex

from darumeru.data.texts import read_texts
from darumeru.errors import UserError
from darumeru.options import Option
from lep.corpus.rules import DOCUMENT_RULES, LINE_RULES, TEXT_RULES, plain_spaces, without_letters
from lep.corpus.write import example, new_corpus, watched, write_report
from lep.options import Corpus, CorpusFile, Field, Force
from lep.tokenizer.scripts import foreign_letters, script_shares, scripts_of

_EXAMPLES = 5
_SAMPLE = 1_000_000
"""Characters whose scripts are looked at."""

RULES = (
    *TEXT_RULES, "nfc", *LINE_RULES, "scraps", "scripts", "spaces", "empty", "short", "long", *DOCUMENT_RULES, "benchmark",
)  # fmt: skip
"""The rules in the order in which they are applied."""

_ALWAYS = {"empty", "short", "long", "nfc", "benchmark"}  # these have options of their own, or must be

_LETTER = regex.compile(r"[\p{L}\p{M}]")


@dataclass
class Tally:
    """Counts of one rule.

    Attributes:
        changed: documents that lost something by it and went on.
        dropped: documents that it dropped.
        lines: lines that it dropped.
        characters: characters that it took away, those of dropped documents included (as they came to the rule).
        examples: the beginnings of the first few pieces that went.
    """

    changed: int = 0
    dropped: int = 0
    lines: int = 0
    characters: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, piece: str) -> None:
        """Keep a piece as an example, if there is still room."""
        if piece.strip() and len(self.examples) < _EXAMPLES:
            self.examples.append(example(piece))


class Cleaner:
    """The rules with their settings; `clean` takes one document, `tallies` counts over all.

    Args:
        scripts: scripts whose letters may stay; none for all.
        max_other: a document with a larger share of letters in other scripts is dropped; in others they are removed.
        nfc: compose characters (Unicode's NFC).
        min_chars: shorter documents are dropped, as they are at the end.
        max_chars: longer ones are.
        skip: names of rules that are left out.
        of_benchmark: whether a cleaned text has something of a benchmark's document; such texts are dropped.

    Raises:
        UserError: an unknown rule or script, limits that leave nothing.
    """

    def __init__(
        self,
        scripts: tuple[str, ...],
        *,
        max_other: float = 0.1,
        nfc: bool = False,
        min_chars: int = 0,
        max_chars: int | None = None,
        skip: Iterable[str] = (),
        of_benchmark: Callable[[str], bool] | None = None,
    ) -> None:
        skipped = set(skip)
        optional = [name for name in RULES if name not in _ALWAYS]
        if unknown := sorted(skipped.difference(optional)):
            raise UserError(f"No rule {', '.join(map(repr, unknown))} to skip. These can be: {', '.join(optional)}.")
        if not 0 <= max_other <= 1:
            raise UserError(f"--max-other is a share from 0 to 1, not {max_other}.")
        if min_chars < 0 or (max_chars is not None and max_chars < max(min_chars, 1)):
            raise UserError(f"No document has at least {min_chars} and at most {max_chars} characters.")
        self._foreign = foreign_letters(scripts) if scripts and "scripts" not in skipped else None
        self._max_other = max_other
        self._limits = (min_chars, max_chars)
        self._text_rules = {name: rule for name, rule in TEXT_RULES.items() if name not in skipped}
        if nfc:
            self._text_rules["nfc"] = lambda text: unicodedata.normalize("NFC", text)
        self._line_rules = {name: rule for name, rule in LINE_RULES.items() if name not in skipped}
        self._document_rules = {name: rule for name, rule in DOCUMENT_RULES.items() if name not in skipped}
        if of_benchmark:
            self._document_rules["benchmark"] = of_benchmark
        self._scraps = "scraps" not in skipped
        self._spaces = "spaces" not in skipped
        off = skipped | ({"nfc"} if not nfc else set()) | ({"benchmark"} if of_benchmark is None else set())
        self.tallies = {name: Tally() for name in RULES if name not in off}

    def clean(self, text: str) -> str | None:
        """The document as it should be, or None where it was dropped."""
        for name, rule in self._text_rules.items():
            text = self._changed(name, text, rule(text))
        whole = len(text)
        text = self._without_lines(text)
        if self._scraps and text.strip() and len(text) < 0.5 * whole:
            return self._dropped("scraps", text)
        if self._foreign is not None and (others := len(self._foreign.findall(text))):
            if others > self._max_other * len(_LETTER.findall(text)):
                return self._dropped("scripts", text)
            text = self._changed("scripts", text, without_letters(text, self._foreign))
        if self._spaces:
            text = self._changed("spaces", text, plain_spaces(text))
        shortest, longest = self._limits
        if not text.strip():
            return self._dropped("empty", text)
        if len(text) < shortest:
            return self._dropped("short", text)
        if longest is not None and len(text) > longest:
            return self._dropped("long", text)
        for name, wrong in self._document_rules.items():
            if wrong(text):
                return self._dropped(name, text)
        return text

    def _without_lines(self, text: str) -> str:
        kept: list[str] = []
        hit: set[str] = set()
        for line in text.split("\n"):
            bare = line.strip()
            reason = next((name for name, wrong in self._line_rules.items() if wrong(bare)), None) if bare else None
            if reason is None:
                kept.append(line)
                continue
            tally = self.tallies[reason]
            tally.lines += 1
            tally.characters += len(line) + 1
            tally.note(bare)
            hit.add(reason)
        for reason in hit:
            self.tallies[reason].changed += 1
        return "\n".join(kept)

    def _changed(self, name: str, before: str, after: str) -> str:
        if before != after:
            tally = self.tallies[name]
            tally.changed += 1
            tally.characters += len(before) - len(after)
            if len(tally.examples) < _EXAMPLES and name != "spaces":
                tally.note(_difference(before, after))
        return after

    def _dropped(self, name: str, text: str) -> str | None:
        tally = self.tallies[name]
        tally.dropped += 1
        tally.characters += len(text)
        tally.note(text)
        return None


def clean_corpus(
    corpus: Corpus,
    output: CorpusFile,
    *,
    lang: Annotated[str, Option("Letters of its scripts and Latin ones stay.")] = "ru",
    scripts: Annotated[
        Sequence[str] | None, Option("Unicode scripts that stay instead; 'any' for all.", many="spread")
    ] = None,
    max_other: Annotated[float, Option("Drop documents with a larger share of letters of other scripts.")] = 0.1,
    nfc: Annotated[bool, Option("Compose characters (Unicode NFC).", flag="--nfc")] = False,
    min_chars: Annotated[int, Option("Drop shorter documents.")] = 0,
    max_chars: Annotated[int | None, Option("Drop longer documents.")] = None,
    skip: Annotated[Sequence[str], Option("Rules to leave out, by their names.", many="spread")] = (),
    exclude_benchmark: Annotated[
        str | None,
        Option("Drop texts that share 13 words in a row with a document of this suite.", metavar="SUITE"),
    ] = None,
    data: Annotated[str, Option("The suite's bundle: hub, mini, or the folder of an offline bundle.")] = "hub",
    field: Field = "text",
    force: Force = False,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Write the cleaned documents of `corpus`, in their order, to `output`; return the report that stands beside it.

    One document is in memory at a time. Fields but the text are left behind. Rows of the report's `rules` are `Tally`.

    Args:
        warn: takes sentences that the user should read.

    Raises:
        UserError: input or output that cannot be used, no text, or nothing left of it.
    """
    allowed = scripts_of(lang, scripts)
    if not scripts:
        allowed = tuple(dict.fromkeys((*allowed, "Latin")))
    cleaner = Cleaner(
        allowed,
        max_other=max_other,
        nfc=nfc,
        min_chars=min_chars,
        max_chars=max_chars,
        skip=skip,
        of_benchmark=_touches(exclude_benchmark, data) if exclude_benchmark else None,
    )
    documents = characters = sampled = 0
    sample: list[str] = []
    with new_corpus(output, inputs=corpus, force=force) as writer:
        for text in watched(read_texts(corpus, field=field, halves=True), "Cleaning"):
            documents += 1
            characters += len(text)
            if sampled < _SAMPLE:
                sample.append(text[: _SAMPLE - sampled])
                sampled += len(sample[-1])
            cleaned = cleaner.clean(text)
            if cleaned is not None:
                writer.write(cleaned)
        shares = script_shares(sample)
        found = ", ".join(f"{script} {share:.1%}" for script, share in list(shares.items())[:4])
        if not shares:
            raise UserError(f"There is no text in {', '.join(map(str, corpus))}.")
        if not writer.documents:
            worst = max(cleaner.tallies, key=lambda name: cleaner.tallies[name].dropped)
            raise UserError(
                f"Nothing is left of {documents:,} documents; most fell to the rule {worst!r}. Their letters are {found}. "
                "Choose other --scripts, other limits, or --skip a rule; nothing was written."
            )
    other = 1 - sum(shares.get(script, 0.0) for script in allowed) if allowed else 0.0
    if other > 0.5:
        warn(f"{other:.0%} of the letters are not {' or '.join(allowed)} (found: {found}). Is this the right corpus?")
    settings = {
        "scripts": list(allowed), "max_other": max_other, "nfc": nfc, "min_chars": min_chars, "max_chars": max_chars,
        "skip": list(skip), "field": field, "exclude_benchmark": exclude_benchmark,
        "data": data if exclude_benchmark else None,
    }  # fmt: skip
    measures = {
        "documents": documents, "characters": characters,
        "kept_documents": writer.documents, "kept_characters": writer.characters,
        "scripts": {script: round(share, 4) for script, share in shares.items()},
        "rules": {name: asdict(tally) for name, tally in cleaner.tallies.items()},
    }  # fmt: skip
    return write_report(output, "corpus clean", inputs=corpus, settings=settings, measures=measures)


def _touches(suite: str, data: str) -> Callable[[str], bool]:
    """Return whether a text has a run of words of a suite's document."""
    from darumeru.contamination.benchmark import open_benchmark

    return open_benchmark(suite, data=data).index.touches


def _difference(before: str, after: str) -> str:
    """The part of `before` where the two first differ, with a little before it."""
    start = next((at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after))
    return before[max(0, start - 20) : start + 60]
