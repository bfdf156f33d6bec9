"""The requests of one model: which are open, which are handed out in windows, and which end the workers that compute them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from darumeru.requests import Answer, Request

MOST = 256
"""Requests of a window at most."""

LEAST = 16
"""Requests of a window at least, while there are as many: an engine computes several at once."""

PARTS = 4
"""Of what is open a worker gets this part of its share next, so that all end at about the same time."""

SUSPECTS = 8
"""Requests of a window of those that one worker died of; those that a second one died of are handed out alone."""

DEATHS = 3
"""Workers that may die of a request."""


class Work:
    """Requests that are asked of one model.

    Windows are parts of one order: by kind, the longest answers first, then by prompt. So a window's prompts begin alike, and a
    worker's cache of prefixes is used; what is short comes last.
    """

    def __init__(self) -> None:
        self._open: deque[Request] = deque()
        self._costs = 0
        self._suspects: deque[Request] = deque()
        self._deaths: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open) + len(self._suspects)

    @property
    def suspects(self) -> int:
        """How many open requests may have ended a worker."""
        return len(self._suspects)

    def ask(self, requests: Iterable[Request]) -> None:
        """Add requests, behind those that are open."""
        first = {"generate": 0, "rank": 1, "likelihood": 1, "choose": 2}
        # All workers wait meanwhile: two parts of a prompt compare much faster than the whole, and those that share one stay
        # together.
        added = sorted(requests, key=lambda r: (first[r.kind], -r.max_tokens, r.packed.head, r.packed.tail, r.id))
        self._open.extend(added)
        self._costs += sum(map(_cost, added))

    def window(self, workers: int) -> list[Request]:
        """Take the next requests for one of so many workers; those that a worker may have died of come first."""
        if self._suspects:
            alone = self._deaths[self._suspects[0].id] > 1
            window: list[Request] = []
            while self._suspects and len(window) < (1 if alone else SUSPECTS):
                if not alone and self._deaths[self._suspects[0].id] > 1:
                    break
                window.append(self._suspects.popleft())
            return window
        share, taken, window = self._costs / (PARTS * workers), 0, []
        while self._open and len(window) < MOST and (len(window) < LEAST or taken < share):
            window.append(self._open.popleft())
            taken += _cost(window[-1])
        self._costs -= taken
        return window

    def suspected(self, request: Request) -> bool:
        """Return whether a worker died while it had this request."""
        return request.id in self._deaths

    def lost(self, requests: Sequence[Request], reason: str) -> list[Answer]:
        """Take back what a worker had not answered when it died.

        The requests are asked again in ever smaller windows, so that one that ends its workers is alone with the last of them.

        Args:
            requests: what it had not answered.
            reason: why it died; empty where no request can be the cause, as when its whole node is gone.

        Returns:
            The fault of the request that has ended too many workers.
        """
        if reason:
            for request in requests:
                self._deaths[request.id] = self._deaths.get(request.id, 0) + 1
        if reason and len(requests) == 1 and self._deaths[requests[0].id] >= DEATHS:
            id_ = requests[0].id
            return [Answer(id_, error=f"request '{id_}' ended {DEATHS} workers, the last one so: {reason}")]
        self._suspects.extend(r for r in requests if r.id in self._deaths)
        self._suspects = deque(sorted(self._suspects, key=lambda r: self._deaths[r.id]))
        back = [r for r in requests if r.id not in self._deaths]
        self._open.extendleft(reversed(back))
        self._costs += sum(map(_cost, back))
        return []


def _cost(request: Request) -> int:
    """Return about what a request costs, in tokens; one that is generated costs far more than one that is read."""
    return request.prompt_tokens + 8 * request.max_tokens


def share_of(workers: int, models: int) -> int:
    """Return how many of the workers a model may hold while so many models are not finished."""
    return max(1, -(-workers // max(1, models)))


def summary_of(states: Mapping[str, int], died: int) -> str:
    """Return the states of workers in words: `3 answer, 1 loads; 2 died and were replaced`."""
    parts = [f"{count} {state if count > 1 else _SINGULAR[state]}" for state, count in states.items() if count]
    replaced = f"; {died} died and {'was' if died == 1 else 'were'} replaced" if died else ""
    return ", ".join(parts) + replaced


_SINGULAR = {"answer": "answers", "load": "loads", "wait": "waits", "start": "starts"}
