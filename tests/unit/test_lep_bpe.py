"""Continued byte-pair encoding against a plain loop over the words."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from lep.vocab.bpe import learn_merges


def plain(
    words: list[list[int]], counts: list[int], new_tokens: int, min_count: int
) -> list[tuple[int, int, int, int]]:
    """The definition: count all pairs, join the most frequent one, repeat."""
    words = [list(word) for word in words]
    merges: list[tuple[int, int, int, int]] = []
    following = 100
    while len(merges) < new_tokens:
        pairs: Counter[tuple[int, int]] = Counter()
        for word, count in zip(words, counts, strict=True):
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        (left, right), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if count < min_count:
            break
        for index, word in enumerate(words):
            joined, at = [], 0
            while at < len(word):
                if word[at : at + 2] == [left, right]:
                    joined.append(following)
                    at += 2
                else:
                    joined.append(word[at])
                    at += 1
            words[index] = joined
        merges.append((left, right, following, count))
        following += 1
    return merges


@pytest.mark.parametrize("seed", range(20))
def test_same_merges_as_the_plain_loop(seed: int) -> None:
    rng = random.Random(seed)
    letters = rng.choice([1, 2, 5, 12])
    words = [[rng.randrange(letters) for _ in range(rng.randrange(1, 12))] for _ in range(rng.randrange(1, 60))]
    counts = [rng.randrange(1, 9) for _ in words]
    # Overlaps in runs of one letter are counted as places; with one letter the plain loop counts the same places.
    following = iter(range(100, 10**6))
    got = learn_merges(
        words, counts, new_tokens=40, name=lambda _l, _r: next(following), is_new=lambda _: True, min_count=2
    )
    assert [(m.left, m.right, m.result, m.count) for m in got] == plain(words, counts, 40, 2)


def test_held_back_pairs_are_never_merged() -> None:
    got = learn_merges(
        [[1, 2, 3]] * 5,
        [10] * 5,
        new_tokens=5,
        name=lambda left, right: None if left == 1 else 50 + right,
        is_new=lambda _: True,
    )
    assert [(m.left, m.right) for m in got] == [(2, 3)]


def test_two_ways_to_one_token_and_pairs_that_come_back() -> None:
    # "abc" arises from (ab)(c) in one word and from (a)(bc) in the other; (abc)(d) is merged when it first turns up.
    text = {1: "a", 2: "b", 3: "c", 4: "d", 5: "x"}
    ids = {value: key for key, value in text.items()}

    def name(left: int, right: int) -> int:
        joined = text[left] + text[right]
        if joined not in ids:
            ids[joined] = len(text) + 1
            text[ids[joined]] = joined
        return ids[joined]

    words = ([[1, 2, 3, 4]] * 3) + [[5, 1, 2, 3]] + [[2, 3, 5]] * 4 + [[1, 2, 5]] * 9
    got = learn_merges(words, [1] * len(words), new_tokens=30, name=name, is_new=lambda _: True, min_count=1)
    pairs = [(text[m.left], text[m.right]) for m in got]
    assert len(pairs) == len(set(pairs))
    assert pairs[0] == ("a", "b")
    assert {("ab", "c"), ("b", "c")} <= set(pairs)


def test_arrays_are_taken_as_they_are() -> None:
    words = [[1, 2, 1, 2], [2, 1], []]
    flat = np.array([1, 2, 1, 2, 2, 1], dtype=np.int32)
    lengths = np.array([4, 2, 0], dtype=np.int64)
    counts = [3, 4, 7]
    results = [
        learn_merges(source, counts, new_tokens=3, name=lambda left, right: left * 10 + right, is_new=lambda _: True)
        for source in (words, (flat, lengths))
    ]
    assert results[0] == results[1] != []


def test_old_merges_come_back_to_life_unlisted() -> None:
    # (1, 2) makes the old token 12, which nothing made before; the old merge (12, 3) then applies at once.
    got = learn_merges(
        [[1, 2, 3, 4]] * 3,
        [5] * 3,
        new_tokens=5,
        name=lambda left, right: {(1, 2): 12, (13, 4): 99}.get((left, right)),
        is_new=lambda index: index == 99,
        known={(12, 3): 13},
    )
    assert [(m.left, m.right, m.result) for m in got] == [(1, 2, 12), (13, 4, 99)]
