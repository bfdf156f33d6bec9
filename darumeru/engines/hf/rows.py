"""Rows: what a model computes to score a request, a sequence with the tokens whose probabilities are wanted at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darumeru.engines.base import label_logprobs, label_tree
from darumeru.requests import Answer, Request, Tokens

Values = list[tuple[dict[int, float], int]]
"""For each of a row's last positions the wanted tokens' log-probabilities, and the most probable token."""


@dataclass(frozen=True)
class Row:
    """A prompt with one longest proper prefix of its labels' spellings, or with a continuation but for its last token."""

    request: Request
    index: int
    """Which of the request's rows it is."""
    tail: Tokens
    """What stands behind the request's prompt."""
    wanted: tuple[Tokens, ...]
    """For each of the last positions, the tokens whose log-probabilities after it are wanted."""

    def __len__(self) -> int:
        return self.request.prompt_tokens + len(self.tail)

    @property
    def tokens(self) -> Tokens:
        """The whole sequence, put together where it is read: a run has rows of a hundred million tokens."""
        return self.request.prompt + self.tail


def rows_of(request: Request) -> list[Row]:
    """Return the rows that score a request of the kinds choose, rank and likelihood."""
    if request.kind == "choose":
        tree = label_tree(request.labels)
        return [
            Row(request, i, prefix, tuple(tree.get(prefix[:d], ()) for d in range(len(prefix) + 1)))
            for i, prefix in enumerate(_longest(tree))
        ]
    return [Row(request, i, c[:-1], tuple((token,) for token in c)) for i, c in enumerate(request.continuations)]


def answer_of(request: Request, found: Mapping[int, Values]) -> Answer:
    """Return the answer in the values of a request's rows, by their index."""
    if request.kind == "choose":
        logprobs = {
            prefix[:depth]: found[i][depth][0]
            for i, prefix in enumerate(_longest(label_tree(request.labels)))
            for depth in range(len(prefix) + 1)
        }
        return Answer(request.id, logprobs=label_logprobs(request.labels, logprobs))
    sums, greedy = [], []
    for i, continuation in enumerate(request.continuations):
        pairs = list(zip(continuation, found[i], strict=True))
        sums.append(sum(values[token] for token, (values, _) in pairs))
        greedy.append(all(token == top for token, (_, top) in pairs))
    if request.kind == "likelihood":
        return Answer(request.id, logprobs=tuple(sums), greedy=tuple(greedy))
    means = (s / len(c) for s, c in zip(sums, request.continuations, strict=True))
    return Answer(request.id, logprobs=tuple(means))


def _longest(tree: Mapping[Tokens, Tokens]) -> list[Tokens]:
    """Return the prefixes of a label tree that no other prefix begins with: the others lie on the way to them."""
    return [p for p in tree if not any(len(q) > len(p) and q[: len(p)] == p for q in tree)]


def positions(rows: Sequence[Row], shared: int) -> list[list[int]]:
    """Return for each row the positions behind a shared prefix of so many tokens whose logits it wants."""
    return [list(range(len(r) - shared - len(r.wanted), len(r) - shared)) for r in rows]
