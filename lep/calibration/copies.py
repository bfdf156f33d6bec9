"""Examples of copying a text: what brings a model's new tokens back into its writing (arXiv 2412.21140)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from darumeru.contamination.runs import overlapping
from darumeru.errors import UserError
from lep.tokenizer.scripts import count_script

if TYPE_CHECKING:
    from darumeru.requests import Message

CHARACTERS = (1000, 6000)
"""Shortest and longest text. The prompt holds it too, so an example is twice as long."""

_SPARE = 3
"""Candidates drawn for each text that is wanted, since some overlap."""

_RUSSIAN = (
    "Спиши следующий текст целиком, ничего в нём не меняя и ничего не добавляя от себя.\n\n{text}",
    "Ниже дан текст. Воспроизведи его полностью, буква в букву, с теми же абзацами.\n\n{text}",
    "{text}\n\n---\nВыведи текст, который стоит выше черты, ещё раз и точно в том же виде.",
    "Мне нужна точная копия этого текста. Ответь только копией.\n\n{text}",
)
_ENGLISH = (
    "Reproduce the following text in full, changing nothing and adding nothing of your own.\n\n{text}",
    "A text is given below. Write it out again completely, letter for letter, with the same paragraphs.\n\n{text}",
    "{text}\n\n---\nOutput the text above the line once more, in exactly the same form.",
    "I need an exact copy of this text. Answer with the copy only.\n\n{text}",
)


@dataclass(frozen=True)
class Copies:
    """Texts to copy, and how they were found."""

    texts: tuple[str, ...]
    eligible: int
    """Texts of the corpus that are neither too short nor too long."""
    drawn: int
    """Number of these that were looked at."""
    overlapping: int
    """Number of these that share a run of words with a text that must not be in the data."""


def draw_copies(
    corpus: Iterable[str], others: Iterable[str], count: int, *, characters: tuple[int, int], words: int, seed: int
) -> Copies:
    """Draw texts to copy at random, without those that overlap with other texts.

    Args:
        corpus: texts to draw from; streamed.
        others: texts that must not overlap, training and benchmark texts; streamed.
        count: how many are wanted.
        characters: the shortest and the longest text.
        words: a shared run of so many words is an overlap.
        seed: of the draw.

    Raises:
        UserError: fewer than `count` texts are left, with the reasons.
    """
    rng = random.Random(f"copy/{seed}")
    wanted = _SPARE * count
    pool: list[str] = []
    seen: set[int] = set()
    eligible = 0
    for raw in corpus:
        text = raw.strip()
        if not characters[0] <= len(text) <= characters[1] or (key := hash(text)) in seen:
            continue
        seen.add(key)
        # A reservoir: every text has the same chance, however many there are.
        eligible += 1
        if len(pool) < wanted:
            pool.append(text)
        elif (place := rng.randrange(eligible)) < wanted:
            pool[place] = text
    hit = overlapping(pool, others, words)
    left = [text for index, text in enumerate(pool) if index not in hit]
    if len(left) < count:
        raise UserError(
            f"--copy and --continuations want {count} texts: {eligible} have {characters[0]} to {characters[1]} characters, "
            f"{len(pool)} of them were drawn, and {len(hit)} of those overlap with texts of --exclude or of the "
            f"benchmark; {len(left)} are left. Give more texts, other lengths, or a smaller number."
        )
    rng.shuffle(left)
    return Copies(tuple(left[:count]), eligible, len(pool), len(hit))


def copy_example(text: str, number: int) -> list[Message]:
    """Return the conversation in which text number `number` is copied; in Russian where it is mostly Cyrillic."""
    cyrillic, latin = count_script(text, ("Cyrillic",)), count_script(text, ("Latin",))
    wordings = _RUSSIAN if cyrillic > latin else _ENGLISH
    asked = wordings[number % len(wordings)].replace("{text}", text)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": text}]


def benchmark_texts(bundle: str) -> Iterator[str]:
    """Yield every text in the rows of a bundle's data sets.

    Args:
        bundle: `mini` or a folder; the hub's bundle has to be pulled first.

    Raises:
        UserError: it is neither.
    """
    from darumeru.contamination.benchmark import strings
    from darumeru.data.bundle import FolderBundle, open_bundle

    opened = open_bundle(bundle)
    if not isinstance(opened, FolderBundle):
        raise UserError(
            f"--data {bundle}: name a folder that 'darumeru data pull' has written, so that its texts can be read."
        )
    for dataset in opened.datasets():
        for file in sorted(Path(opened.root, dataset).iterdir()):
            split = file.name.split(".")[0]
            if file.name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
                for row in opened.load("", dataset, split).rows:
                    yield from strings(row)
