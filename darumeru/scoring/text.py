"""Scores of single answers: question answering, exams, summaries, copies. Pure functions of texts."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ASCII_PUNCTUATION_TO_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))
_ARTICLES = re.compile(r"\b(a|an|the)\b")


# -- Russian words ----------------------------------------------------------------------------------------------------


@cache
def _morph() -> Any:
    import pymorphy3

    return pymorphy3.MorphAnalyzer()


@lru_cache(maxsize=200_000)
def lemma(word: str) -> str:
    """Return the normal form of a word: pymorphy3's first parse."""
    return str(_morph().parse(word)[0].normal_form)


# -- short answers (multiq) -------------------------------------------------------------------------------------------


def squad_words(text: str) -> list[str]:
    """Return the words after SQuAD v1.1's normalisation: lower case, no ASCII punctuation, no English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


def russian_words(text: str) -> list[str]:
    """Return the same for Russian: lower case, ё as е, no punctuation of any kind, lemmas."""
    return [lemma(w).replace("ё", "е") for w in re.findall(r"[^\W_]+", text.lower().replace("ё", "е"))]


def exact(answer: Sequence[str], gold: Sequence[str]) -> float:
    """Return 1 if two normalised texts are equal."""
    return float(list(answer) == list(gold))


def f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    """Return the F1 of two bags of words; if either is empty, 1 only if both are."""
    if not answer or not gold:
        return float(list(answer) == list(gold))
    common = sum((Counter(answer) & Counter(gold)).values())
    return 2 * common / (len(answer) + len(gold))


# -- Unified State Exam (use) -----------------------------------------------------------------------------------------

EXAM_POINTS = 34
"""Points of a whole variant."""


def exam_points(kind: str, number: str, gold: str, answer: str) -> int:
    """Return the points of one item of the exam.

    Args:
        kind: `matching`, `text`, or any kind of multiple choice.
        number: the item's number in the exam.
        gold: the right answer; several parts (or, for `text`, several right answers) separated by commas.
        answer: the model's.
    """
    golds = [g.strip() for g in gold.split(",")]
    if kind == "text":
        return int(re.sub(r"[\d\W_]+", "", answer.lower()) in [g.lower() for g in golds])
    parts = [p.strip() for p in answer.split(",")]
    if kind == "matching":
        return sum(a == p for a, p in zip(golds, parts, strict=True)) if len(golds) == len(parts) else 0
    if number == "16":
        padded = max(len(parts), len(golds))
        return max(0, len(set(golds) & set(parts)) - padded + len(golds))
    return int(set(golds) == set(parts))


# -- summaries --------------------------------------------------------------------------------------------------------


class LemmaTokenizer:
    """rouge-score's tokenizer interface; its default one drops every Cyrillic letter."""

    def tokenize(self, text: str) -> list[str]:
        """Return words: lower case, ASCII punctuation as spaces, words as lemmas."""
        return [lemma(word) for word in text.lower().translate(_ASCII_PUNCTUATION_TO_SPACE).split()]


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=LemmaTokenizer())


def rouge(reference: str, answer: str) -> dict[str, float]:
    """Return recall and F of ROUGE-1, -2 and -L on lemmas."""
    scores = _rouge().score(reference, answer)
    return {
        f"{name}_{part}": float(value)
        for name, s in scores.items()
        for part, value in (("recall", s.recall), ("f1", s.fmeasure))
    }


def r_precision(scores: Sequence[float], gold: Sequence[int]) -> float:
    """Return the share of gold items among the R best-scored ones, R = number of different gold items; earlier items win ties.

    0 where there is no gold item.
    """
    wanted = set(gold)
    top = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: len(wanted)]
    return len(wanted.intersection(top)) / len(wanted) if wanted else 0.0


# -- copies -----------------------------------------------------------------------------------------------------------


def length_ratio(generated: int, source: int) -> float:
    """Return `min(g/s, s/g)` of two token counts; 0 if either is 0."""
    return min(generated / source, source / generated) if generated and source else 0.0


def lcs_share(source: str, answer: str) -> float:
    """Return the share of the source's characters that the longest common subsequence with the answer covers (both stripped)."""
    from rapidfuzz.distance import LCSseq

    source, answer = source.strip(), answer.strip()
    return LCSseq.similarity(source, answer) / len(source) if source else float(not answer)
